"""`fimble: Install the Server` in the real VS Code: real pip, a real environment, from a wheel and from a git URL.

The libraries, torch first, are those of these tests, which the Python on the PATH lends to the environments that it
makes; pip has to do with fimble alone, and finds nothing by name.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.editors.documents import SAVE
from tests.editors.vscode_editor import Editor, opened

ROOT = Path(__file__).parents[2]
INSTALL_S = 180
PYTHON = """#!/bin/sh
"{python}" "$@" || exit
if [ "$1 $2" = "-m venv" ]; then echo "{libraries}" > "$(echo "$3"/lib/python*/site-packages)/libraries.pth"; fi
"""


@attrs.frozen
class Bare:
    """A window of somebody who has installed the extension alone, and what they can install the server from."""

    code: Editor
    wheel: Path
    checkout: Path
    server: Path
    """The extension's own environment."""

    def install(self, source: str) -> None:
        """Runs the command, not waiting for its end."""
        self.code.window.command("notifications.clearAll")
        self.code.configure("installFrom", source)
        self.code.window.run("void vscode.commands.executeCommand('fimble.editor.install')")

    def refused(self, source: str, reason: str) -> None:
        """Waits until an installation from there has failed."""
        self.install(source)
        self.code.window.until(lambda screen: any(reason in told for told in screen.messages), reason, INSTALL_S)

    def installed(self) -> dict[str, Any]:
        """Where pip says that the installed fimble is from."""
        found = [*self.server.glob("lib/python*/site-packages/fimble-*.dist-info/direct_url.json")]
        return json.loads(found[0].read_text()) if found else {}


def run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)


def lending_python(folder: Path) -> Path:
    """A folder with a Python whose environments see the libraries of these tests, but not their fimble."""
    libraries = folder / "libraries"
    libraries.mkdir()
    for library in Path(sysconfig.get_path("purelib")).iterdir():
        if "fimble" not in library.name and library.suffix != ".pth":
            (libraries / library.name).symlink_to(library)
    python = folder / "bin" / "python3.13"  # the name that is tried first
    python.parent.mkdir()
    python.write_text(PYTHON.format(python=sys.executable, libraries=libraries))
    python.chmod(0o755)
    return python.parent


def checkout(folder: Path) -> Path:
    """A git repository with what is needed to build fimble."""
    for name in ("fimble.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__", "node_modules", "*.png", "*.gif")
    for name in ("evaluation", "inference", "lsp_server", "editors"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    run("git", "init", "-q", cwd=folder)
    run("git", "add", ".", cwd=folder)
    run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-q", "-m", "all", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def bare(
    vscode_packages: tuple[Path, Path], state: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bare]:
    folder = tmp_path_factory.mktemp("bare")
    house = folder / "house"
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(house))
    [wheel] = house.iterdir()
    run(sys.executable, "-m", "pip", "download", "-q", "--dest", str(house), "hatchling", "setuptools")
    path = f"{lending_python(folder)}{os.pathsep}{os.defpath}"
    env = {**state, "PATH": path, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(house)}
    source = folder / "checkout"
    source.mkdir()
    own = folder / "code-server/profile/User/globalStorage/fimble.fimble/server"
    with opened(vscode_packages, env, folder, {"fimble.trace": True}) as code:
        yield Bare(code, wheel, checkout(source), own)


def test_a_wheel_is_installed_when_the_user_says_so_and_completes_code(bare: Bare) -> None:
    code = bare.code
    code.window.until(lambda screen: "no server" in screen.status and screen.messages, "an offer")
    assert not bare.server.exists()
    bare.install("")
    code.window.until(lambda screen: any("first say from where" in told for told in screen.messages), "the question")
    code.window.command("notifications.clearAll")
    code.configure("installFrom", str(bare.wheel))
    code.choose("Install the server")
    code.window.until(lambda screen: "fimble: ready" in screen.status, "the server", INSTALL_S)
    assert bare.installed()["url"] == bare.wheel.as_uri()
    assert code.server(bare.server / "bin" / "fimble").is_running()
    code.warm_up()
    code.edit("save.py", SAVE)
    code.type("jso")
    code.see("n.dump(data, f)")


def test_a_git_url_takes_the_place_of_the_wheel(bare: Bare) -> None:
    bare.install(f"git+file://{bare.checkout}")
    bare.code.window.until(lambda _: "vcs_info" in bare.installed(), "the checkout's", INSTALL_S)
    bare.code.window.until(lambda screen: "starting" in screen.status, "the restart", INSTALL_S)
    bare.code.ready()
    assert bare.installed()["url"] == bare.checkout.as_uri()
    assert bare.code.server(bare.server / "bin" / "fimble").is_running()


def test_what_is_no_wheel_and_no_url_is_refused_and_what_was_installed_stays(bare: Bare, tmp_path: Path) -> None:
    before = bare.installed()
    bare.refused("fimble", "must be the full path of a wheel")
    bare.refused(str(tmp_path / "fimble.whl"), "which is no wheel and no folder")
    broken = tmp_path / "fimble-0.1.0-py3-none-any.whl"
    broken.write_text("no wheel")
    bare.refused(str(broken), "Installing fimble and its libraries")
    assert bare.installed() == before
    assert not bare.server.with_name("server.last").exists()
