"""VS Code while things go wrong or are switched off: the real extension with servers and workers that die or load."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.conftest import FIMBLE, worker_of
from tests.editors.documents import SAVE, STACK_UNCLOSED
from tests.editors.vscode_editor import Editor, opened

LATENT_MS = 1500
"""How long nothing may appear where nothing should: many times what an answer takes."""


def server_of(code: Editor) -> psutil.Process:
    """The language server of that window."""
    host = psutil.Process(code.window.run("return process.pid"))
    [server] = [child for child in host.children() if FIMBLE in child.cmdline()]
    return server


def nothing_appears(code: Editor) -> None:
    """Watches the frames for a while."""
    code.record()
    code.window.evaluate(f"new Promise((done) => setTimeout(done, {LATENT_MS}))")
    assert not [frame for frame in code.frames() if frame.ghost]


@pytest.mark.behaviour("switched off")
def test_for_a_language_that_is_off_nothing_appears_until_it_is_on(code: Editor) -> None:
    code.edit("save.py", SAVE)
    code.window.command("fimble.editor.toggleLanguage")
    code.window.until(lambda screen: "off" in screen.status, "it being off")
    code.type("jso")
    nothing_appears(code)
    code.edit("stack.go", STACK_UNCLOSED)
    code.window.until(lambda screen: "ready" in screen.status, "it being on for Go")
    code.type("{\n")
    code.ghost()
    code.edit("save.py", SAVE)
    code.window.command("fimble.editor.toggleLanguage")
    code.window.until(lambda screen: "ready" in screen.status, "it being on")
    code.type("jso")
    code.see("n.dump(data, f)")


@pytest.mark.behaviour("switched off")
def test_off_for_the_workspace_nothing_appears_and_the_menu_turns_it_on(code: Editor) -> None:
    code.edit("save.py", SAVE)
    code.type("js")
    code.ghost()
    code.window.command("fimble.editor.toggle")
    code.window.until(lambda screen: "off" in screen.status and not screen.ghost, "it being off")
    code.type("o")
    nothing_appears(code)
    assert '"fimble.enabled": false' in (code.window.folder / ".vscode" / "settings.json").read_text()
    code.window.evaluate("document.getElementById('fimble.fimble.status').querySelector('a').click()")
    menu = code.window.until(lambda screen: screen.menu, "the menu").menu
    assert "Turn on for this workspace" in menu[0]
    code.press("Enter")
    code.window.until(lambda screen: "ready" in screen.status, "it being on")
    code.window.command("workbench.action.focusActiveEditorGroup")
    code.type("n")
    code.see(".dump(data, f)")


def test_a_setting_applies_at_once(code: Editor) -> None:
    code.configure("confidence", 1)
    try:
        code.edit("save.py", SAVE)
        code.type("jso")
        code.answered()
        assert not code.window.screen().ghost
    finally:
        code.configure("confidence", None)
    code.edit("save.py", SAVE)
    code.type("jso")
    code.see("n.dump(data, f)")


@pytest.mark.behaviour("worker killed")
def test_a_killed_worker_is_replaced_and_ghost_text_comes_without_another_key(
    code: Editor, state: dict[str, str]
) -> None:
    code.edit("stack.go", STACK_UNCLOSED)
    worker_of(state).kill()
    code.type("{\n")
    code.window.until(lambda screen: "loading the model" in screen.status, "progress")
    code.ghost()
    assert "fimble: ready" in code.window.screen().status


@pytest.mark.behaviour("server killed")
def test_a_killed_server_is_reported_and_comes_back(code: Editor) -> None:
    code.edit("save.py", SAVE)
    code.type("jso")
    code.see("n.dump(data, f)")
    server_of(code).kill()
    told = "fimble: The server ended unexpectedly; it is started again."
    code.window.until(lambda screen: told in screen.messages, "a message")
    code.ready()
    code.type("n")
    code.see(".dump(data, f)")


@pytest.mark.behaviour("worker loading")
def test_while_the_model_loads_there_is_progress_and_then_ghost_text_without_another_key(
    vscode_packages: tuple[Path, Path], fresh_state: dict[str, str], tmp_path: Path
) -> None:
    with opened(vscode_packages, fresh_state, tmp_path, {"fimble.command": FIMBLE}) as code:
        code.edit("save.py", SAVE)
        code.window.until(lambda screen: "%" in screen.status and "loading the model" in screen.status, "progress")
        code.type("jso")
        code.see("n.dump(data, f)")
