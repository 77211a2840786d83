"""The status-bar item's menu in the real VS Code: each entry does what it says."""

from __future__ import annotations

import subprocess

import psutil

from tests.conftest import FIMBLE, worker_of
from tests.editors.documents import SAVE
from tests.editors.vscode_editor import Editor

REPORT_S = 90
"""`fimble doctor` loads torch to look at it."""


def report(code: Editor, name: str, line: str) -> str:
    """The text that opens for a report, once a line like that is on the screen."""
    code.window.until(lambda screen: any(line in shown for shown in screen.lines), f"the report {name}", REPORT_S)
    scheme = "return vscode.window.activeTextEditor?.document.uri.scheme"
    code.window.until(lambda _: code.window.run(scheme) == "fimble-report", "it as the active editor")
    return code.text()


def test_doctor_shows_what_completions_need(code: Editor, state: dict[str, str]) -> None:
    code.choose("Doctor")
    text = report(code, "doctor", "Python: ")
    assert f"ok   logs: {state['XDG_STATE_HOME']}" in text
    assert "ok   worker: ready, version " in text
    assert "\x1b" not in text


def test_statistics_show_what_was_counted(code: Editor, state: dict[str, str]) -> None:
    code.edit("save.py", SAVE)
    code.type("jso")
    code.see("n.dump(data, f)")
    code.accept()
    code.restart_server()  # which counts in memory for up to a minute
    code.choose("Statistics")
    text = report(code, "stats", "suggestions shown")
    env = {**state, "COLUMNS": "100"}
    assert text == subprocess.run([FIMBLE, "stats"], env=env, capture_output=True, text=True, check=True).stdout
    [python] = [line for line in text.splitlines() if line.startswith("│ Python ")]
    shown, _, characters = (cell.strip() for cell in python.split("│")[2:5])
    assert int(shown) >= 1
    assert int(characters) >= len("n.dump(data, f)")


def test_show_the_log_opens_the_extension_s_channel(code: Editor) -> None:
    """Not what stands in it: the library with which VS Code writes logs is not built in these tests' code-server."""
    code.choose("Show the log")
    shown = "document.querySelector('.output-view .monaco-editor')?.dataset.uri"
    code.window.until(lambda _: code.window.evaluate(shown) == "output:fimble.fimble.fimble.log", "the log")


def test_restart_the_server_ends_the_old_one_and_completions_go_on(code: Editor) -> None:
    old = code.server()
    code.edit("save.py", SAVE)
    code.type("js")
    code.see("on.dump(data, f)")
    code.choose("Restart the server")
    psutil.wait_procs([old], timeout=30)
    assert not old.is_running()
    code.ready()
    assert code.server().pid != old.pid
    assert not code.window.screen().messages  # nobody is told that it ended
    code.window.command("workbench.action.focusActiveEditorGroup")
    code.type("o")
    code.see("n.dump(data, f)")


def test_restart_the_worker_loads_the_model_anew_under_the_same_server(code: Editor, state: dict[str, str]) -> None:
    server, worker = code.server(), worker_of(state)
    code.choose("Restart the model's worker")
    code.window.until(lambda screen: "loading the model" in screen.status, "progress")
    code.ready()
    assert not worker.is_running()
    assert worker_of(state).pid != worker.pid
    assert code.server().pid == server.pid
