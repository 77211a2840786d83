"""From a keystroke to ghost text on the screen of a real editor, split into editor, server and worker.

What the benchmarks of Neovim and Emacs share: the places where they type, the figures, the command. The editor types
the ends of lines into files of this project, key by key. The next key comes once everything is answered and `--pause`
has gone by. The time of a key is that of the first frame that shows what is shown in the end: the line with its ghost
text. Keys that lead to none are counted, not timed.

Server and worker are as `fimble/trace` has them. The server's share holds what it waits for the next key
(`maxDelayMs`); the editor's is the rest: taking the key, both ways of the request, drawing.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Protocol

import attrs
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.own_worker import own_state, worker
from benchmarks.quiet import Quiet
from lsp_server.completion import FREE

ROOT = Path(__file__).parents[1]
FILES = ("lsp_server/documents.py", "inference/lines.py", "editors/neovim/lua/fimble/ghost.lua", "lsp_server/hole.py")
LEAST_TYPED, MOST_TYPED = 8, 24
"""Characters of a line's end."""
SOURCES = dict.fromkeys(FREE, "known already") | {"model": "asked from the model"}
AHEAD = "asked before the key"
"""Of other sources: the question was in hand when the key came, and its answer was waited for."""


@attrs.frozen
class Place:
    """The end of a line in a file."""

    name: str
    before: str
    typed: str
    after: str


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


class Typist(Protocol):
    """An editor in which somebody types."""

    def open(self, place: Place) -> None:
        """Opens a new file with what stands around the place, the cursor there."""
        ...

    def press(self, char: str) -> Key | None:
        """Types a character, waits for the answer, and tells how it came; None if it brought no ghost text."""
        ...

    def leave(self) -> None:
        """Closes the file without saving it."""
        ...


def key(trace: dict[str, Any], screen: float) -> Key:
    """A keystroke whose ghost text stood on the screen after so many milliseconds.

    `trace`: of `fimble/trace` the fields `source` and `total`, and `worker`: what that computed (ms, or 0).
    """
    took = trace["worker"] if trace["source"] == "model" else 0.0
    return Key(SOURCES.get(trace["source"], AHEAD), screen, min(trace["total"] - took, screen), took)


def places() -> Iterator[Place]:
    """Ends of lines, spread over each file, file by file in turn."""
    cuts: list[list[Place]] = []
    for name in FILES:
        lines = (ROOT / name).read_text("utf-8").split("\n")
        of_file: list[Place] = []
        for i, line in enumerate(lines[8:], start=8):
            body = line.strip()
            if len(body) < LEAST_TYPED + 4 or body.startswith(("#", "--", '"""')) or not body.isascii():
                continue
            typed = body[-min(MOST_TYPED, len(body) - 4) :]
            kept = line.rstrip()[: -len(typed)]
            before, after = "\n".join([*lines[:i], kept]), "\n" + "\n".join(lines[i + 1 :])
            of_file.append(Place(Path(name).name, before, typed, after))
        cuts.append(of_file[:: max(1, len(of_file) // 8)])
    for several in zip(*cuts, strict=False):
        yield from several


def measure(typist: Typist, keystrokes: int, pause: float) -> list[Key | None]:
    """Types so many keys, about, with a pause (s) after each. The first place only warms up."""
    all_places = places()
    _type(typist, next(all_places), pause)
    keys: list[Key | None] = []
    for place in all_places:
        keys += _type(typist, place, pause)
        if len(keys) >= keystrokes:
            break
    return keys


def _type(typist: Typist, place: Place, pause: float) -> list[Key | None]:
    typist.open(place)
    keys: list[Key | None] = []
    for char in place.typed:
        keys.append(typist.press(char))
        time.sleep(pause)
    typist.leave()
    return keys


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


def run(module: str, start: Callable[[Path], AbstractContextManager[Typist]]) -> None:
    """The command of a benchmark; `start` starts the editor, which may keep its files in a folder."""

    def typed(folder: Path, keystrokes: int, pause: float) -> list[Key | None]:
        with start(folder) as typist:
            return measure(typist, keystrokes, pause)

    async def with_worker(folder: Path, keystrokes: int, pause: float) -> list[Key | None]:
        async with worker():
            return await asyncio.to_thread(typed, folder, keystrokes, pause)

    def main(
        keystrokes: Annotated[int, typer.Option(help="keys, about")] = 300,
        pause: Annotated[float, typer.Option(help="ms between an answer and the next key")] = 120.0,
        out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
    ) -> None:
        console, head, quiet = Console(), report.header(module), Quiet()
        with own_state(), tempfile.TemporaryDirectory() as folder:
            all_keys = asyncio.run(with_worker(Path(folder), keystrokes, pause / 1000))
        quiet.finish()
        keys = [key for key in all_keys if key]
        found = rows(keys)
        without = len(all_keys) - len(keys)
        console.print(table(found))
        console.print(f"{len(all_keys)} keys, after {without} of them no ghost text; the machine: {quiet}")
        if out:
            figures = {"pause_ms": pause, "typed": len(all_keys), "without ghost text": without}
            report.write(out, head | figures | {"machine idle": quiet.figures, "rows": found})

    typer.run(main)
