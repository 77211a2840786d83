"""Emacs and what it runs: set up from nothing, the server and the worker killed, none at all, other packages beside."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from editors.emacs_screen import Emacs
from lsp_server import connect
from tests.conftest import worker_of
from tests.editors.documents import MARK, SAVE, STACK
from tests.editors.emacs_editor import FIMBLE, ROOT, Editor, child, need_emacs

README = ROOT / "editors" / "emacs" / "README.md"


@pytest.fixture(autouse=True)
def emacs() -> None:
    need_emacs()


def documented() -> str:
    """The set-up in the README, with the paths of this checkout."""
    lines = README.read_text("utf-8").split("```elisp\n")[1].split("```")[0]
    return lines.replace("/path/to/fimble/.venv/bin/fimble", str(FIMBLE)).replace("/path/to/fimble", str(ROOT))


def test_the_documented_lines_lead_from_a_clean_profile_to_ghost_text(state: dict[str, str], tmp_path: Path) -> None:
    assert 1 < len(documented().splitlines()) <= 5
    (tmp_path / ".emacs.d").mkdir()
    (tmp_path / ".emacs.d" / "init.el").write_text(documented())
    file = tmp_path / "save.py"
    before, after = SAVE.split(MARK)
    file.write_text(before + after)
    line, column = before.count("\n") + 1, len(before.split("\n")[-1]) + 1
    with Emacs(f"+{line}:{column}", str(file), home=tmp_path, env=state, harness=False) as emacs:
        emacs.until(lambda screen: "fimble" in screen.text() and screen.cursor[1] == column - 1, "the file")
        emacs.type("jso")
        emacs.ghost(lambda ghost: ghost == "n.dump(data, f)")


def test_what_connect_prints_are_the_documented_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join(["/usr/bin", "/bin"]))  # the command is not on it
    [emacs] = [editor for editor in connect.editors() if editor.name.startswith("Emacs")]
    assert emacs.lines.strip() == documented().strip()


@pytest.mark.behaviour("worker loading", "worker killed")
def test_the_mode_line_shows_the_loading_and_ghost_text_comes_without_another_key(
    fresh_state: dict[str, str], tmp_path: Path
) -> None:
    with Editor(tmp_path / "home", fresh_state) as editor:
        editor.edit("save.py", SAVE)
        editor.type("jso")
        editor.until(lambda screen: "fimble:loading" in screen.text(), "progress")
        editor.see("n.dump(data, f)")
        editor.until(lambda screen: "loading" not in screen.text(), "the end of the progress")
        worker_of(fresh_state).kill()
        editor.edit("stack.go", STACK)  # what was suggested above needs no worker
        editor.type("{")
        editor.keys("Enter")
        editor.until(lambda screen: "fimble:loading" in screen.text(), "progress")
        editor.ghost()
        editor.until(lambda screen: "loading" not in screen.text(), "the end of the progress")
        editor.reset()


@pytest.mark.behaviour("server killed")
def test_a_killed_server_is_reported_and_comes_back(state: dict[str, str], tmp_path: Path) -> None:
    with Editor(tmp_path, state) as editor:
        editor.edit("save.py", SAVE)
        editor.type("jso")
        editor.see("n.dump(data, f)")
        child(editor, "fimble").kill()
        editor.until(lambda s: "server has ended (signal 9)" in s.text() and not s.ghost(), "a message")
        editor.see("n.dump(data, f)")  # by itself: it starts again after a pause
        assert editor.lisp("(fimble--lighter)") == " fimble"
        editor.type("n")
        editor.see(".dump(data, f)")


def test_without_the_server_there_is_one_message_and_the_keys_work(state: dict[str, str], tmp_path: Path) -> None:
    with Editor(tmp_path, state, command=Path("/no/such/fimble")) as editor:
        editor.edit("save.py", SAVE)
        editor.edit("other.py", MARK + "\n")
        editor.type("jso")
        editor.keys("C-g")
        editor.type("n")
        editor.until(lambda screen: "json" in screen.text(), "the keys")
        assert "fimble:no command" in editor.screen().text()
        assert editor.messages().count("fimble: no command `/no/such/fimble'; see the option") == 1


def test_a_folder_can_name_no_command(state: dict[str, str], tmp_path: Path) -> None:
    with Editor(tmp_path, state, command=Path("/no/such/fimble")) as editor:
        (tmp_path / ".dir-locals.el").write_text(
            f'((nil . ((fimble-command . ("touch" "{tmp_path}/harm")) (fimble-settings . (:model "/harm")))))'
        )
        editor.lisp("(progn (setq enable-local-variables :safe) t)")
        editor.edit("save.py", SAVE)
        assert editor.lisp("(list (local-variable-p 'fimble-command) (local-variable-p 'fimble-settings))") in (
            None,
            [None, None],
        )
        assert editor.lisp("(and (risky-local-variable-p 'fimble-command) (risky-local-variable-p 'fimble-settings) 1)")
        assert not (tmp_path / "harm").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="TRAMP's `su` wants no password of root alone")
def test_a_file_of_another_user_or_machine_is_served_from_here(state: dict[str, str], tmp_path: Path) -> None:
    with Editor(tmp_path, state) as editor:
        before, after = SAVE.split(MARK)
        (tmp_path / "save.py").write_text(before + after)
        editor.lisp(f'(progn (find-file "/su::{tmp_path}/save.py") (goto-char {len(before) + 1}) t)')
        assert editor.lisp("(and (file-remote-p default-directory) t)")
        editor.type("jso")
        editor.see("n.dump(data, f)")
        editor.reset()


def test_an_open_menu_of_company_hides_and_ghost_text_returns(state: dict[str, str], tmp_path: Path) -> None:
    more = "(require 'company)\n(setq company-idle-delay nil)\n(add-hook 'prog-mode-hook #'company-mode)\n"
    with Editor(tmp_path, state, more=more) as editor:
        editor.edit("save.py", SAVE)
        editor.type("jso")
        editor.see("n.dump(data, f)")
        editor.lisp("(progn (setq company-backends '(company-dabbrev) company-dabbrev-minimum-length 2) t)")
        editor.run("company-dabbrev")
        editor.wait("company-candidates")
        editor.see("")
        editor.keys("C-g")
        editor.see("n.dump(data, f)")
        editor.reset()


def test_pylsp_keeps_the_buffer_and_its_diagnostics_stand_beside_ghost_text(
    state: dict[str, str], tmp_path: Path
) -> None:
    pylsp = Path(FIMBLE).with_name("pylsp")
    more = f"""
(require 'eglot)
(setq eglot-server-programs '((python-mode . ("{pylsp}"))) eglot-connect-timeout 120)
(add-hook 'python-mode-hook #'eglot-ensure)
"""
    with Editor(tmp_path, state, more=more) as editor:
        text = SAVE.replace("import json", "import json, undefined_module_of_nobody").replace(
            MARK, f"f.seek(0)\n        {MARK}"
        )
        editor.edit("save.py", text)
        editor.keys("C-l")  # Eglot connects after a command
        editor.wait("(and (eglot-current-server) (flymake-diagnostics))")
        told = editor.lisp('(mapconcat #\'flymake-diagnostic-text (flymake-diagnostics) "\\n")')
        assert "undefined_module_of_nobody' imported but unused" in told
        editor.type("jso")
        editor.see("n.dump(data, f)")
        assert editor.lisp("(and (eglot-current-server) (flymake-diagnostics) fimble--overlay 1)") == 1
        assert "        json.dump(data, f)\n" in editor.accept()


def test_with_eglot_alone_completions_come_through_completion_at_point(state: dict[str, str], tmp_path: Path) -> None:
    setup = README.read_text("utf-8").split("```elisp\n")[2].split("```")[0]
    setup = setup.replace("/path/to/fimble/.venv/bin/fimble", str(FIMBLE))
    before, after = SAVE.split(MARK)
    (tmp_path / "save.py").write_text(before + "jso" + after)
    script = tmp_path / "batch.el"
    script.write_text(f"""
{setup}
(require 'eglot)
(find-file "{tmp_path}/save.py")
(let ((until (+ (float-time) 120)) found)
  (apply #'eglot (eglot--guess-contact))
  (goto-char {len(before) + 4})
  (while (and (not found) (< (float-time) until))
    (sit-for 0.1) (accept-process-output nil 0.2)
    (let ((data (eglot-completion-at-point)))
      (setq found (all-completions "" (nth 2 data)))))
  (princ (car found)))
""")
    done = subprocess.run(
        ["emacs", "-q", "--batch", "-l", str(script)],
        env={**state, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "json.dump(data, f)" in done.stdout, done.stdout + done.stderr
