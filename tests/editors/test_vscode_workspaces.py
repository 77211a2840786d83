"""What VS Code can have open beside a folder: several of them with their own settings, and documents without a name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FIMBLE
from tests.editors.documents import SAVE, STACK_UNCLOSED
from tests.editors.vscode_editor import Editor, opened

SET_IN_FOLDER = """
const config = vscode.workspace.getConfiguration("fimble", vscode.workspace.workspaceFolders[args[0]]);
await config.update(args[1], args[2], vscode.ConfigurationTarget.WorkspaceFolder);
"""


@pytest.fixture(scope="module")
def several(
    vscode_packages: tuple[Path, Path], state: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Editor]:
    """A window on two folders: completions are off in the second, and it has no others for Go."""
    folder = tmp_path_factory.mktemp("several")
    for name, settings in (("one", {}), ("two", {"fimble.enabled": False, "fimble.disabledLanguages": ["go"]})):
        place = folder / name / ".vscode" / "settings.json"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps(settings))
    workspace = folder / "both.code-workspace"
    workspace.write_text(json.dumps({"folders": [{"path": "one"}, {"path": "two"}]}))
    settings = {"fimble.command": FIMBLE, "fimble.trace": True}
    with opened(vscode_packages, state, folder, settings, on=workspace) as code:
        code.folder = folder / "one"
        code.warm_up()
        yield code


@pytest.fixture
def code(several: Editor) -> Iterator[Editor]:
    several.ready()
    yield several
    several.reset()


def go_on(code: Editor, folder: str, name: str, text: str) -> None:
    """Opens a new file in one of the folders."""
    code.folder = code.window.folder.parent / folder
    code.edit(name, text)


def settings_of(code: Editor, place: str) -> dict[str, object]:
    return json.loads((code.window.folder.parent / place).read_text())


def test_completions_are_on_in_one_folder_and_off_in_another_until_the_menu_turns_them_on(code: Editor) -> None:
    go_on(code, "two", "save.py", SAVE)
    code.window.until(lambda screen: "fimble: off" in screen.status, "it being off there")
    code.type("jso")
    code.nothing_appears()
    go_on(code, "one", "save.py", SAVE)
    code.window.until(lambda screen: "fimble: ready" in screen.status, "it being on here")
    code.type("jso")
    code.see("n.dump(data, f)")
    go_on(code, "two", "save.py", SAVE)
    code.choose("Turn on for the folder two")
    code.window.until(lambda screen: "fimble: ready" in screen.status, "it being on there too")
    code.window.command("workbench.action.focusActiveEditorGroup")
    code.type("jso")
    code.see("n.dump(data, f)")
    assert settings_of(code, "two/.vscode/settings.json")["fimble.enabled"] is True
    code.choose("Turn off for the folder two")
    code.window.until(lambda screen: "fimble: off" in screen.status and not screen.ghost, "it being off again")
    assert settings_of(code, "one/.vscode/settings.json") == {}


def test_a_language_that_is_off_in_one_folder_is_on_in_another(code: Editor) -> None:
    code.window.run(SET_IN_FOLDER, 1, "enabled", True)
    go_on(code, "two", "stack.go", STACK_UNCLOSED)
    code.window.until(lambda screen: "off – for go" in screen.status, "it being off there")
    code.type("{\n")
    code.nothing_appears()
    go_on(code, "one", "stack.go", STACK_UNCLOSED)
    code.window.until(lambda screen: "fimble: ready" in screen.status, "it being on here")
    code.type("{\n")
    code.block()
    go_on(code, "two", "stack.go", STACK_UNCLOSED)
    code.window.command("fimble.editor.toggleLanguage")
    code.window.until(lambda screen: "fimble: ready" in screen.status, "it being on there too")
    assert settings_of(code, "two/.vscode/settings.json")["fimble.disabledLanguages"] == []
    code.type("{\n")
    code.block()
    code.window.run(SET_IN_FOLDER, 1, "disabledLanguages", ["go"])
    code.window.run(SET_IN_FOLDER, 1, "enabled", False)


def test_off_for_the_workspace_is_off_wherever_a_folder_says_nothing_else(code: Editor) -> None:
    go_on(code, "one", "save.py", SAVE)
    code.window.command("fimble.editor.toggle")
    code.window.until(lambda screen: "fimble: off" in screen.status, "it being off")
    code.type("jso")
    code.nothing_appears()
    assert settings_of(code, "both.code-workspace")["settings"] == {"fimble.enabled": False}
    code.window.run(SET_IN_FOLDER, 1, "enabled", True)
    go_on(code, "two", "save.py", SAVE)
    code.window.until(lambda screen: "fimble: ready" in screen.status, "it being on there")
    code.type("jso")
    code.see("n.dump(data, f)")
    code.untitled("python", SAVE)
    code.window.until(lambda screen: "fimble: off" in screen.status, "it being off outside the folders")
    code.window.run(SET_IN_FOLDER, 1, "enabled", False)
    code.choose("Turn on for this workspace")
    code.window.until(lambda screen: "fimble: ready" in screen.status, "it being on")
    code.window.command("workbench.action.focusActiveEditorGroup")
    code.type("jso")
    code.see("n.dump(data, f)")


def test_a_document_without_a_name_gets_ghost_text_once_it_has_a_language(code: Editor) -> None:
    code.untitled("plaintext", SAVE)
    code.window.run("await vscode.languages.setTextDocumentLanguage(vscode.window.activeTextEditor.document, 'python')")
    code.type("jso")
    lines = code.see("n.dump(data, f)")
    assert code.accept().split("\n") == lines
    code.untitled("go", STACK_UNCLOSED)
    code.type("{\n")
    code.block()
    assert "\n}\n" in code.accept()
