"""A real Emacs in a terminal whose screen can be read: for the tests, and for the picture in the README."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

PATIENCE = 60.0
"""Seconds until a wait is given up; a busy machine may take its time."""
PAUSE = 0.02
"""Seconds between two looks at the screen."""
GHOST = "colour249"
"""The colour of ghost text: what the face `shadow` has on a dark terminal of 256 colours (grey70)."""
QUOTED = {"_": " ", "n": "\n"}
"""In what Emacs' server says: behind an ampersand."""
HARNESS = """
(progn
  (setq native-comp-deferred-compilation nil) ; warns about other packages, and takes the processor
  (require 'server)
  (require 'json)
  (setq server-socket-dir {folder} server-name "tests" server-client-instructions nil)
  (server-start)
  (run-with-timer 5 5 (lambda () (unless (file-exists-p "/proc/{owner}") (kill-emacs))))
  (defun tests-run (file)
    (with-current-buffer (window-buffer)
      (json-encode
       (condition-case failure
           (list :value (eval (with-temp-buffer (insert-file-contents file) (read (buffer-string))) t))
         (error (list :error (error-message-string failure))))))))
"""


class Cell(NamedTuple):
    """One character and how it looks: SGR colours as tmux writes them, or None."""

    text: str
    foreground: str | None = None
    background: str | None = None
    bold: bool = False
    italic: bool = False
    reverse: bool = False


class EmacsError(Exception):
    """An expression failed in Emacs, or Emacs has ended."""


class Screen(NamedTuple):
    """What tmux has on its screen."""

    rows: list[list[Cell]]
    cursor: tuple[int, int]
    """Row and column, in cells of the terminal."""

    def lines(self) -> list[str]:
        """The text on the screen, without the blanks at the ends."""
        return ["".join(cell.text for cell in row).rstrip() for row in self.rows]

    def text(self) -> str:
        """The whole screen as one text."""
        return "\n".join(self.lines())

    def ghost(self) -> str:
        """The ghost text on the screen, one line for each row that has some."""
        runs = ["".join(c.text for c in row if c.foreground == GHOST) for row in self.rows]
        return "\n".join(run.rstrip() for run in runs if run)


def cells(line: str) -> Iterator[Cell]:
    """The characters of a line with SGR sequences (`tmux capture-pane -e`)."""
    look: dict[str, Any] = {}
    for sequence, character in re.findall("\x1b\\[([0-9;]*)m|([^\x1b\x0e\x0f])", line):
        if character:
            yield Cell(character, **look)
        else:
            _apply(look, [int(number or 0) for number in sequence.split(";")])


def _apply(look: dict[str, Any], numbers: list[int]) -> None:
    """Follows one SGR sequence."""
    while numbers:
        first, *numbers = numbers
        ground = "foreground" if first < 40 or 90 <= first < 100 else "background"
        if first == 0:
            look.clear()
        elif first in (1, 3, 7):
            look[{1: "bold", 3: "italic", 7: "reverse"}[first]] = True
        elif first in (38, 48) and numbers[0] == 5:
            look[ground], numbers = f"colour{numbers[1]}", numbers[2:]
        elif first in (38, 48):
            look[ground], numbers = "#{:02x}{:02x}{:02x}".format(*numbers[1:4]), numbers[4:]
        elif first in (39, 49):
            look[ground] = None
        elif 30 <= first < 48:
            look[ground] = f"colour{first % 10}"
        elif 90 <= first < 108:
            look[ground] = f"colour{first % 10 + 8}"


class Emacs:
    """An Emacs in tmux, with a server for questions. Waiting is for a condition on the screen, never for a time."""

    def __init__(
        self,
        *arguments: str,
        home: Path,
        env: Mapping[str, str] = os.environ,
        size: tuple[int, int] = (80, 24),
        harness: bool = True,
    ) -> None:
        """`home`: its folder of start-up files. `harness` false: nothing is added to what the user has set up."""
        self._folder = Path(tempfile.mkdtemp(prefix="emacs-"))  # sockets need a short path
        self._counter = 0
        tmux = shutil.which("tmux")
        assert tmux, "needs tmux"
        self.tmux = [tmux, "-S", str(self._folder / "tmux"), "-f", os.devnull]
        """The command that talks with its terminal."""
        load = []
        self._asks = harness
        if harness:
            (self._folder / "harness.el").write_text(
                HARNESS.format(folder=json.dumps(str(self._folder)), owner=os.getpid())
            )
            load = ["--load", str(self._folder / "harness.el")]
        inside = {"HOME": str(home), "TERM": "screen-256color", "LC_ALL": "C.UTF-8", "ALTERNATE_EDITOR": ""}
        kept = {name: value for name, value in env.items() if name not in ("TMUX", "EMACSLOADPATH", "COLORTERM")}
        size_of = ("-x", str(size[0]), "-y", str(size[1] + 1))
        command = ("emacs", "-nw", *load, *arguments)
        subprocess.run(
            [*self.tmux, "-u", "new-session", "-d", *size_of, "-s", "emacs", *command],
            env={**kept, **inside},
            cwd=home,
            check=True,
        )
        self._command("set-option", "-g", "escape-time", "0")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves Emacs without saving, which ends its language servers."""
        pid = self.pid()
        if pid and self._asks:
            with suppress(EmacsError, subprocess.TimeoutExpired):
                self.lisp("(progn (run-with-timer 0 nil #'kill-emacs) t)", seconds=10)
            until = time.monotonic() + 10
            while self.pid() and time.monotonic() < until:
                time.sleep(PAUSE)
        if pid and self.pid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        subprocess.run([*self.tmux, "kill-server"], capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def pid(self) -> int:
        """Emacs' process; 0 once it has ended."""
        said = self._command("list-panes", "-t", "emacs", "-F", "#{pane_pid}", check=False).strip()
        return int(said or 0)

    def screen(self) -> Screen:
        """The screen as it is now."""
        said = self._command(
            *("display-message", "-p", "-t", "emacs", "#{cursor_y} #{cursor_x}"),
            *(";", "capture-pane", "-p", "-e", "-t", "emacs"),
            check=False,
        )
        place, _, picture = said.partition("\n")
        if not place.strip():
            raise EmacsError("Emacs has ended")
        row, column = place.split()
        return Screen([list(cells(line)) for line in picture.split("\n")], (int(row), int(column)))

    def keys(self, *keys: str) -> None:
        """Presses keys, in tmux's notation (`M-f`, `Enter`, `BSpace`)."""
        self._command("send-keys", "-t", "emacs", *keys)

    def type(self, text: str) -> None:
        """Types a text, key by key."""
        self._command("send-keys", "-t", "emacs", "-l", "--", text)

    def lisp(self, expression: str, seconds: float = PATIENCE) -> Any:
        """Evaluates an expression in the selected window's buffer; its value, by way of JSON. Raises EmacsError."""
        self._counter += 1
        file = self._folder / f"{self._counter}.el"
        file.write_text(expression)
        until = time.monotonic() + seconds
        while True:
            said = self._ask(f'(tests-run "{file}")', seconds)
            if said:
                break
            if time.monotonic() > until or not self.pid():
                raise EmacsError(f"no answer to {expression}")
            time.sleep(PAUSE)
        answer = json.loads(_unquoted(said))
        if "error" in answer:
            raise EmacsError(f"{expression}: {answer['error']}")
        return answer["value"]

    def _ask(self, expression: str, seconds: float) -> str:
        """Asks Emacs' server as `emacsclient --eval` does, whose start would take longer; "" if it does not answer."""
        with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
            connection.settimeout(seconds)
            connection.connect(str(self._folder / "tests"))
            quoted = expression.replace("&", "&&").replace("-", "&-").replace(" ", "&_")
            connection.sendall(f"-current-frame -eval {quoted} \n".encode())
            said = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
            printed = re.findall(r"^-print(?:-nonl)? (.*)$", said, re.MULTILINE)
            return "".join(re.sub("&(.)", lambda match: QUOTED.get(match[1], match[1]), part) for part in printed)
        return ""

    def text(self) -> str:
        """The selected window's buffer."""
        return self.lisp("(save-restriction (widen) (buffer-substring-no-properties (point-min) (point-max)))")

    def until(self, condition: Callable[[Screen], bool], what: str, seconds: float = PATIENCE) -> Screen:
        """Waits until the screen fits; the screen."""
        end = time.monotonic() + seconds
        while True:
            screen = self.screen()
            if condition(screen):
                time.sleep(PAUSE)
                if screen == self.screen():  # else it was seen while it was drawn, with the cursor elsewhere
                    return screen
            if time.monotonic() > end:
                raise TimeoutError(f"no {what} on the screen after {seconds:g} s:\n{screen.text()}")
            time.sleep(PAUSE)

    def ghost(self, condition: Callable[[str], bool] = bool, seconds: float = PATIENCE) -> Screen:
        """Waits for ghost text that fits; the screen."""
        return self.until(lambda screen: condition(screen.ghost()), "such ghost text", seconds)

    def _command(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run([*self.tmux, *arguments], capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise EmacsError(f"tmux {' '.join(arguments)}: {done.stderr}")
        return done.stdout


def _unquoted(printed: str) -> str:
    """A string as Emacs prints it: a Lisp string."""
    inner = printed.strip()[1:-1]
    return re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), inner, flags=re.DOTALL)
