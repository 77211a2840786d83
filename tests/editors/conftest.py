"""The programs that the editors' tests share. What is missing is installed; in CI what can't be had is a failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from editors import vscode_tools
from tests.conftest import FIMBLE
from tests.editors import emacs_editor
from tests.editors.vscode_editor import Editor, opened


@pytest.fixture(scope="session")
def vscode_packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The extension as it is published, and the one through which tests look into VS Code."""
    folder = tmp_path_factory.mktemp("packages")
    try:
        vscode_tools.tools()
        return vscode_tools.build_extension(folder), vscode_tools.build_driver(folder)
    except vscode_tools.Missing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def vscode(
    vscode_packages: tuple[Path, Path], state: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Editor]:
    """One window for all tests that leave it whole."""
    settings = {"fimble.command": FIMBLE, "fimble.trace": True}
    with opened(vscode_packages, state, tmp_path_factory.mktemp("vscode"), settings) as editor:
        editor.warm_up()
        yield editor


@pytest.fixture
def code(vscode: Editor) -> Iterator[Editor]:
    """That window, the model loaded, with no file open."""
    vscode.ready()
    yield vscode
    vscode.reset()


@pytest.fixture(scope="module")
def emacs(state: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[emacs_editor.Editor]:
    """One Emacs for all tests of a file that leave it whole."""
    emacs_editor.need_emacs()
    with emacs_editor.Editor(tmp_path_factory.mktemp("emacs"), state) as editor:
        yield editor
