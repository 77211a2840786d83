"""The package for VS Code: what it declares, its size, its start, and the set-up as its README describes it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from editors import vscode_tools
from editors.code_server import CodeServer
from lsp_server.settings import FIELDS, Settings
from tests.conftest import FIMBLE
from tests.editors.documents import MARK, SAVE
from tests.editors.vscode_editor import Editor

MANIFEST: dict[str, Any] = json.loads((vscode_tools.EXTENSION / "package.json").read_text("utf-8"))
PROPERTIES: dict[str, dict[str, Any]] = MANIFEST["contributes"]["configuration"]["properties"]
OURS = {"command", "installFrom"}
TRUSTED = OURS | {
    name for name in FIELDS if re.match(r"model$|device$|dtype$|worker\.|backend$|remote\.|exclude$", name)
}
"""Settings that name a program, a model, a device or an address."""
TALL = (1000, 3000)
"""A window that shows the whole list of running extensions, the quickest last."""


def test_it_declares_each_setting_of_the_server_with_its_default_and_a_description() -> None:
    names = {name.removeprefix("fimble.") for name in PROPERTIES}
    assert sorted(names - OURS) == sorted(FIELDS), "declare it in editors/vscode/package.json"
    defaults = attrs.asdict(Settings())
    for name, (field, check) in FIELDS.items():
        declared = PROPERTIES[f"fimble.{name}"]
        assert declared["description"].endswith("."), name
        default = declared["default"]
        assert default == (list(defaults[field]) if isinstance(defaults[field], tuple) else defaults[field]), name
        for choice in declared.get("enum", ()):
            check(choice)


def test_a_folder_that_is_not_trusted_can_set_none_that_names_a_program_an_address_or_a_model() -> None:
    restricted = MANIFEST["capabilities"]["untrustedWorkspaces"]["restrictedConfigurations"]
    assert sorted(restricted) == sorted(f"fimble.{name}" for name in TRUSTED)
    assert all(PROPERTIES[name]["scope"] == "machine" for name in restricted if name != "fimble.model")


def test_it_runs_where_the_folder_is_on_the_oldest_version_that_it_was_checked_against() -> None:
    assert MANIFEST["extensionKind"] == ["workspace"]
    assert MANIFEST["engines"]["vscode"] == f"^{MANIFEST['devDependencies']['@types/vscode']}"
    assert "enabledApiProposals" not in MANIFEST


def test_the_package_is_below_a_megabyte(vscode_packages: tuple[Path, Path]) -> None:
    assert vscode_packages[0].stat().st_size < 1_000_000


def test_it_is_activated_within_100_ms_and_calls_nobody(
    vscode_packages: tuple[Path, Path], state: dict[str, str], tmp_path: Path
) -> None:
    """What VS Code itself measures, without a server: the best of a few windows, as other programs run beside them."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    times: list[int] = []
    row = "[...document.querySelectorAll('.runtime-extensions-editor .monaco-list-row')]"
    told = f"{row}.map((r) => r.textContent).find((t) => t.startsWith('fimble'))"
    settings = {"fimble.command": "/no/such/fimble"}
    with CodeServer(tmp_path, state, *vscode_packages, settings=settings) as server:
        for _ in range(6):
            if times and min(times) < 100:
                break
            with server.window(workspace, size=TALL) as window:
                window.until(lambda screen: "/no/such/fimble" in screen.status, "the extension")
                assert window.run("return globalThis.calls") == []
                for _ in range(4):  # the list may be drawn before there are times, and then stays so
                    window.command("workbench.action.closeAllEditors")
                    window.command("workbench.action.showRuntimeExtensions")
                    with suppress(TimeoutError):
                        window.until(lambda _, w=window: re.search(r"\d+ms", w.evaluate(told) or ""), "its time", 15)
                        break
                times.append(int(re.findall(r"(\d+)ms", window.evaluate(told))[0]))
    print(f"activation: {times} ms")
    assert min(times) < 100


@pytest.mark.usefixtures("vscode_packages")
def test_the_set_up_in_the_readme_leads_to_ghost_text(state: dict[str, str], tmp_path: Path) -> None:
    readme = (vscode_tools.EXTENSION / "README.md").read_text("utf-8")
    shell, settings = re.findall(r"```(?:sh|json)\n(.*?)```", readme, re.DOTALL)
    assert len((shell + settings).strip().splitlines()) <= 5
    copy = tmp_path / "editors" / "vscode"
    shutil.copytree(vscode_tools.EXTENSION, copy, ignore=shutil.ignore_patterns("node_modules", "out", "*.vsix"))
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    command = json.loads("{" + settings.replace("/path/to/fimble/.venv/bin/fimble", FIMBLE) + "}")
    with CodeServer(tmp_path / "code-server", state, settings=command) as server:
        programs = tmp_path / "bin"
        programs.mkdir()
        code = programs / "code"  # code-server's command line is that of `code`
        code.write_text(f'#!/bin/sh\nexec {" ".join(server.program)} "$@"\n')
        code.chmod(0o755)
        env = {**server.env, "PATH": f"{programs}:{server.env['PATH']}"}
        subprocess.run(["sh", "-e", "-c", shell], cwd=tmp_path, env=env, check=True, timeout=240, capture_output=True)
        file = workspace / "save.py"
        before, after = SAVE.split(MARK)
        file.write_text(before.rstrip(" ") + after)
        with server.window(workspace, driven=False, file=file) as window:
            window.until(lambda screen: "fimble: ready" in screen.status, "the model")
            window.until(lambda screen: "import json" in screen.lines, "the file")
            window.evaluate("document.querySelector('.monaco-editor[data-uri] textarea, .native-edit-context').focus()")
            window.press("Control+Home", *["ArrowDown"] * before.count("\n"))
            window.type("        jso")
            for _ in range(30):  # a window that has just opened may not ask at the first keys
                with suppress(TimeoutError):
                    window.until(lambda screen: screen.ghost == "n.dump(data, f)", "ghost text", 2)
                    break
                window.type("n")
                window.press("Backspace")
            window.press("Tab")
            window.until(lambda screen: not screen.ghost and "        json.dump(data, f)" in screen.lines, "the text")


def test_every_editor_command_has_a_title_and_is_there(code: Editor) -> None:
    declared = [command["command"] for command in MANIFEST["contributes"]["commands"]]
    there = code.window.run("return await vscode.commands.getCommands(true)")
    assert sorted(set(declared) - set(there)) == []
