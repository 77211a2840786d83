"""The programs that the editors' tests share. What is missing is installed; in CI what can't be had is a failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from editors import vscode_tools
from editors.code_server import CodeServer
from tests.conftest import FIMBLE
from tests.editors.vscode_editor import Editor


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
    folder = tmp_path_factory.mktemp("vscode")
    workspace = folder / "workspace"
    workspace.mkdir()
    settings = {"fimble.command": FIMBLE, "fimble.trace": True}
    with CodeServer(folder, state, *vscode_packages, settings=settings) as server, server.window(workspace) as window:
        editor = Editor(window)
        editor.warm_up()
        yield editor


@pytest.fixture
def code(vscode: Editor) -> Iterator[Editor]:
    """That window, the model loaded, with no file open."""
    vscode.ready()
    yield vscode
    vscode.reset()
