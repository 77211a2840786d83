"""A real VS Code workbench whose screen can be read: code-server in a headless Chromium.

For tests, benchmarks and pictures. Keys go through the browser and what counts is what it draws; a second extension
(`code_server_driver`) opens files and reads what the screen does not show, such as line breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from playwright.async_api import Page, async_playwright

from editors import vscode_tools

PATIENCE = 60.0
"""Seconds until a wait is given up; a busy machine may take its time."""
LOOK_S = 0.03
"""Seconds between looks at the screen."""
SETTINGS = {
    "telemetry.telemetryLevel": "off",
    "chat.disableAIFeatures": True,  # of the workbench's own, which would need an account
    "workbench.startupEditor": "none",
    "workbench.enableExperiments": False,
    "workbench.tips.enabled": False,
    "extensions.autoCheckUpdates": False,
    "extensions.ignoreRecommendations": True,
    "editor.minimap.enabled": False,
    "editor.quickSuggestions": {"other": False, "comments": False, "strings": False},
    "editor.cursorBlinking": "solid",
    "files.autoSave": "off",
    "files.hotExit": "off",
    "security.workspace.trust.enabled": False,
    "git.enabled": False,
}
BROWSER = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREEN = (Path(__file__).parent / "code_server_driver" / "screen.js").read_text("utf-8")


class Screen(NamedTuple):
    """What the browser shows."""

    lines: list[str]
    """Of the editor, from its first visible line, ghost text included."""
    ghost: str
    """The ghost text, one line for each line that has some."""
    status: str
    """The extension's item in the status bar."""
    messages: list[str]
    """Notifications."""
    menu: list[str]
    """The entries of an open quick pick."""


class DriverError(Exception):
    """Code failed in the extension host."""


class CodeServer:
    """The server side of the workbench with a profile of its own. The browser comes with `window`."""

    def __init__(self, folder: Path, env: Mapping[str, str], *packages: Path, settings: Mapping[str, Any]) -> None:
        """`packages`: the VSIX files to install into an empty profile."""
        program, self.browser = vscode_tools.tools()
        self.profile = folder / "profile"
        self.extensions = folder / "extensions"
        self.set(settings)
        # A path in the test's own folder may be too long for a socket.
        self._sockets = tempfile.TemporaryDirectory(prefix="vscode-")
        self.driver = Path(self._sockets.name) / "driver"
        kept = {name: value for name, value in env.items() if not name.startswith("VSCODE_")}
        path = vscode_tools.with_node(env.get("PATH", os.defpath))
        # Started from a command line: else it would take a login shell's environment instead of this one.
        kept["VSCODE_CLI"] = "1"
        self.env = {**kept, "PATH": path, "FIMBLE_DRIVER": str(self.driver), "XDG_CONFIG_HOME": str(folder)}
        self.program = [str(program), "--user-data-dir", str(self.profile), "--extensions-dir", str(self.extensions)]
        self.log = folder / "code-server.log"
        if packages:
            self.install(*packages)
        self.port = _free_port()
        flags = "--auth none --disable-telemetry --disable-update-check"
        command = [*self.program, "--bind-addr", f"127.0.0.1:{self.port}", *flags.split()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, start_new_session=True)

    def install(self, *packages: Path) -> None:
        """Installs VSIX files, as a user does on the command line."""
        choice = [word for package in packages for word in ("--install-extension", str(package))]
        done = subprocess.run(
            [*self.program, *choice], env=self.env, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode != 0 or done.stdout.count("was successfully installed") != len(packages):
            raise AssertionError(f"{packages} were not installed:\n{done.stdout}{done.stderr}")

    def set(self, settings: Mapping[str, Any]) -> None:
        """The user's settings, beside those that keep the workbench quiet."""
        # All windows of code-server are remote ones, which read settings of the scope "machine" from the second place.
        for place, values in (("User", {**SETTINGS, **settings}), ("Machine", settings)):
            file = self.profile / place / "settings.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values, indent=2))

    def window(self, folder: Path, *, driven: bool = True, **options: Any) -> Window:
        """Opens a browser window on a folder, or on a file that describes a workspace of several; see `Window`."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return Window(self, folder, driven=driven, **options)
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"code-server does not listen:\n{self.log.read_text()}")
            time.sleep(LOOK_S)

    def close(self) -> None:
        """Ends code-server and everything it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._sockets.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Window:
    """A browser window. Waiting is for a condition on the screen, never for a time."""

    def __init__(
        self,
        server: CodeServer,
        folder: Path,
        *,
        driven: bool = True,
        size: tuple[int, int] = (1100, 700),
        scale: float = 1,
        file: Path | None = None,
    ) -> None:
        self.folder = folder
        self._server = server
        self._loop = asyncio.new_event_loop()
        # A loop in a thread of its own: playwright's synchronous interface would occupy this one's.
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
        self._connected = asyncio.Event()
        query = f"{'workspace' if folder.is_file() else 'folder'}={quote(str(folder))}"
        self._do(self._open(query, driven, size, scale, file))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the browser; the extension host ends when code-server does."""
        if self._thread.is_alive():
            self._do(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def press(self, *keys: str) -> None:
        """Presses keys, in playwright's notation (`Tab`, `Control+ArrowRight`)."""
        for key in keys:
            self._do(self.page.keyboard.press(key))

    def type(self, text: str) -> None:
        """Types characters one by one, each once the last has been taken."""
        for character in text:
            self.press("Enter" if character == "\n" else character)

    def screen(self) -> Screen:
        """What is shown now."""
        return Screen(**self._do(self.page.evaluate("screen()")))

    def evaluate(self, code: str, argument: Any = None) -> Any:
        """Runs JavaScript in the page."""
        return self._do(self.page.evaluate(code, argument))

    def until(self, condition: Callable[[Screen], Any], what: str, seconds: float = PATIENCE) -> Screen:
        """Waits until the screen fits."""
        deadline = time.monotonic() + seconds
        while True:
            screen = self.screen()
            if condition(screen):
                return screen
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {what} on the screen after {seconds:g} s: {screen}")
            time.sleep(LOOK_S)

    def run(self, code: str, *args: Any) -> Any:
        """Runs the body of an async function of `vscode` and `args` in the extension host; what it returns."""
        return self._do(self._run(code, args))

    def command(self, name: str, *args: Any) -> Any:
        """Runs a command of VS Code's."""
        return self.run("await vscode.commands.executeCommand(...args)", name, *args)

    def screenshot(self, **options: Any) -> bytes:
        """The window as PNG."""
        return self._do(self.page.screenshot(**options))

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * PATIENCE)

    async def _open(self, query: str, driven: bool, size: tuple[int, int], scale: float, file: Path | None) -> None:
        if driven:
            self._server.driver.unlink(missing_ok=True)
            self._listener = await asyncio.start_unix_server(self._serve, str(self._server.driver), limit=2**24)
        self._playwright = await async_playwright().start()
        self._browser = await self._playwright.chromium.launch(executable_path=self._server.browser, args=BROWSER)
        viewport: Any = {"width": size[0], "height": size[1]}
        context = await self._browser.new_context(viewport=viewport, device_scale_factor=scale)
        self.page: Page = await context.new_page()
        await self.page.add_init_script(SCREEN)
        address = f"127.0.0.1:{self._server.port}"
        url = f"http://{address}/?{query}"
        if file:
            url += "&payload=" + quote(json.dumps([["openFile", f"vscode-remote://{address}{file}"]]))
        await self.page.goto(url, timeout=1000 * PATIENCE)
        await self.page.wait_for_selector(".monaco-workbench .statusbar-item", timeout=1000 * PATIENCE)
        if driven:
            await asyncio.wait_for(self._connected.wait(), PATIENCE)

    async def _close(self) -> None:
        await self._browser.close()
        await self._playwright.stop()
        if self._writer:
            self._writer.close()
            self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._connected.set()
        while line := await reader.readline():
            answer = json.loads(line)
            waiting = self._answers.pop(answer["id"])
            if not waiting.done():
                waiting.set_result(answer)

    async def _run(self, code: str, args: tuple[Any, ...]) -> Any:
        assert self._writer, "this window has no driver"
        self._next += 1
        waiting = self._answers[self._next] = self._loop.create_future()
        self._writer.write(json.dumps({"id": self._next, "code": code, "args": args}).encode() + b"\n")
        answer = await asyncio.wait_for(waiting, PATIENCE)
        if "error" in answer:
            raise DriverError(answer["error"])
        return answer["result"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
