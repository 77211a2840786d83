"""What the tests of Emacs share: the programs, installed if need be, and an Emacs with fimble and files to edit."""

from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

from editors.emacs_screen import Emacs, Screen
from tests.editors import debian
from tests.editors.documents import MARK

ROOT = Path(__file__).parents[2]
FIMBLE = Path(sys.executable).with_name("fimble")
PACKAGES = ["emacs-nox", "elpa-eglot", "elpa-company", "elpa-package-lint", "tmux"]
EARLY = """
(setq native-comp-deferred-compilation nil inhibit-startup-screen t)
"""
INIT = """
(add-to-list 'load-path "{root}/editors/emacs")
(require 'fimble)
(setq fimble-command '("{command}"))
(global-fimble-mode)
"""
HELP = r"""
(setq make-backup-files nil auto-save-default nil create-lockfiles nil)
(dolist (language '((go-mode . "\\.go\\'") (rust-mode . "\\.rust\\'") (typescript-mode . "\\.typescript\\'")
                    (js-mode . "\\.javascript\\'") (python-mode . "\\.python\\'")))
  (unless (fboundp (car language)) ; Emacs 28 has no modes for these
    (eval `(define-derived-mode ,(car language) prog-mode "Test" (setq indent-tabs-mode t))))
  (add-to-list 'auto-mode-alist (cons (cdr language) (car language))))
(defvar tests-frames nil)
(defun tests-frame (_)
  (with-current-buffer (window-buffer)
    (push (vector (buffer-substring-no-properties (line-beginning-position) (point))
                  (if fimble--overlay
                      (substring-no-properties (or (overlay-get fimble--overlay 'after-string)
                                                   (overlay-get fimble--overlay 'display)))
                    ""))
          tests-frames)))
(add-hook 'pre-redisplay-functions #'tests-frame)
"""


class Frame(NamedTuple):
    """What Emacs was about to draw at one time."""

    before: str
    """The cursor's line up to it."""
    ghost: str


@functools.cache
def need_emacs() -> None:
    """Emacs, its packages and tmux (see `debian.need`)."""
    lisp = Path("/usr/share/emacs/site-lisp/elpa-src")
    missing = [name for name in ("emacs", "tmux") if not shutil.which(name)]
    missing += [p for p in PACKAGES if p.startswith("elpa-") and not [*lisp.glob(p.removeprefix("elpa-") + "-*")]]
    debian.need(missing, PACKAGES)


def profile(home: Path, init: str) -> Path:
    """Writes the start-up files of somebody with that `init.el`; their home."""
    folder = home / ".emacs.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "early-init.el").write_text(EARLY)
    (folder / "init.el").write_text(init)
    return home


class Editor(Emacs):
    """Emacs with fimble and a folder for its files."""

    def __init__(
        self, home: Path, env: dict[str, str], command: Path = FIMBLE, more: str = "", arguments: tuple[str, ...] = ()
    ) -> None:
        init = INIT.format(root=ROOT, command=command) + HELP + more
        super().__init__(*arguments, home=profile(home, init), env=env, size=(80, 50))
        self.folder = home
        self.lisp("t")

    def edit(self, name: str, text: str, line_break: str = "\n") -> None:
        """Opens a new file with that text and puts the cursor at the mark."""
        file = self.folder / name
        before, after = text.split(MARK)
        file.write_bytes((before + after).replace("\n", line_break).encode())
        self.lisp(f'(progn (switch-to-buffer (find-file-noselect "{file}")) (goto-char {len(before) + 1}) t)')

    def run(self, command: str) -> None:
        """Runs a command by its name, as a user does."""
        self.keys("M-x")
        self.until(lambda screen: "M-x" in screen.lines()[-2], "M-x")
        self.type(command)
        self.keys("Enter")

    def see(self, ghost: str) -> Screen:
        """Waits for that ghost text; the screen."""
        return self.ghost(lambda shown: shown == ghost)

    def change(self, *keys: str) -> str:
        """Presses keys that change the buffer; its text then."""
        before = self.text()
        self.keys(*keys)
        self.wait(f"(not (equal (buffer-string) {lisp_string(before)}))")
        return self.text()

    def accept(self) -> str:
        """Accepts the ghost text; the buffer's text."""
        return self.change("Tab")

    def settle(self) -> None:
        """Waits until all keys are processed and nothing is waited for."""
        self.wait(
            "(and (not (input-pending-p)) fimble--place (equal fimble--place (fimble--here)) (not fimble--asked))"
        )

    def wait(self, condition: str) -> None:
        """Waits for an expression to be true."""
        self.until(lambda _: bool(self.lisp(f"(if {condition} t :json-false)")), condition)

    def frames(self) -> list[Frame]:
        """What was drawn since the last time, in that order."""
        drawn = self.lisp("(prog1 (vconcat (reverse tests-frames)) (setq tests-frames nil))")
        return [Frame(*frame) for frame in drawn]

    def messages(self) -> str:
        """What Emacs has told."""
        return self.lisp('(with-current-buffer "*Messages*" (buffer-string))')

    def reset(self) -> None:
        """No open file; and nothing has failed."""
        self.lisp("""(progn
          (dolist (buffer (buffer-list))
            (when (buffer-file-name buffer)
              (with-current-buffer buffer (set-buffer-modified-p nil))
              (kill-buffer buffer)))
          (setq tests-frames nil)
          t)""")
        told = self.messages()
        self.lisp('(with-current-buffer "*Messages*" (let ((inhibit-read-only t)) (erase-buffer)) t)')
        assert "rror" not in told, told
        assert "out of step" not in told, told


def lisp_string(text: str) -> str:
    """A text as Lisp reads it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def seen(text: str) -> list[str]:
    """A buffer's lines as they look on the screen."""
    return [line.expandtabs(8).rstrip() for line in text.split("\n")]


def window(screen: Screen) -> list[str]:
    """The lines of the selected window: all between the menu bar and the mode line."""
    lines = screen.lines()
    end = next(i for i, line in enumerate(lines) if line.startswith("-UU") or " All L" in line or " Top L" in line)
    return lines[1:end]


def child(emacs: Emacs, name: str) -> Any:
    """A process that this Emacs has started."""
    import psutil

    return next(p for p in psutil.Process(emacs.pid()).children(recursive=True) if name in " ".join(p.cmdline()))
