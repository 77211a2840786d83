"""Takes the pictures of VS Code for the README: a real session, with the model that is built in.

python -m editors.vscode_picture editors/vscode/ghost-text.png editors/vscode/ghost-text.gif
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from editors import vscode_tools
from editors.code_server import PATIENCE, CodeServer, Window
from editors.picture import TEXT

FIMBLE = Path(sys.executable).with_name("fimble")
LOOKS = {
    "fimble.command": str(FIMBLE),
    "workbench.colorTheme": "Default Dark Modern",
    "workbench.activityBar.location": "hidden",
    "workbench.layoutControl.enabled": False,
    "workbench.navigationControl.enabled": False,
    "window.commandCenter": False,
    "window.menuBarVisibility": "hidden",
    "breadcrumbs.enabled": False,
    "editor.fontSize": 14,
    "editor.fontFamily": "DejaVu Sans Mono",
    "editor.stickyScroll.enabled": False,
    "editor.occurrencesHighlight": "off",
    "editor.inlineSuggest.showToolbar": "never",
    "editor.lightbulb.enabled": "off",
    "editor.guides.indentation": False,
}
PREPARE = """
for (const command of ["closeSidebar", "closePanel", "closeAuxiliaryBar"]) {
  await vscode.commands.executeCommand("workbench.action." + command);
}
const document = await vscode.workspace.openTextDocument(args[0]);
const end = document.lineAt(document.lineCount - 1).range.end;
await vscode.window.showTextDocument(document, { selection: new vscode.Range(end, end) });
"""
HEAD = "    def withdraw(self, amount):"
KEY_MS, LOOK_MS, END_MS = 110, 1300, 2600
"""How long a frame stands: after a key, with new ghost text, at the end."""
LINES = 3
"""Ghost text to wait for, at least."""


def type_slowly(window: Window, text: str) -> Iterator[tuple[Image.Image, int]]:
    """Types, and each time takes what is shown and how long it stands."""
    for key in text:
        window.type(key)
        yield photograph(window), KEY_MS


def photograph(window: Window) -> Image.Image:
    """The window as it is."""
    return Image.open(io.BytesIO(window.screenshot())).convert("RGB")


def record(window: Window, file: Path) -> tuple[Image.Image, list[tuple[Image.Image, int]]]:
    """Types a method's head, takes its body word by word and then whole; the picture with most to see, and the film."""
    window.run(PREPARE, str(file))
    window.until(lambda screen: "fimble: ready" in screen.status, "the model", 2 * PATIENCE)
    window.until(lambda screen: screen.lines[-3:], "the file")
    frames = list(type_slowly(window, HEAD))
    window.type("\n")
    window.until(lambda screen: screen.ghost.count("\n") + 1 >= LINES, "a body", 2 * PATIENCE)
    best = photograph(window)
    frames.append((best, LOOK_MS))
    for _ in range(2):
        before = window.screen().ghost
        window.press("Control+ArrowRight")
        window.until(lambda screen, b=before: screen.ghost and screen.ghost != b, "the rest")
        frames.append((photograph(window), 4 * KEY_MS))
    window.press("Tab")
    window.until(lambda screen: not screen.ghost, "the accepted text")
    frames.append((photograph(window), END_MS))
    return best, frames


def save_film(frames: list[tuple[Image.Image, int]], path: Path) -> None:
    """As GIF, in one palette."""
    palette = frames[-2][0].quantize(96, dither=Image.Dither.NONE)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture, _ in frames]
    durations = [duration for _, duration in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=False)


def main() -> None:
    """The command. The worker is this user's."""
    parser = argparse.ArgumentParser(description="Takes pictures of a real VS Code session with ghost text.")
    parser.add_argument("picture", type=Path, help="PNG")
    parser.add_argument("film", type=Path, help="GIF")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace = folder / "bank"
        workspace.mkdir()
        packages = vscode_tools.build_extension(folder), vscode_tools.build_driver(folder)
        with CodeServer(folder, dict(os.environ), *packages, settings=LOOKS) as server:
            for path, scale in ((options.picture, 2), (options.film, 1)):
                file = workspace / f"account{scale}.py"
                file.write_text(TEXT.rstrip() + "\n\n")
                with server.window(workspace, size=(760, 590), scale=scale) as window:
                    best, frames = record(window, file)
                if path is options.picture:
                    best.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
                else:
                    save_film(frames, path)
                print(f"{path}: {best.width} x {best.height}, {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
