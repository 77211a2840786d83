"""The picture in the README: a real Neovim with a real answer, its screen drawn cell by cell.

    python -m editors.picture editors/neovim/ghost-text.png

Needs Pillow and a monospaced font with its bold and oblique cuts (Debian: fonts-dejavu-core).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from editors.neovim_screen import NVIM, PATIENCE, Neovim, Screen

ROOT = Path(__file__).parents[1]
INIT = """
vim.o.swapfile, vim.o.showmode, vim.o.ruler, vim.o.showcmd = false, false, false, false
vim.o.number, vim.o.cursorline, vim.o.cmdheight = true, true, 0
vim.g.loaded_matchparen = 1
vim.o.fillchars = "eob: "
vim.cmd.colorscheme("{colours}")
vim.api.nvim_set_hl(0, "StatusLine", {{ link = "CursorLine" }})
vim.opt.rtp:append("{root}/editors/neovim")
_G.fimble = require("fimble")
_G.fimble.setup({{ cmd = {{ "{fimble}" }} }})
vim.o.statusline = "  %t %m%=%{{v:lua.fimble.status()}}   %{{&filetype}}   %l:%c  "
"""
TEXT = '''class Account:
    """A bank account, and what happened to it."""

    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance
        self.history = []

    def deposit(self, amount):
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.balance += amount
        self.history.append(("deposit", amount))

'''
KEYS = "Go<CR><C-u>    def withdraw(self, amount):<CR>"
LINES = 3
"""Ghost text to wait for, at least."""


class Look(NamedTuple):
    """How a cell is drawn."""

    foreground: int
    background: int
    bold: bool
    italic: bool


class Pen:
    """Draws a screen. Sizes in pixels; twice those on the page, so that the picture is sharp on fine displays."""

    def __init__(self, fonts: Path, size: int = 26) -> None:
        names = {(0, 0): "", (1, 0): "-Bold", (0, 1): "-Oblique", (1, 1): "-BoldOblique"}
        self.fonts = {
            cut: ImageFont.truetype(str(fonts / f"DejaVuSansMono{name}.ttf"), size) for cut, name in names.items()
        }
        self.width = round(self.fonts[0, 0].getlength("m"))
        self.height = round(size * 1.4)
        self.drop = round(size * 0.14)
        self.margin = size

    def draw(self, screen: Screen) -> Image.Image:
        """The whole screen, with the cursor as the bar of insert mode."""
        colours = screen.colours
        columns, rows = len(screen.rows[0]), len(screen.rows)
        extent = (columns * self.width + 2 * self.margin, rows * self.height + 2 * self.margin)
        picture = Image.new("RGB", extent, _rgb(colours["background"]))
        draw = ImageDraw.Draw(picture)
        for y, row in enumerate(screen.rows):
            for x, cell in enumerate(row):
                look = _look(screen.highlights.get(cell.highlight, {}), colours)
                left, top = self.margin + x * self.width, self.margin + y * self.height
                edges = (0 if x == 0 else left, extent[0] if x == columns - 1 else left + self.width)
                draw.rectangle((edges[0], top, edges[1] - 1, top + self.height - 1), _rgb(look.background))
        for y, row in enumerate(screen.rows):
            for x, cell in enumerate(row):
                look = _look(screen.highlights.get(cell.highlight, {}), colours)
                place = (self.margin + x * self.width, self.margin + y * self.height + self.drop)
                if cell.text.strip():
                    draw.text(place, cell.text, _rgb(look.foreground), self.fonts[look.bold, look.italic])
        y, x = screen.cursor
        left, top = self.margin + x * self.width, self.margin + y * self.height
        draw.rectangle((left - 1, top + 2, left + 2, top + self.height - 3), _rgb(colours["foreground"]))
        return picture


def _look(attributes: dict[str, Any], colours: dict[str, int]) -> Look:
    foreground = attributes.get("foreground", colours["foreground"])
    background = attributes.get("background", colours["background"])
    if attributes.get("reverse"):
        foreground, background = background, foreground
    return Look(foreground, background, bool(attributes.get("bold")), bool(attributes.get("italic")))


def _rgb(colour: int) -> tuple[int, int, int]:
    return colour >> 16 & 255, colour >> 8 & 255, colour & 255


def record(folder: Path, colours: str, size: tuple[int, int], pen: Pen) -> Image.Image:
    """Types in a real Neovim, waits for the answer and draws it. The worker is this user's."""
    init = folder / "init.lua"
    init.write_text(INIT.format(root=ROOT, fimble=NVIM.with_name("fimble"), colours=colours))
    file = folder / "account.py"
    file.write_text(TEXT.rstrip() + "\n")
    with Neovim("-u", str(init), str(file), env=dict(os.environ), size=size) as neovim:
        neovim.lua("vim.cmd.cd(...)", str(folder))
        neovim.keys(KEYS)
        neovim.ghost(lambda ghost: ghost.count("\n") + 1 >= LINES, seconds=2 * PATIENCE)
        return pen.draw(neovim.screen)


def rounded(picture: Image.Image, radius: int = 20) -> Image.Image:
    """With transparent corners, drawn large and scaled down so that they are smooth."""
    mask = Image.new("L", (picture.width * 4, picture.height * 4))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), radius * 4, 255)
    rounded = picture.convert("RGBA")
    rounded.putalpha(mask.resize(picture.size, Image.Resampling.LANCZOS))
    return rounded


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Draws a real Neovim session with ghost text.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--colours", default="sorbet", help="a colour scheme of Neovim's own")
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts/truetype/dejavu"))
    parser.add_argument("--size", type=int, nargs=2, default=(72, 21), metavar=("COLUMNS", "LINES"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = record(Path(folder), options.colours, tuple(options.size), Pen(options.fonts))
    picture = rounded(picture).quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    picture.save(options.output, optimize=True)
    print(f"{options.output}: {picture.width} x {picture.height}, {options.output.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
