"""Whom the VS Code extension believes: an untrusted folder can name no program, no address and no model."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FIMBLE
from tests.editors.documents import SAVE
from tests.editors.vscode_editor import opened

TRUST = {"security.workspace.trust.enabled": True, "security.workspace.trust.startupPrompt": "never"}

BUTTON = (
    "[...document.querySelectorAll('.workspace-trust-editor .monaco-button')].find((b) => b.textContent === 'Trust')"
)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port that hears whoever calls."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def plant(workspace: Path, listener: socket.socket) -> Path:
    """Fills a folder with all that it could wish to be run or called; the file that exists once it has been run."""
    ran = workspace / "ran"
    for environment in (".venv", "venv"):
        command = workspace / environment / "bin" / "fimble"
        command.parent.mkdir(parents=True)
        command.write_text(f'#!/bin/sh\ntouch "{ran}"\nexec "{FIMBLE}" "$@"\n')
        command.chmod(0o755)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    wishes = {
        "fimble.command": str(workspace / ".venv" / "bin" / "fimble"),
        "fimble.installFrom": str(workspace / "other.whl"),
        "fimble.model": "/no/such/model",
        "fimble.worker.url": address,
        "fimble.worker.keyFile": "/etc/hostname",
        "fimble.backend": "openai",
        "fimble.remote.url": [address],
        "fimble.remote.keyVariable": "HOME",
    }
    (workspace / ".vscode").mkdir()
    (workspace / ".vscode" / "settings.json").write_text(json.dumps(wishes))
    return ran


def called(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_an_untrusted_folder_names_nothing_and_a_trusted_one_its_model(
    vscode_packages: tuple[Path, Path], state: dict[str, str], tmp_path: Path, listener: socket.socket
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    ran = plant(workspace, listener)
    with opened(vscode_packages, state, tmp_path, {**TRUST, "fimble.command": FIMBLE, "fimble.trace": True}) as code:
        code.warm_up()
        assert code.window.run("return vscode.workspace.isTrusted") is False
        code.edit("save.py", SAVE)
        code.type("jso")
        code.see("n.dump(data, f)")  # by the starter, from the user's server
        assert not ran.exists()
        code.window.command("workbench.trust.manage")
        code.window.until(lambda _: code.window.evaluate(f"!!{BUTTON}"), "the button")
        code.window.evaluate(f"{BUTTON}.click()")
        code.window.until(lambda screen: "/no/such/model" in screen.status, "the folder's model")
        assert not ran.exists()  # the user's own setting goes before the folder's environment
    assert not called(listener)


def test_without_a_setting_only_a_trusted_folder_lends_its_environment(
    vscode_packages: tuple[Path, Path], state: dict[str, str], tmp_path: Path, listener: socket.socket
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    ran = plant(workspace, listener)
    with opened(vscode_packages, state, tmp_path, TRUST) as code:
        # Another one may be on this user's PATH.
        code.window.until(lambda screen: "no server" in screen.status or "ready" in screen.status, "a decision")
        assert not ran.exists()
        code.window.command("workbench.trust.manage")
        code.window.until(lambda _: code.window.evaluate(f"!!{BUTTON}"), "the button")
        code.window.evaluate(f"{BUTTON}.click()")
        code.window.until(lambda _: ran.exists(), "the folder's own server")
    assert not called(listener)


def test_a_command_that_is_not_there_is_an_error_with_its_name(
    vscode_packages: tuple[Path, Path], state: dict[str, str], tmp_path: Path
) -> None:
    with opened(vscode_packages, state, tmp_path, {"fimble.command": "/no/such/fimble"}) as code:
        reason = "there is no /no/such/fimble"
        screen = code.window.until(lambda screen: reason in screen.status and screen.messages, "the reason")
        assert reason in screen.messages[0]
        code.edit("save.py", SAVE)
        code.type("jso")
        assert "        jso\n" in code.text()
        code.configure("command", FIMBLE)  # applies at once
        code.ready()
        code.type("n")
        code.see(".dump(data, f)")
