"""From a keystroke to ghost text on the screen, in a real Neovim, split into editor, server and worker.

    python -m benchmarks.neovim [--keystrokes N] [--pause MS] [--json OUT]

Neovim runs embedded and draws for this script, which types the ends of lines into files of this project, key by key.
The next key comes once everything is answered and `--pause` has gone by. The time of a key is that of the first frame
that shows what is shown in the end: the line with its ghost text. Keys that lead to none are counted, not timed.

Server and worker are as `fimble/trace` has them. The server's share holds what it waits for the next key
(`maxDelayMs`); the editor's is the rest: taking the key, both ways of the request, drawing.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.own_worker import own_state, worker
from benchmarks.quiet import Quiet
from editors.neovim_screen import NVIM, PATIENCE, Neovim, Screen

ROOT = Path(__file__).parents[1]
FILES = ("lsp_server/documents.py", "inference/lines.py", "editors/neovim/lua/fimble/ghost.lua", "lsp_server/hole.py")
LEAST_TYPED, MOST_TYPED = 8, 24
"""Characters of a line's end."""
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
SOURCES = {"suggestion": "known already", "cache": "known already", "model": "asked from the model"}
AHEAD = "asked before the key"
"""Of other sources: the question was in hand when the key came, and its answer was waited for."""


@attrs.frozen
class Key:
    """One keystroke that led to ghost text, in milliseconds. What is known is drawn before the server has said so."""

    source: str
    screen: float
    server: float
    worker: float

    @property
    def editor(self) -> float:
        """What neither server nor worker took."""
        return self.screen - self.server - self.worker


class Typist:
    """A Neovim, and the time of each of its frames."""

    def __init__(self, folder: Path, pause_ms: float):
        init = folder / "init.lua"
        init.write_text(INIT.format(root=ROOT.as_posix(), fimble=NVIM.with_name("fimble")))
        self.neovim = Neovim("-u", str(init), env=os.environ)
        self.neovim.on_frame = self._note
        self._folder, self._pause = folder, pause_ms / 1000
        self._frames: list[tuple[float, tuple[str, str]]] = []
        self.without = 0
        """Keys after which no ghost text was shown."""

    def _note(self, screen: Screen) -> None:
        self._frames.append((time.perf_counter(), _seen(screen)))

    def type(self, name: str, before: str, typed: str, after: str) -> Iterator[Key]:
        """Types into a new file; the keys that led to ghost text."""
        file = self._folder / name
        file.write_text(before + after)
        self.neovim.command(f"edit! {file}")
        line = before.count("\n") + 1
        self.neovim.request("nvim_win_set_cursor", 0, [line, 0])
        self.neovim.keys("A")
        self.neovim.until(lambda screen: screen.mode == "insert", "insert mode")
        for char in typed:
            key = self._key(char)
            if key:
                yield key
            time.sleep(self._pause)
        self.neovim.keys("<Esc>")
        self.neovim.until(lambda screen: screen.mode == "normal", "normal mode")
        self.neovim.command("bwipeout!")

    def _key(self, char: str) -> Key | None:
        text = self.neovim.request("nvim_get_current_line") + char
        self._frames.clear()
        began = time.perf_counter()
        self.neovim.keys("<lt>" if char == "<" else char)
        trace, visible = self._answer(text, began)
        if not visible:
            self.without += 1
            return None
        self.neovim.until(lambda screen: bool(screen.ghost()), "ghost text")
        last = self._frames[-1][1]
        shown = next(at for at, seen in self._frames if seen == last)
        screen = (shown - began) * 1000
        took = trace["worker"] if trace["source"] == "model" else 0.0
        return Key(SOURCES.get(trace["source"], AHEAD), screen, min(trace["total"] - took, screen), took)

    def _answer(self, text: str, began: float) -> tuple[dict[str, Any], bool]:
        while time.perf_counter() - began < PATIENCE:
            if self.neovim.request("nvim_get_current_line") == text:
                answer = self.neovim.lua(ANSWERED)
                if answer:
                    return answer[0], answer[1]
            time.sleep(0.005)
        raise TimeoutError(f"no answer behind {text!r}")


def _seen(screen: Screen) -> tuple[str, str]:
    return screen.lines()[screen.cursor[0]], screen.ghost()


def places(chosen: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    """File name, text before, what is typed, text after: ends of lines, spread over each file, file by file in turn."""
    cuts: list[list[tuple[str, str, str, str]]] = []
    for name in chosen:
        lines = (ROOT / name).read_text("utf-8").split("\n")
        of_file: list[tuple[str, str, str, str]] = []
        for i, line in enumerate(lines[8:], start=8):
            body = line.strip()
            if len(body) < LEAST_TYPED + 4 or body.startswith(("#", "--", '"""')) or not body.isascii():
                continue
            typed = body[-min(MOST_TYPED, len(body) - 4) :]
            kept = line.rstrip()[: -len(typed)]
            before, after = "\n".join([*lines[:i], kept]), "\n" + "\n".join(lines[i + 1 :])
            of_file.append((Path(name).name, before, typed, after))
        cuts.append(of_file[:: max(1, len(of_file) // 8)])
    for several in zip(*cuts, strict=False):
        yield from several


def measure(folder: Path, keystrokes: int, pause_ms: float) -> tuple[list[Key], int, int]:
    """The timed keys, how many were typed, and how many led to no ghost text. The first place only warms up."""
    typist = Typist(folder, pause_ms)
    with typist.neovim:
        all_places = places(FILES)
        for _ in typist.type(*next(all_places)):
            pass
        typist.without = 0
        keys: list[Key] = []
        for place in all_places:
            keys += typist.type(*place)
            if len(keys) + typist.without >= keystrokes:
                break
    return keys, len(keys) + typist.without, typist.without


def rows(keys: list[Key]) -> dict[str, dict[str, Any]]:
    """The figures by where the answer came from."""
    found: dict[str, dict[str, Any]] = {}
    for source in ("known already", AHEAD, "asked from the model"):
        those = [key for key in keys if key.source == source]
        found[source] = {"keys": len(those)} | {
            part: report.spread([getattr(key, part) for key in those])
            for part in ("screen", "editor", "server", "worker")
        }
    return found


def table(found: dict[str, dict[str, Any]]) -> Table:
    """The figures for people."""
    shown = Table("ms, p50 / p95", *found, title="from the keystroke to ghost text on the screen")
    shown.add_row("keys", *(str(row["keys"]) for row in found.values()))
    for part, title in (("screen", "on the screen"), ("editor", "editor"), ("server", "server"), ("worker", "worker")):
        shown.add_row(title, *(f"{row[part]['p50']:.1f} / {row[part]['p95']:.1f}" for row in found.values()))
    return shown


async def run(folder: Path, keystrokes: int, pause_ms: float) -> tuple[list[Key], int, int]:
    """Types with a worker of this run's own."""
    async with worker():
        return await asyncio.to_thread(measure, folder, keystrokes, pause_ms)


def main(
    keystrokes: Annotated[int, typer.Option(help="keys, about")] = 300,
    pause: Annotated[float, typer.Option(help="ms between an answer and the next key")] = 120.0,
    out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
) -> None:
    """Measures ghost text in Neovim."""
    console, head, quiet = Console(), report.header("benchmarks.neovim"), Quiet()
    with own_state(), tempfile.TemporaryDirectory() as folder:
        keys, typed, without = asyncio.run(run(Path(folder), keystrokes, pause))
    quiet.finish()
    found = rows(keys)
    console.print(table(found))
    console.print(f"{typed} keys, after {without} of them no ghost text; the machine: {quiet}")
    if out:
        figures = {"pause_ms": pause, "typed": typed, "without ghost text": without, "machine idle": quiet.figures}
        report.write(out, head | figures | {"rows": found})


if __name__ == "__main__":
    typer.run(main)
