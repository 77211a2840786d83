"""A workspace runs none of its own code by being opened, whatever its modules are called.

With PYTHONPATH two kinds of modules are beyond our reach, because Python imports them before the first line of ours:
`sitecustomize` and `usercustomize`, and what the script `fimble` itself imports (`re` and `fimble`).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil
import pytest

from evaluation.lsp_client import LspClient

FIMBLE = str(Path(sys.executable).with_name("fimble"))
SHADOWS = (
    *("inference/__init__", "lsp_server/__init__", "pygls/__init__", "tree_sitter/__init__", "aiohttp/__init__"),
    *("torch", "transformers", "tokenizers", "safetensors", "numpy", "attr", "attrs", "cattrs", "lsprotocol"),
    *("asyncio", "dataclasses", "json", "logging", "pathlib", "platformdirs", "psutil", "rich", "socket", "typer"),
    *("subprocess", "tree_sitter_python", "typing_extensions"),
)
BEFORE_US = ("fimble", "re", "sitecustomize", "usercustomize")
TEXT = "def area(width, height):\n    return wid\n"


class Workspace:
    """A folder of modules that would each leave a line in a file when imported."""

    def __init__(self, base: Path):
        self.folder, self._canary = base / "workspace", base / "canary"
        self.folder.mkdir()
        for name in SHADOWS:
            self.add(name)

    def add(self, name: str) -> None:
        file = (self.folder / name).with_suffix(".py")
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"with open({str(self._canary)!r}, 'a') as canary:\n    canary.write({name!r} + '\\n')\n")

    @property
    def imported(self) -> list[str]:
        return self._canary.read_text().split() if self._canary.exists() else []


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def python_path(form: str, workspace: Workspace) -> dict[str, str]:
    """The environment variable in one of the forms that put the workspace on the module path; none for ""."""
    return {"PYTHONPATH": form.format(workspace.folder)} if form else {}


def test_an_imported_module_of_the_workspace_would_be_seen(workspace: Workspace, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(workspace.folder)}
    subprocess.run([sys.executable, "-c", "import torch, inference"], env=env, cwd=tmp_path, check=True)
    assert workspace.imported == ["torch", "inference/__init__"]


@pytest.mark.parametrize("form", ["", "{0}", ".", os.pathsep, f"{{0}}{os.pathsep}."])
def test_a_command_started_in_the_workspace_imports_nothing_of_it(
    form: str, workspace: Workspace, fresh_state: dict[str, str]
) -> None:
    if not form:
        for name in BEFORE_US:
            workspace.add(name)
    env = {**fresh_state, **python_path(form, workspace)}
    subprocess.run([FIMBLE, "worker", "status"], env=env, cwd=workspace.folder, check=False, capture_output=True)
    done = subprocess.run([FIMBLE, "--version"], env=env, cwd=workspace.folder, check=True, capture_output=True)
    assert done.stdout.startswith(b"fimble ")
    assert workspace.imported == []


@pytest.mark.parametrize("place", ["stdlib", "purelib"])
def test_a_command_starts_in_python_s_own_folders_too(place: str, fresh_state: dict[str, str]) -> None:
    folder = sysconfig.get_path(place)
    for form in ("", "."):
        env = {**fresh_state, "PYTHONPATH": form}
        done = subprocess.run([FIMBLE, "--version"], env=env, cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout[:7]) == (0, "fimble "), done.stderr


@pytest.mark.parametrize("form", ["", f".{os.pathsep}{{0}}"])
def test_opening_the_workspace_runs_none_of_it_in_server_or_worker(
    form: str, workspace: Workspace, fresh_state: dict[str, str]
) -> None:
    if not form:
        for name in BEFORE_US:
            workspace.add(name)
    env = {**fresh_state, **python_path(form, workspace)}
    asyncio.run(_open_and_complete(workspace, env))
    assert workspace.imported == []


async def _open_and_complete(workspace: Workspace, env: dict[str, str]) -> None:
    file = workspace.folder / "area.py"
    file.write_text(TEXT)
    root = workspace.folder.as_uri()
    client = await LspClient.start(env=env, cwd=workspace.folder)
    await client.initialize(rootUri=root, workspaceFolders=[{"uri": root, "name": "workspace"}])
    client.open(file.as_uri(), "python", TEXT)
    await client.ready()
    item = await client.inline(file.as_uri(), 1, len("    return wid"))
    assert item, "no completion: nothing was proved"
    server = psutil.Process(client.process.pid)
    workers = [child for child in server.children(recursive=True) if "inference.worker" in child.cmdline()]
    assert len(workers) == 1
    for process in (server, workers[0]):
        assert Path(process.cwd()).name == "fimble", "a process stands in the workspace, not in the state folder"
    assert "-P" in workers[0].cmdline()
    assert "PYTHONPATH" not in workers[0].environ()
    assert await client.close() == 0
