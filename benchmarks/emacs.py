"""From a keystroke to ghost text on the screen of a real Emacs (see `benchmarks.on_screen`).

    python -m benchmarks.emacs [--keystrokes N] [--pause MS] [--json OUT]

Emacs runs in tmux, which says when it has drawn what Emacs wrote and then what stands on its screen.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from benchmarks import on_screen
from benchmarks.on_screen import ROOT, Key, Place
from editors.emacs_screen import PATIENCE, Emacs, Screen, cells

EARLY = "(setq native-comp-deferred-compilation nil inhibit-startup-screen t)"
INIT = """
(setq make-backup-files nil auto-save-default nil create-lockfiles nil)
(electric-indent-mode -1) ; which would type too
(unless (fboundp 'lua-mode) (define-derived-mode lua-mode prog-mode "Lua"))
(add-to-list 'auto-mode-alist '("\\\\.lua\\\\'" . lua-mode))
(add-to-list 'load-path "{root}/editors/emacs")
(require 'fimble)
(setq fimble-command '("{fimble}") fimble-settings '(:trace t))
(defvar traces nil)
(add-hook 'fimble-trace-functions (lambda (trace) (push trace traces)))
(global-fimble-mode)
"""
DRAWN = 0.05
"""Seconds after an answer in which Emacs has drawn it."""
CLEAR = "(progn (setq traces nil) t)"
ANSWERED = """
(let* ((trace (seq-find (lambda (trace)
                          (and (eql (plist-get trace :version) fimble--version)
                               (not (equal (plist-get trace :outcome) "superseded"))))
                        traces)))
  (when (and trace (not fimble--asked)
             (equal "%s" (buffer-substring-no-properties (line-beginning-position) (point))))
    (list (plist-get trace :source) (plist-get trace :total_ms)
          (or (plist-get (plist-get (plist-get trace :end) :timing) :total) 0)
          (if (overlayp fimble--overlay) t :json-false))))
"""


@attrs.frozen
class Frame:
    """What tmux had drawn, and since when (`perf_counter`)."""

    at: float
    rows: list[str]

    def seen(self, row: int) -> tuple[str, str]:
        """The text in a row, and the ghost text on the screen."""
        screen = Screen([list(cells(line)) for line in self.rows], (row, 0))
        return screen.lines()[row], screen.ghost()


class Watch:
    """A control client of tmux: types, hears of each thing that Emacs writes, and asks for the screen after it."""

    def __init__(self, tmux: list[str]):
        self._client = subprocess.Popen(
            [*tmux, "-u", "-C", "attach", "-t", "emacs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._sent: deque[bool] = deque()
        """Of the commands without an answer: whether they ask for the screen."""
        self._lock = threading.Lock()
        self.frames: list[Frame] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, char: str) -> float:
        """Presses a key; when (`perf_counter`)."""
        began = time.perf_counter()
        self._send(f"send-keys -t emacs -H {ord(char):x}", asks=False)
        return began

    def close(self) -> None:
        """Detaches the client."""
        assert self._client.stdin
        self._client.stdin.close()
        self._client.wait(10)
        self._reader.join()

    def _send(self, command: str, *, asks: bool) -> None:
        assert self._client.stdin
        with self._lock:
            self._sent.append(asks)
            self._client.stdin.write(f"{command}\n".encode())
            self._client.stdin.flush()

    def _read(self) -> None:
        """Answers stand between `%begin` and `%end`, in the commands' order, behind what was written before them."""
        written, asked, rows = 0.0, False, None
        assert self._client.stdout
        for line in self._client.stdout:
            now, text = time.perf_counter(), line.decode("utf-8", "replace").rstrip("\n")
            if rows is None and text.startswith("%output"):
                written = now
                if not any(self._sent):
                    self._send("capture-pane -p -e -t emacs", asks=True)
            elif rows is None and text.startswith("%begin") and text.endswith(" 1"):
                rows, asked = [], self._sent.popleft()
            elif rows is not None and text.startswith("%end") and text.endswith(" 1"):
                if asked:
                    self.frames.append(Frame(written, rows))
                rows = None
            elif rows is not None:
                rows.append(text)


class Typist:
    """An Emacs, and what was on its screen when."""

    def __init__(self, emacs: Emacs, watch: Watch, folder: Path):
        self._emacs, self._watch, self._folder = emacs, watch, folder
        self._line, self._row = "", 0

    def open(self, place: Place) -> None:
        """Opens a new file, the cursor at the place."""
        file = self._folder / place.name
        file.write_text(place.before + place.after)
        self._line = place.before.rpartition("\n")[2]
        self._emacs.lisp(f'(progn (find-file "{file}") (goto-char {len(place.before) + 1}) (recenter) t)')
        self._row = self._emacs.until(
            lambda screen: self._line.rstrip() in screen.lines()[screen.cursor[0]], "line"
        ).cursor[0]

    def press(self, char: str) -> Key | None:
        """Types a character; how its ghost text came."""
        self._line += char
        self._emacs.lisp(CLEAR)
        self._watch.frames.clear()
        began = self._watch.type(char)
        source, total, worker, visible = self._answer(began)
        time.sleep(DRAWN)
        if not visible:
            return None
        seen = [(frame.at, frame.seen(self._row)) for frame in self._watch.frames]
        assert seen, f"nothing was drawn behind {self._line!r}"
        assert seen[-1][1][1], f"no ghost text on the screen behind {self._line!r}"
        shown = next(at for at, what in seen if what == seen[-1][1])
        return on_screen.key({"source": source, "total": total, "worker": worker}, (shown - began) * 1000)

    def leave(self) -> None:
        """Closes the file."""
        self._emacs.lisp("(progn (set-buffer-modified-p nil) (kill-buffer) t)")

    def _answer(self, began: float) -> tuple[str, float, float, bool]:
        while time.perf_counter() - began < PATIENCE:
            time.sleep(0.01)
            answer = self._emacs.lisp(ANSWERED % self._line.replace("\\", "\\\\").replace('"', '\\"'))
            if answer:
                return answer
        raise TimeoutError(f"no answer behind {self._line!r}")


@contextmanager
def start(folder: Path) -> Iterator[Typist]:
    """An Emacs with the package."""
    settings = folder / ".emacs.d"
    settings.mkdir()
    (settings / "early-init.el").write_text(EARLY)
    (settings / "init.el").write_text(
        INIT.format(root=ROOT.as_posix(), fimble=Path(sys.executable).with_name("fimble"))
    )
    with Emacs(home=folder, env=os.environ, size=(120, 40)) as emacs:
        emacs.lisp("t")
        watch = Watch(emacs.tmux)
        try:
            yield Typist(emacs, watch, folder)
        finally:
            watch.close()


if __name__ == "__main__":
    on_screen.run("benchmarks.emacs", start)
