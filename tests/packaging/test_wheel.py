"""The built wheel is complete: installed into an empty environment it completes code, with nothing else at hand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference import starter

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
TEXT = 'def load(path):\n    with open(path, encoding="utf-8") as file:\n        return fi\n'


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT))
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of commands of an environment that holds the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    scripts = folder / SCRIPTS
    pip = (str(scripts / "python"), "-m", "pip", "install", "--quiet", "--no-compile")  # most of it is never imported
    run(*pip, str(wheel), "-c", str(ROOT / "constraints.txt"))
    yield scripts
    shutil.rmtree(folder)  # with torch it is a gigabyte


@pytest.fixture
def stranger(installed: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment variables of somebody with an empty home, and the worker's end."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    kept = {name: os.environ[name] for name in ("SYSTEMROOT", "TEMP", "TMPDIR") if name in os.environ}
    env = {**kept, "PATH": os.defpath, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(runtime), "COLUMNS": "100"}
    yield env
    run(str(installed / "fimble"), "worker", "stop", env=env, cwd=tmp_path)


def run(*command: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_wheel_carries_the_model_the_editors_files_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        commands = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
        weights = archive.getinfo(f"inference/starter/{starter.WEIGHTS}").file_size
    assert {f"inference/starter/{name}" for name in [*starter.SHA256, "MODEL_CARD.md"]} <= names
    assert weights == (starter.FOLDER / starter.WEIGHTS).stat().st_size
    assert {"fimble.py", "lsp_server/server.py", "inference/worker.py"} <= names
    plugin = ROOT / "editors" / "neovim"
    parts = [path for part in ("doc", "lua", "plugin") for path in (plugin / part).rglob("*") if path.is_file()]
    assert {f"lsp_server/editor_files/neovim/{path.relative_to(plugin).as_posix()}" for path in parts} <= names
    lisp = [path.name for path in (ROOT / "editors" / "emacs").glob("*.el")]
    assert lisp
    assert {f"lsp_server/editor_files/emacs/{name}" for name in lisp} <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert re.search(r"^fimble\s*=\s*fimble:main$", commands, re.MULTILINE)


def test_the_wheel_carries_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        top = {name.split("/")[0] for name in archive.namelist()}
        compiled = [name for name in archive.namelist() if "__pycache__" in name]
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "fimble.py",
        "evaluation",
        "inference",
        "lsp_server",
    }
    assert compiled == []


def test_installed_into_an_empty_environment_it_completes_code(
    installed: Path, stranger: dict[str, str], tmp_path: Path
) -> None:
    fimble = str(installed / "fimble")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert re.fullmatch(r"fimble \d+\.\d+\.\d+\S*\n", run(fimble, "--version", env=stranger, cwd=empty))
    file = tmp_path / "load.py"
    file.write_text(TEXT)
    shown = run(fimble, "complete", f"{file}:3:{len('        return fi') + 1}", env=stranger, cwd=empty)
    assert re.search(r"return file\S", shown), shown
    assert "first token" in shown
    assert run(fimble, "worker", "stop", env=stranger, cwd=empty) == "stopped\n"
    assert list(empty.iterdir()) == []
