"""VS Code while things go wrong or are switched off: the real extension with servers and workers that die or load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.box import Box, serving
from tests.conftest import FIMBLE, worker_of
from tests.editors.documents import SAVE, STACK_UNCLOSED
from tests.editors.vscode_editor import Editor, opened


@pytest.mark.behaviour("switched off")
def test_for_a_language_that_is_off_nothing_appears_until_it_is_on(code: Editor) -> None:
    code.edit("save.py", SAVE)
    code.window.command("fimble.editor.toggleLanguage")
    code.window.until(lambda screen: "off" in screen.status, "it being off")
    code.type("jso")
    code.nothing_appears()
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
    code.nothing_appears()
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


@pytest.fixture
def box(fresh_state: dict[str, str]) -> Iterator[Box]:
    """Another machine's worker."""
    box = serving(fresh_state)
    yield box
    box.process.terminate()
    box.process.wait(60)


def requests(box: Box) -> float:
    """How many that worker has begun."""
    asked = Request(f"{box.url}/metrics", headers={"Authorization": f"Bearer {box.key.read_text().strip()}"})
    with urlopen(asked) as answer:
        return float(re.findall(r"^fimble_requests_total (.*)$", answer.read().decode(), re.MULTILINE)[0])


def test_a_worker_elsewhere_answers_as_soon_as_settings_name_it_and_its_key(code: Editor, box: Box) -> None:
    code.configure("worker.url", box.url)
    try:
        code.window.until(lambda screen: "there is no key" in screen.status, "what is missing")
        code.configure("worker.keyFile", str(box.key))
        code.ready()
        before = requests(box)
        code.edit("stack.go", STACK_UNCLOSED)
        code.type("{\n")
        code.block()
        assert requests(box) > before
    finally:
        code.configure("worker.url", "")  # as the settings editor leaves it
        code.configure("worker.keyFile", None)
    code.window.command("notifications.clearAll")
    code.ready()
    before = requests(box)
    code.edit("save.py", SAVE)
    code.type("jso")
    code.see("n.dump(data, f)")
    assert requests(box) == before
    assert not code.window.screen().messages
    code.configure("worker.url", None)


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
    code.server().kill()
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
