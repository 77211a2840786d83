"""The picture in Emacs' README: a real Emacs with a real answer, its terminal drawn cell by cell.

    python -m editors.emacs_picture editors/emacs/ghost-text.png

Needs Emacs, tmux, Pillow and a monospaced font with its bold and oblique cuts (Debian: fonts-dejavu-core).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from editors.emacs_screen import PATIENCE, Cell, Emacs, Screen
from editors.neovim_screen import Cell as DrawnCell
from editors.neovim_screen import Screen as DrawnScreen
from editors.picture import TEXT, Pen, rounded

ROOT = Path(__file__).parents[1]
EARLY = "(setq inhibit-startup-screen t native-comp-deferred-compilation nil)"
INIT = """
(setq make-backup-files nil auto-save-default nil)
(menu-bar-mode -1)
(add-to-list 'load-path "{root}/editors/emacs")
(require 'fimble)
(setq fimble-command '("{command}"))
(global-fimble-mode)
"""
COLOURS = {"foreground": 0xD8D8E0, "background": 0x1B1D26}
BASIC = (0x2E3440, 0xE06C75, 0x98C379, 0xE5C07B, 0x61AFEF, 0xC678DD, 0x56B6C2, 0xABB2BF) * 2
LEVELS = (0, 95, 135, 175, 215, 255)
LINES = 3
"""Ghost text to wait for, at least."""


def colour(name: str | None, otherwise: int) -> int:
    """A colour of a cell as a number; the palette of xterm for those above the first sixteen."""
    if name is None:
        return otherwise
    if name.startswith("#"):
        return int(name[1:], 16)
    number = int(name.removeprefix("colour"))
    if number < 16:
        return BASIC[number]
    if number >= 232:
        return (8 + 10 * (number - 232)) * 0x010101
    number -= 16
    red, green, blue = (LEVELS[number // step % 6] for step in (36, 6, 1))
    return red << 16 | green << 8 | blue


def drawn(screen: Screen, size: tuple[int, int]) -> DrawnScreen:
    """The screen in the form that the pen draws."""
    result = DrawnScreen()
    result.colours = COLOURS
    result.cursor = screen.cursor
    numbers: dict[Cell, int] = {}
    for row in screen.rows[: size[1]]:
        cells = [*row, *[Cell(" ")] * (size[0] - len(row))][: size[0]]
        result.rows.append([])
        for cell in cells:
            number = numbers.setdefault(cell._replace(text=""), len(numbers) + 1)
            look: dict[str, Any] = {
                "foreground": colour(cell.foreground, COLOURS["foreground"]),
                "background": colour(cell.background, COLOURS["background"]),
                "bold": cell.bold,
                "italic": cell.italic,
                "reverse": cell.reverse,
            }
            result.highlights[number] = look
            result.rows[-1].append(DrawnCell(cell.text, number))
    return result


def record(folder: Path, size: tuple[int, int], pen: Pen) -> Image.Image:
    """Types in a real Emacs, waits for the answer and draws it. The worker is this user's."""
    (folder / ".emacs.d").mkdir()
    command = Path(sys.executable).with_name("fimble")
    (folder / ".emacs.d" / "init.el").write_text(INIT.format(root=ROOT, command=command))
    (folder / ".emacs.d" / "early-init.el").write_text(EARLY)
    file = folder / "account.py"
    file.write_text(TEXT.rstrip() + "\n")
    with Emacs(str(file), home=folder, env=dict(os.environ), size=size) as emacs:
        emacs.lisp("(progn (goto-char (point-max)) (insert ?\\n) (message nil) t)")
        emacs.type("    def withdraw(self, amount):")
        emacs.keys("Enter")
        screen = emacs.ghost(lambda ghost: ghost.count("\n") + 1 >= LINES, seconds=2 * PATIENCE)
        return pen.draw(drawn(screen, size))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Draws a real Emacs session with ghost text.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts/truetype/dejavu"))
    parser.add_argument("--size", type=int, nargs=2, default=(72, 22), metavar=("COLUMNS", "LINES"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = record(Path(folder), tuple(options.size), Pen(options.fonts))
    picture = rounded(picture).quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    picture.save(options.output, optimize=True)
    print(f"{options.output}: {picture.width} x {picture.height}, {options.output.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
