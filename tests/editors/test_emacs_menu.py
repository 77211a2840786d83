"""`completion-at-point` in Emacs with fimble's function, by the line in its README."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.editors.documents import DUMP, MARK, SAVE, STACK
from tests.editors.emacs_editor import ROOT, Editor

README = (ROOT / "editors" / "emacs" / "README.md").read_text("utf-8")
[LINE] = [line.split("`")[1] for line in README.splitlines() if line.startswith("* **completion-at-point**")]


@pytest.fixture
def editor(emacs: Editor) -> Iterator[Editor]:
    yield emacs
    emacs.lisp(
        '(progn (delete-other-windows) (dolist (b (list "*Completions*")) (when (get-buffer b) (kill-buffer b))) t)'
    )
    emacs.reset()


def complete(editor: Editor, chosen: str) -> str:
    """Completes at point, which inserts what all begin with, then from the menu; the text."""
    editor.lisp(f"(progn {LINE} t)")
    editor.change("C-M-i")
    editor.keys("C-M-i")
    editor.until(lambda screen: "Possible completions" in screen.text(), "a menu")
    editor.lisp("(progn (switch-to-completions) t)")
    editor.lisp(f'(progn (goto-char (point-min)) (search-forward "{chosen}") (backward-char) t)')
    editor.keys("Enter")
    editor.wait("(buffer-file-name)")
    return editor.text()


def test_it_inserts_the_models_completion(editor: Editor) -> None:
    editor.edit("save.py", SAVE)
    editor.type("jso")
    editor.see("n.dump(data, f)")
    assert f"{DUMP}\n" in complete(editor, "data, f")


def test_of_several_lines_the_others_follow_the_one_that_was_chosen(editor: Editor) -> None:
    editor.edit("stack.go", STACK)
    editor.type("{")
    editor.keys("Enter")
    editor.ghost(lambda shown: "\n" in shown)
    first = editor.lisp('(car (split-string (fimble--ghost-text fimble--ghost) "\\n"))')
    whole = editor.lisp("(fimble--ghost-text fimble--ghost)")
    assert f"\n{whole}\n" in complete(editor, first.strip())


def test_a_bracket_that_was_closed_is_not_doubled(editor: Editor) -> None:
    """The server has answered so for an auto-closed bracket; here its answer is set, to have it each time."""
    editor.edit("forEach.js", f"users.forEach({MARK}) // all\nnext()\n")
    editor.lisp("""(cl-letf (((symbol-function 'jsonrpc-request) (lambda (&rest _)
      '(:items [(:insertText "user => {\\n  greet(user)\\n})"
                 :range (:start (:line 0 :character 14) :end (:line 0 :character 15)))]))))
      (let ((completion-at-point-functions '(fimble-completion-at-point))) (completion-at-point)) t)""")
    assert editor.text() == "users.forEach(user => {\n  greet(user)\n}) // all\nnext()\n"
