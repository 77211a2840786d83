"""Whatever is done in Emacs: the server's document is the buffer. The server's process is played by Lisp here."""

from __future__ import annotations

import json
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lsp_server.documents import Change, DocumentStore
from tests.editors.emacs_editor import ROOT, need_emacs

PLAY = r"""
(setq coding-system-for-read nil make-backup-files nil create-lockfiles nil)
(add-to-list 'load-path "{root}/editors/emacs")
(require 'fimble)
(require 'json)
(defvar sent nil)
(defun fimble--start ())
(defun fimble--serving-p () t)
(defun fimble--notify (method params) (push (list :method (substring (symbol-name method) 1) :params params) sent))
(defun fimble--request (&rest _) 1)
(setq fimble--connection 'played)
(let ((coding-system-for-read '{coding})) (find-file "{file}"))
(setq indent-tabs-mode nil)
(buffer-enable-undo)
(global-fimble-mode)
(python-mode)
(fimble--sync)
(random "the same each time")
(dolist (edit (with-temp-buffer (insert-file-contents "{edits}") (read (current-buffer))))
  (condition-case failure (eval edit t) (error (ignore failure)))
  (when (= 0 (random 2)) (fimble--sync)))
(fimble--sync)
(with-temp-file "{out}"
  (set-buffer-multibyte t)
  (setq buffer-file-coding-system 'utf-8)
  (insert (json-serialize (vector (vconcat (reverse sent))
                                  (with-current-buffer "{name}" (fimble--all))
                                  (with-current-buffer "{name}" (fimble--position))
                                  (with-current-buffer "{name}" (1- (point)))))))
"""
EDITS = r"""
(insert "x") (insert "é😀") (insert "\n") (insert "  foo(bar)\n") (insert "\u2028 \f")
(insert "a\rb") (insert "\r\n")
(insert (string-to-multibyte "\351\377")) (insert "\t") (delete-char 1) (delete-char -1) (kill-line) (kill-word 1)
(yank) (undo) (undo-more 1) (transpose-lines 1)
(transpose-chars 1) (upcase-word 1)
(capitalize-region (point-min) (point-max))
(goto-char (point-min)) (goto-char (point-max)) (forward-line -1) (forward-line 1) (end-of-line) (forward-char 3)
(indent-region (point-min) (point-max)) (newline-and-indent)
(delete-indentation) (sort-lines nil (point-min) (point-max))
(replace-regexp "o" "öö" nil (point-min) (point-max))
(replace-string "x" "" nil (point-min) (point-max))
(subst-char-in-region (point-min) (point-max) ?e ?é)
(translate-region (point-min) (point-max)
  (let ((s (make-string 256 0))) (dotimes (i 256) (aset s i i)) (aset s ?a ?b) s))
(narrow-to-region (point) (point-max)) (widen) (fill-paragraph)
(erase-buffer) (revert-buffer t t) (save-buffer)

(comment-region (point-min) (point))
(untabify (point-min) (point-max))
(put-text-property (point-min) (point-max) 'face 'bold)
(insert-buffer-substring (current-buffer)) (whitespace-cleanup)
(replace-buffer-contents
  (with-current-buffer (get-buffer-create "other") (insert "new 😀\ntext\n") (current-buffer)))
(delete-region (point-min) (/ (+ (point) (point-min)) 2))
(let ((inhibit-modification-hooks t)) (insert "unseen\n")) (atomic-change-group (insert "q") (delete-char -1))
"""
TEXT = "def a():\n  é😀x\n\n  return 1"


def forms() -> list[str]:
    """The top-level forms of `EDITS`."""
    found, depth, start = [], 0, 0
    for match in re.finditer(r"\?.|\"(?:\\.|[^\"\\])*\"|[()]", EDITS):
        if match[0] == "(":
            start = match.start() if depth == 0 else start
            depth += 1
        elif match[0] == ")":
            depth -= 1
            if depth == 0:
                found.append(EDITS[start : match.end()])
    return found


def change_of(item: dict[str, Any]) -> Change:
    if "range" not in item:
        return item["text"]
    start, end = item["range"]["start"], item["range"]["end"]
    return start["line"], start["character"], end["line"], end["character"], item["text"]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("coding", ["utf-8-unix", "utf-8-dos", "latin-1-unix"])
def test_any_edits_of_any_file(tmp_path: Path, coding: str, seed: int) -> None:
    need_emacs()
    chance = random.Random(f"{coding} {seed}")
    edits = chance.choices(forms(), k=60)
    (tmp_path / "edits.el").write_text("(" + "\n".join(edits) + ")")
    file = tmp_path / "file.py"
    file.write_bytes(
        TEXT.replace("\n", "\r\n" if "dos" in coding else "\n").encode() + (b"\n\xe9\xff" if seed % 2 else b"")
    )
    out = tmp_path / "out.json"
    script = tmp_path / "play.el"
    names = {"root": ROOT, "file": file, "name": "file.py", "edits": tmp_path / "edits.el", "out": out}
    script.write_text(re.sub(r"\{(\w+)\}", lambda match: str({**names, "coding": coding}[match[1]]), PLAY))
    done = subprocess.run(
        ["emacs", "-q", "--batch", "-l", str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert out.exists(), done.stderr[-3000:]
    sent, text, position, characters = json.loads(out.read_text("utf-8"))
    store = DocumentStore()
    uri = ""
    for message in sent:
        params = message["params"]
        if message["method"] == "textDocument/didOpen":
            opened = params["textDocument"]
            uri = opened["uri"]
            store.open(uri, opened["languageId"], opened["version"], opened["text"])
        elif message["method"] == "textDocument/didChange":
            changed = params["textDocument"]
            changes = [change_of(item) for item in params["contentChanges"]]
            store.change(changed["uri"], changed["version"], changes, "utf-32")
        elif message["method"] == "textDocument/didClose":
            store.close(params["textDocument"]["uri"])
    document = store.get(uri)
    assert document, edits
    assert document.synchronised, (document.reason, edits)
    assert "\n".join(document.lines) == text, edits
    place = document.position(position["line"], position["character"], "utf-32")
    assert len("\n".join([*document.lines[: place.line], document.lines[place.line][: place.column]])) == characters
