"""VS Code as its tests use it: a window with files of their own, and what they wait for."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from editors.code_server import PATIENCE, CodeServer, Screen, Window
from tests.conftest import FIMBLE
from tests.editors.documents import MARK

LATENT_MS = 1500
"""How long nothing may appear where nothing should: many times what an answer takes."""
SHOW = """
const place = new vscode.Position(...args.slice(-2));
await vscode.window.showTextDocument(document, { selection: new vscode.Range(place, place) });
"""
OPEN = "const document = await vscode.workspace.openTextDocument(args[0]);" + SHOW
UNTITLED = "const document = await vscode.workspace.openTextDocument({ language: args[0], content: args[1] });" + SHOW
CLOSE = """
await vscode.commands.executeCommand("workbench.action.closePanel");
while (vscode.window.activeTextEditor) {
  await vscode.commands.executeCommand("workbench.action.revertAndCloseActiveEditor");
}
await vscode.commands.executeCommand("workbench.action.closeAllEditors");
await vscode.commands.executeCommand("notifications.clearAll");
"""
# What the window has sent before its answer to this has arrived with it.
IN_STEP = "await vscode.commands.executeCommand('setContext', 'fimble.tests', true);"
FOLLOW = """
globalThis.costs = [];
const { exports } = vscode.extensions.getExtension("fimble.fimble");
globalThis.following ??= exports.onTrace((cost) => globalThis.costs.push(cost));
"""


class Frame(NamedTuple):
    """What was painted at one time."""

    lines: list[str]
    ghost: str


class Editor:
    """A window, and the files that a test opens in it."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self._numbers = count()
        self.folder = window.folder
        """Where new files are put."""
        self.file = Path()

    def edit(self, name: str, text: str, line_break: str = "\n") -> None:
        """Opens a new file with that text, the cursor at the mark."""
        before, after = text.split(MARK)
        folder = self.folder / f"{next(self._numbers)}"
        folder.mkdir()
        self.file = folder / name
        self.file.write_bytes((before + after).replace("\n", line_break).encode())
        last = before.rpartition("\n")[2]
        column = len(last.encode("utf-16-le")) // 2
        self.window.run(OPEN, str(self.file), before.count("\n"), column)
        first = (before + after).split("\n")[0]
        self.window.until(lambda screen: screen.lines[:1] == [first] and not screen.ghost, "the file")

    def type(self, text: str) -> None:
        """Types characters."""
        self.window.type(text)

    def press(self, *keys: str) -> None:
        """Presses keys, in playwright's notation."""
        self.window.press(*keys)

    def until(self, condition: Callable[[Screen], Any], what: str) -> Screen:
        """Waits until the screen fits; what the last requests came to is part of the failure."""
        try:
            return self.window.until(condition, what)
        except TimeoutError as error:
            costs = self.window.run("return globalThis.costs?.slice(-6)")
            raise TimeoutError(f"{error}\nlast requests: {costs}") from error

    def see(self, ghost: str) -> list[str]:
        """Waits for that ghost text; the editor's lines."""
        return self.until(lambda screen: screen.ghost == ghost, f"ghost text {ghost!r}").lines

    def ghost(self) -> str:
        """Waits for some ghost text."""
        return self.until(lambda screen: screen.ghost, "ghost text").ghost

    def block(self) -> str:
        """Waits for ghost text of several lines. VS Code paints the first of them a frame after the others."""

        def whole(screen: Screen) -> bool:
            if "\n" not in screen.ghost:
                return False
            self.painted()
            return self.window.screen() == screen

        return self.until(whole, "a block of ghost text").ghost

    def text(self) -> str:
        """The document's text, with its line breaks."""
        return self.window.run(IN_STEP + "return vscode.window.activeTextEditor.document.getText()")

    def cursor(self) -> tuple[int, int]:
        """Line and UTF-16 column."""
        place = self.window.run(IN_STEP + "return vscode.window.activeTextEditor.selection.active")
        return place["line"], place["character"]

    def changes(self, *keys: str) -> str:
        """Presses keys and waits until the text is another; that text."""
        before = self.text()
        self.press(*keys)
        self.window.until(lambda _: self.text() != before, f"effect of {keys}")
        return self.text()

    def accept(self) -> str:
        """Accepts the ghost text; the document's text."""
        return self.changes("Tab")

    def save(self) -> bytes:
        """Saves the file; what is on disk then."""
        self.window.command("workbench.action.files.save")
        return self.file.read_bytes()

    def record(self) -> None:
        """Keeps each painted frame from here on."""
        self.window.evaluate("record()")

    def frames(self) -> list[Frame]:
        """The frames since `record`, up to one that is painted after this call."""
        self.painted()
        return [Frame(frame["lines"], frame["ghost"]) for frame in self.window.evaluate("recorded")]

    def painted(self) -> None:
        """Waits until what the window knows now has been painted."""
        self.window.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def nothing_appears(self) -> None:
        """Watches the frames for a while."""
        self.record()
        self.window.evaluate(f"new Promise((done) => setTimeout(done, {LATENT_MS}))")
        assert not [frame for frame in self.frames() if frame.ghost]

    def answered(self) -> None:
        """Waits until the server has answered a request for the text as it is now, and what it said is painted."""
        version = self.window.run(IN_STEP + "return vscode.window.activeTextEditor.document.version")
        told = "return globalThis.costs.filter((c) => c.version === args[0] && c.uri.endsWith(args[1])).length"
        where = str(self.file.relative_to(self.folder))
        self.window.until(lambda _: self.window.run(told, version, where), "answer of the server")
        self.painted()

    def choose(self, entry: str) -> None:
        """Picks an entry of the status-bar item's menu."""
        self.window.evaluate("document.getElementById('fimble.fimble.status').querySelector('a').click()")
        self.window.until(lambda screen: any(entry in found for found in screen.menu), f"{entry!r} in the menu")
        self.type(entry)
        self.window.until(lambda screen: len(screen.menu) == 1 and entry in screen.menu[0], "that entry alone")
        self.press("Enter")
        self.window.until(lambda screen: not screen.menu, "the end of the menu")

    def untitled(self, language: str, text: str) -> None:
        """Opens a document that has no name yet, the cursor at the mark."""
        before, after = text.split(MARK)
        place = before.count("\n"), len(before.rpartition("\n")[2])
        self.window.run(UNTITLED, language, before + after, *place)
        first = (before + after).split("\n")[0]
        self.window.until(lambda screen: screen.lines[:1] == [first], "the document")

    def server(self, command: str | Path = FIMBLE) -> psutil.Process:
        """The language server of this window, which runs that command."""
        host = psutil.Process(self.window.run("return process.pid"))
        [server] = [child for child in host.children() if str(command) in child.cmdline()]
        return server

    def restart_server(self) -> None:
        """Runs that command and waits for the new server."""
        self.window.command("fimble.editor.restart")
        self.ready()

    def ready(self) -> None:
        """Waits until the server has a model."""
        self.window.until(lambda screen: "fimble: ready" in screen.status, "server with a model", 2 * PATIENCE)

    def warm_up(self) -> None:
        """Types until VS Code asks: in a window's first seconds it does not, whoever provides completions."""
        self.ready()
        self.window.run(FOLLOW)
        self.edit("warm_up.py", "import json\n" + MARK)

        def asked(_: Screen) -> bool:
            self.type("x")
            return self.window.run("return globalThis.costs.length")

        self.window.until(asked, "request")
        self.reset()

    def configure(self, name: str, value: Any, *, workspace: bool = False) -> None:
        """Sets a setting of the user's or the workspace's; None takes it away."""
        self.window.run(
            "await vscode.workspace.getConfiguration('fimble').update(args[0], args[1] ?? undefined, !args[2])",
            name,
            value,
            workspace,
        )

    def reset(self) -> None:
        """No open file, no panel and no notification."""
        self.press("Escape")
        self.window.run(CLOSE)
        self.window.until(lambda screen: not screen.lines and not screen.messages, "an empty window")


@contextmanager
def opened(
    packages: tuple[Path, ...], env: dict[str, str], folder: Path, settings: dict[str, Any], on: Path | None = None
) -> Generator[Editor]:
    """A window with a profile of its own, on `folder/workspace` unless another folder or workspace is named."""
    workspace = on or folder / "workspace"
    if not on:
        workspace.mkdir(exist_ok=True)
    with (
        CodeServer(folder / "code-server", env, *packages, settings=settings) as server,
        server.window(workspace) as window,
    ):
        yield Editor(window)
