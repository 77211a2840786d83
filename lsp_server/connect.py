"""The lines that connect an editor to this installation, for the editors found on this machine."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import attrs

from inference.version import VERSION


@attrs.frozen
class Editor:
    """An editor on this machine, and what to put into its configuration."""

    name: str
    note: str
    lines: str


def command() -> str:
    """The `fimble` command of this installation, by its full path if the PATH does not lead to it."""
    here = Path(sys.executable).with_name("fimble.exe" if sys.platform == "win32" else "fimble")
    found = shutil.which("fimble")
    return "fimble" if found and Path(found).resolve() == here.resolve() else str(here)


def plugin(editor: str) -> Path:
    """The folder of an editor's plugin: in an installed wheel beside this package, in a checkout below `editors/`."""
    package = Path(__file__).parent
    installed = package / "editor_files" / editor
    return installed if installed.is_dir() else package.parent / "editors" / editor


def editors() -> list[Editor]:
    """The editors found, in the order of their support."""
    found: list[Editor] = []
    nvim = shutil.which("nvim") or shutil.which("nvim", path=str(Path(sys.executable).parent))
    if nvim:
        setup = f'require("fimble").setup({{ cmd = {{ "{command()}" }} }})'
        lines = f'vim.opt.rtp:append("{plugin("neovim").as_posix()}")\n{setup}'
        found.append(Editor("Neovim", f"ghost text; put into init.lua ({nvim})", lines))
    for name in ("code", "codium", "code-server"):
        if path := shutil.which(name):
            setup = f"{name} --install-extension fimble-{VERSION}.vsix"
            note = f"ghost text; `npm ci && npm run package && {setup}` in editors/vscode, and in the settings ({path})"
            found.append(Editor("VS Code", note, f'"fimble.command": "{command()}"'))
            break
    if helix := shutil.which("hx") or shutil.which("helix"):
        lines = (
            f'[language-server.fimble]\ncommand = "{command()}"\n# in each language: language-servers = [..., "fimble"]'
        )
        found.append(Editor("Helix", f"in the completion menu; put into languages.toml ({helix})", lines))
    if emacs := shutil.which("emacs"):
        lines = f"""(add-to-list 'load-path "{plugin("emacs").as_posix()}")
(require 'fimble)
(setq fimble-command '("{command()}"))
(global-fimble-mode)"""
        found.append(Editor("Emacs", f"ghost text; put into init.el ({emacs})", lines))
    if not found:
        note = "no editor with a known set-up was found on the PATH"
        found.append(Editor("any LSP client", note, f"{command()}    # speaks LSP on standard input and output"))
    return found
