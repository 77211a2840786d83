"""Editors without a client of ours, connected by the lines of docs/editors.md, in the real programs.

Kate alone can be had from package registries, with 85 MB of others: it is tested where it is installed. The document
says of each other one how it was tried.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from evaluation.lsp_client import LspClient
from tests.conftest import FIMBLE
from tests.editors.documents import DUMP, MARK, SAVE

DOCUMENT = (Path(__file__).parents[2] / "docs" / "editors.md").read_text("utf-8")
PROGRAMS = {"kate": "kate", "Xvfb": "xvfb", "xdotool": "xdotool", "dbus-run-session": "dbus-daemon"}
"""Programs, and Debian's packages that have them."""
PATIENCE = 90.0
"""Seconds until a wait is given up."""
KATERC = """[General]
Startup Session=new
[Kate Plugins]
lspclientplugin=true
[KTextEditor View]
Word Completion=false
Keyword Completion=false
"""
"""The plugin is ticked, as the document says; of the menu's entries only those of servers are left."""


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"no {what} after {PATIENCE:g} s"
        time.sleep(0.2)


class Kate:
    """Kate with one file on a screen of its own."""

    def __init__(self, display: str, env: dict[str, str], home: Path, file: Path):
        self._env = {name: value for name, value in env.items() if name not in ("XDG_CONFIG_HOME", "XDG_DATA_HOME")}
        self._env |= {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "DISPLAY": display, "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            ["dbus-run-session", "--", "kate", "-n", str(file)],
            env=self._env,
            cwd=home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def do(self, *arguments: str) -> list[str]:
        """Runs xdotool; the words that it prints."""
        done = subprocess.run(["xdotool", *arguments], env=self._env, capture_output=True, text=True, check=False)
        return done.stdout.split()

    def windows(self) -> list[str]:
        """Those that are seen, menus among them."""
        return self.do("search", "--onlyvisible", "--class", "kate")

    def serves(self) -> bool:
        """Whether it has started the language server."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return any(FIMBLE in child.cmdline() for child in children)

    def close(self) -> None:
        """Ends it and its servers."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def display() -> Iterator[str]:
    """A screen without a monitor."""
    read, write = os.pipe()
    screen = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1200x800x24", "-nolisten", "tcp"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with os.fdopen(read) as told:
            yield f":{told.readline().strip()}"
    finally:
        screen.terminate()
        screen.wait()


def lines(heading: str, language: str) -> str:
    """The block below a heading of the document, with the paths of this installation."""
    block = DOCUMENT.split(f"## {heading}\n")[1].split(f"```{language}\n")[1].split("```")[0]
    return block.replace("/path/to/fimble/.venv/bin/fimble", FIMBLE)


def menu(kate: Kate) -> bool:
    """Whether a menu has opened; if not, the last letter is typed again: Kate does not ask again by itself."""
    time.sleep(1)
    if len(kate.windows()) > 1:
        return True
    kate.do("key", "BackSpace")
    kate.do("type", "o")
    return False


async def load(state: dict[str, str]) -> None:
    """Has the worker load the model."""
    client = await LspClient.start(env=state)
    await client.initialize()
    await client.ready()
    await client.close()


def test_kate_has_the_completion_in_its_menu(state: dict[str, str], tmp_path: Path) -> None:
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if missing:
        pytest.skip(f"needs Kate and a screen for it: apt-get install {' '.join(missing)}")
    asyncio.run(load(state))
    settings = tmp_path / ".config" / "kate" / "lspclient" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(lines("Kate", "json"))
    (tmp_path / ".config" / "katerc").write_text(KATERC)
    file = tmp_path / "save.py"
    before, after = SAVE.split(MARK)
    file.write_text(before + after)
    with display() as screen:
        kate = Kate(screen, state, tmp_path, file)
        try:
            until(lambda: len(kate.windows()) > 0, "window")
            until(lambda: bool(kate.do("key", "alt+y")) or kate.serves(), "language server")  # asked: Yes
            [window, *_] = kate.windows()
            kate.do("windowfocus", "--sync", window)
            kate.do("key", "ctrl+Home", *["Down"] * before.count("\n"), "End")
            kate.do("type", "--delay", "200", "jso")
            until(lambda: menu(kate), "menu")
            kate.do("key", "Return", "ctrl+s")
            until(lambda: file.read_text() != before + after, "saved file")
        finally:
            kate.close()
    assert f"{DUMP}\n" in file.read_text()
