"""From a keystroke to ghost text on the screen of a real Neovim (see `benchmarks.on_screen`).

    python -m benchmarks.neovim [--keystrokes N] [--pause MS] [--json OUT]

Neovim runs embedded and draws for this script.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import on_screen
from benchmarks.on_screen import ROOT, Key, Place
from editors.neovim_screen import NVIM, PATIENCE, Neovim, Screen

INIT = """
vim.o.swapfile = false
vim.opt.rtp:append("{root}/editors/neovim")
traces = {{}}
vim.lsp.handlers["fimble/trace"] = function(_, trace)
  table.insert(traces, {{
    version = trace.version,
    source = trace.source,
    outcome = trace.outcome,
    total = trace.total_ms,
    worker = type(trace["end"]) == "table" and trace["end"].timing.total or 0,
  }})
end
require("fimble").setup({{ cmd = {{ "{fimble}" }}, settings = {{ trace = true }} }})
"""
ANSWERED = """
for _, request in pairs(vim.lsp.get_clients()[1] and vim.lsp.get_clients()[1].requests or {}) do
  if request.type == "pending" then return vim.NIL end -- its trace comes first
end
local version = vim.lsp.util.buf_versions[vim.api.nvim_get_current_buf()]
for i = #traces, 1, -1 do
  local trace = traces[i]
  if trace.version == version and trace.outcome ~= "superseded" then
    return { trace, require("fimble").visible() }
  end
end
return vim.NIL
"""


class Typist:
    """A Neovim, and the time of each of its frames."""

    def __init__(self, neovim: Neovim, folder: Path):
        self._neovim, self._folder = neovim, folder
        self._frames: list[tuple[float, tuple[str, str]]] = []
        neovim.on_frame = self._note

    def _note(self, screen: Screen) -> None:
        self._frames.append((time.perf_counter(), (screen.lines()[screen.cursor[0]], screen.ghost())))

    def open(self, place: Place) -> None:
        """Opens a new file and goes into insert mode at the place."""
        file = self._folder / place.name
        file.write_text(place.before + place.after)
        self._neovim.command(f"edit! {file}")
        self._neovim.request("nvim_win_set_cursor", 0, [place.before.count("\n") + 1, 0])
        self._neovim.keys("A")
        self._neovim.until(lambda screen: screen.mode == "insert", "insert mode")

    def press(self, char: str) -> Key | None:
        """Types a character; how its ghost text came."""
        text = self._neovim.request("nvim_get_current_line") + char
        self._frames.clear()
        began = time.perf_counter()
        self._neovim.keys("<lt>" if char == "<" else char)
        trace, visible = self._answer(text, began)
        if not visible:
            return None
        self._neovim.until(lambda screen: bool(screen.ghost()), "ghost text")
        last = self._frames[-1][1]
        shown = next(at for at, seen in self._frames if seen == last)
        return on_screen.key(trace, (shown - began) * 1000)

    def leave(self) -> None:
        """Closes the file."""
        self._neovim.keys("<Esc>")
        self._neovim.until(lambda screen: screen.mode == "normal", "normal mode")
        self._neovim.command("bwipeout!")

    def _answer(self, text: str, began: float) -> tuple[dict[str, Any], bool]:
        while time.perf_counter() - began < PATIENCE:
            if self._neovim.request("nvim_get_current_line") == text:
                answer = self._neovim.lua(ANSWERED)
                if answer:
                    return answer[0], answer[1]
            time.sleep(0.005)
        raise TimeoutError(f"no answer behind {text!r}")


@contextmanager
def start(folder: Path) -> Iterator[Typist]:
    """A Neovim with the plugin."""
    init = folder / "init.lua"
    init.write_text(INIT.format(root=ROOT.as_posix(), fimble=NVIM.with_name("fimble")))
    with Neovim("-u", str(init), env=os.environ) as neovim:
        yield Typist(neovim, folder)


if __name__ == "__main__":
    on_screen.run("benchmarks.neovim", start)
