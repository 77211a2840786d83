"""What token healing is worth: the rest of a line, with the cursor somewhere inside it, healed and not healed.

    python -m benchmarks.healing PATH [--n 200] [--seed 1] [--json OUT]

PATH is the single-line set of HumanEval-Infilling (github.com/openai/human-eval-infilling; JSON lines, gzipped or not).
The cursor stands at a random column of the line to be written, never its first nor its end. An answer counts if it is
the rest of the line, up to white space at its end. Exit status 1 unless healing at least doubles the anchored row.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import report
from benchmarks.own_worker import own_state, worker
from inference.wire import FimRequest, Piece, Stops
from lsp_server.backends.worker import WorkerBackend

Layout = Literal["psm", "anchored"]
ROWS: tuple[tuple[Layout, bool], ...] = (("psm", False), ("psm", True), ("anchored", False), ("anchored", True))
MAX_TOKENS = 64
AT_LEAST = 2.0
"""How many times as many hits healing must bring to the anchored layout."""


@attrs.frozen
class Task:
    """A line to be completed, cut at `column`."""

    above: str
    """Up to the end of the line above, its line break excluded."""
    line: str
    column: int
    below: str
    """From the line break that ends the line."""

    @property
    def inside_word(self) -> bool:
        """Whether the cursor stands between two characters of a word."""
        return self.line[self.column - 1].isalnum() and self.line[self.column].isalnum()

    def request(self, layout: Layout, heal: bool) -> FimRequest:
        """The request of an editor whose cursor stands there."""
        stops = Stops(max_tokens=MAX_TOKENS, end_of_line=True)
        before = "\n" + self.line[: self.column]
        if layout == "psm":
            return FimRequest(self.above + before, self.below, stops=stops, heal=heal)
        return FimRequest(self.above, self.below, before, stops=stops, heal=heal)

    def hit(self, answer: str) -> bool:
        """Whether the answer is the rest of the line."""
        return answer.rstrip() == self.line[self.column :].rstrip()


def tasks(path: Path, n: int, seed: int) -> list[Task]:
    """`n` lines of the set, each cut at a random column. Raises `ValueError` if the file is not such a set."""
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
    records: list[dict[str, str]] = [json.loads(line) for line in lines if line.strip()]
    usable: list[dict[str, str]] = []
    for record in records:
        try:
            line = record["canonical_solution"].rstrip("\n")
            if len(line) >= 2 and "\n" not in line and record["prompt"].endswith("\n"):
                usable.append({"above": record["prompt"][:-1], "line": line, "below": "\n" + record["suffix"]})
        except KeyError as missing:
            raise ValueError(f"{path.name} has a line without {missing}; is it the single-line set?") from None
    if len(usable) < n:
        raise ValueError(f"{path.name} holds {len(usable)} usable lines; --n asks for {n}")
    chance = random.Random(seed)
    return [Task(**record, column=chance.randrange(1, len(record["line"]))) for record in chance.sample(usable, n)]


async def answer(backend: WorkerBackend, request: FimRequest) -> str:
    """The text that the worker adds at the cursor."""
    return "".join([piece.text async for piece in backend.fim(request) if isinstance(piece, Piece)])


async def measure(chosen: list[Task], console: Console) -> dict[tuple[Layout, bool], list[bool]]:
    """Hit or miss of each task in each row."""
    hits: dict[tuple[Layout, bool], list[bool]] = {row: [] for row in ROWS}
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("loading the model", total=len(chosen) * len(ROWS))
        async with worker() as backend:
            progress.update(bar, description="asking")
            for task in chosen:
                for row in ROWS:
                    hits[row].append(task.hit(await answer(backend, task.request(*row))))
                    progress.advance(bar)
    return hits


def summary(chosen: list[Task], hits: dict[tuple[Layout, bool], list[bool]]) -> list[dict[str, Any]]:
    """One record a layout: exact matches in per cent, of all cursors and of those inside a word."""
    rows: list[dict[str, Any]] = []
    inside = [task.inside_word for task in chosen]
    for layout in ("psm", "anchored"):
        row: dict[str, Any] = {"layout": layout}
        for heal in (False, True):
            found = hits[layout, heal]
            name = "healed" if heal else "not healed"
            row[f"{name}, hits"] = sum(found)
            row[f"{name}, %"] = round(100 * sum(found) / len(found), 1)
            within = [hit for hit, word in zip(found, inside, strict=True) if word]
            row[f"{name}, inside a word, %"] = round(100 * sum(within) / max(1, len(within)), 1)
        row["ratio"] = round(row["healed, hits"] / max(1, row["not healed, hits"]), 2)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], n: int, within: int) -> Table:
    """The summary as it is printed."""
    shown = Table(title=f"rest of the line, exact match, n = {n} ({within} cursors inside a word)")
    for name in ("layout", "not healed", "healed", "ratio", "inside a word: not healed", "healed"):
        shown.add_column(name, justify="left" if name == "layout" else "right")
    for row in rows:
        percent = [f"{row[f'{name}, %']:.1f} %" for name in ("not healed", "healed")]
        inside = [f"{row[f'{name}, inside a word, %']:.1f} %" for name in ("not healed", "healed")]
        shown.add_row(row["layout"], *percent, f"{row['ratio']:.2f} ×", *inside)
    return shown


def main(
    path: Annotated[Path, typer.Argument(help="HumanEval-Infilling, single line: .jsonl or .jsonl.gz")],
    n: Annotated[int, typer.Option(help="lines")] = 200,
    seed: Annotated[int, typer.Option(help="of the lines and the columns")] = 1,
    out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
) -> None:
    """Measures what token healing is worth."""
    console = Console()
    head = report.header("benchmarks.healing")
    try:
        chosen = tasks(path, n, seed)
    except (OSError, ValueError) as error:
        console.print(f"[red]{error}")
        raise typer.Exit(2) from None
    with own_state():
        hits = asyncio.run(measure(chosen, console))
    rows = summary(chosen, hits)
    within = sum(task.inside_word for task in chosen)
    console.print(table(rows, n, within))
    ratio = rows[-1]["ratio"]
    passed = ratio >= AT_LEAST
    verdict = "[green]passed" if passed else "[red]failed"
    console.print(f"{verdict}[/]: healing brings {ratio:.2f} × the hits of the anchored layout (≥ {AT_LEAST:g} wanted)")
    if out:
        settings = {"n": n, "seed": seed, "max_tokens": MAX_TOKENS, "model": "starter", "cursors inside a word": within}
        report.write(out, head | {"settings": settings, "rows": rows, "passed": passed})
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    typer.run(main)
