"""The real Neovim with the plugin, for the tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from editors.neovim_screen import NVIM, PATIENCE, Neovim, Screen
from tests.editors.documents import MARK

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "editors" / "neovim"
INIT = """
vim.o.swapfile = false
{before}
vim.opt.rtp:append("{plugin}")
fimble = require("fimble")
fimble.setup({options})
"""
FIMBLE = NVIM.with_name("fimble")
PENDING = """
for _, client in ipairs(vim.lsp.get_clients()) do
  for _, request in pairs(client.requests) do
    if request.type == "pending" then return true end
  end
end
return vim.fn.getcharstr(1) ~= ""
"""


class Frame(NamedTuple):
    """What stood on the screen at one time."""

    line: str
    """The cursor's."""
    ghost: str
    text: str


class Editor(Neovim):
    """Neovim with the plugin and a folder for its files."""

    def __init__(
        self, folder: Path, env: dict[str, str], command: Path = FIMBLE, before: str = "", options: str = ""
    ) -> None:
        """`before`: Lua before the set-up; `options`: more of them than the command."""
        init = folder / "init.lua"
        chosen = f'{{ cmd = {{ "{command}" }}, {options} }}'
        init.write_text(INIT.format(plugin=PLUGIN, before=before, options=chosen))
        super().__init__("-u", str(init), env=env)
        self.folder = folder
        self.frames: list[Frame] = []
        self.on_frame = self.keep

    def keep(self, screen: Screen) -> None:
        """Notes a frame."""
        self.frames.append(Frame(screen.lines()[screen.cursor[0]], screen.ghost(), screen.text()))

    def edit(self, name: str, text: str, line_break: str = "\n") -> None:
        """Opens a new file with that text and goes into insert mode at the mark."""
        file = self.folder / name
        before, after = text.split(MARK)
        file.write_bytes((before + after).replace("\n", line_break).encode())
        self.command(f"edit {file}")
        line = before.count("\n")
        self.request("nvim_win_set_cursor", 0, [line + 1, len(before.split("\n")[-1].encode())])
        self.keys("i" if after[:1] not in ("", "\n") else "A")
        self.until(lambda screen: screen.mode == "insert", "insert mode")

    def type(self, text: str) -> None:
        """Types characters."""
        self.keys(text.replace("<", "<lt>").replace("\n", "<CR>"))

    def see(self, ghost: str) -> list[str]:
        """Waits for that ghost text; the screen's lines."""
        self.ghost(lambda shown: shown == ghost)
        return self.screen.lines()

    def accept(self, key: str = "<Tab>") -> list[str]:
        """Accepts the ghost text, or a part of it; the buffer's lines."""
        before = self.text()
        self.keys(key)
        self.wait(lambda: self.text() != before, "accepted text")
        return self.text()

    def settings(self, settings: str) -> None:
        """Changes the server's settings, a Lua table, as users do: by another setup()."""
        self.lua(f'fimble.setup({{ cmd = {{ "{FIMBLE}" }}, settings = {settings} }})')

    def answered(self) -> None:
        """Waits until all keys are typed and the server owes nothing."""
        self.wait(lambda: not self.lua(PENDING), "an answer to everything asked")

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for something that need not be on the screen."""
        until = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < until, f"no {what} after {PATIENCE:g} s:\n{self.screen.text()}"
            time.sleep(0.01)

    def reset(self) -> None:
        """No insert mode, no open file; and nothing has failed."""
        self.keys("<Esc>")
        self.until(lambda screen: screen.mode == "normal", "normal mode")
        messages = self.lua("return vim.fn.execute('messages')")
        self.command("messages clear | %bwipeout! | let v:errmsg = ''")
        assert "rror" not in messages, messages
        assert "traceback" not in messages, messages


def seen(lines: list[str]) -> list[str]:
    """Lines of a buffer as they look on the screen."""
    return [line.expandtabs(8).rstrip() for line in lines]
