"""What is shown in real code: holes in pinned packages of six languages, filled by the server's own code.

    python -m benchmarks.holes [--n 350] [--seed 1] [--recording FILE] [--json OUT]

The model's raw answers are recorded once, token by token; every run after that replays them through the server as it
stands then, in minutes and without the model (`--recorded`: what is not recorded yet is left out). Exit status 1 if
a bound below is missed.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import report
from benchmarks.own_worker import own_state, worker
from benchmarks.packages import LANGUAGES, LOTS, holes
from benchmarks.sources import Unavailable, default_cache
from evaluation.fill import InProcess
from evaluation.places import PLACES
from evaluation.recording import Recorder, Recording
from evaluation.results import figures
from evaluation.score import Score, score
from evaluation.tasks import Task
from lsp_server.completion import Completer
from lsp_server.request import Backend
from lsp_server.settings import Settings


@attrs.frozen
class Bound:
    """A figure of `evaluation.results.figures` and what it must be."""

    figure: str
    at_least: float = 0.0
    below: float = 2.0

    def holds(self, value: float) -> bool:
        return self.at_least <= value < self.below

    def __str__(self) -> str:
        wanted = f"≥ {self.at_least:.0%}" if self.at_least else f"< {self.below:.0%}"
        return f"{self.figure} {wanted}"


SETTINGS = Settings(completion_cache=False, speculation=False, max_delay_ms=0)
"""The defaults; each hole is asked once, so that nothing is gained by what is for later."""
BOUNDS = (
    Bound("shown", at_least=0.5),
    Bound("of the shown: repeats what follows", below=0.01),
    Bound("of the shown: unbalanced brackets", below=0.01),
    Bound("of those: no new syntax error", at_least=0.97),
)


@attrs.frozen
class Filled:
    """A task, what the model wrote, and the suggestion that came of it."""

    task: Task
    raw: str
    score: Score


async def fill(tasks: list[Task], recording: Recording, backend: Backend | None, settings: Settings) -> list[Filled]:
    """The tasks that the recording has, or that the worker can answer."""
    recorder = Recorder(recording, backend)
    filler = InProcess(Completer(recorder, settings), recorder)
    filled: list[Filled] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for task in progress.track(tasks, description="filling"):
            lacking = recorder.lacking
            answer = await filler.fill(task)
            if recorder.lacking == lacking:
                filled.append(Filled(task, recorder.last.text if recorder.last else "", score(task, answer)))
    return filled


async def ask(tasks: list[Task], recording: Recording, settings: Settings) -> list[Filled]:
    """The same, with a worker for what is not recorded."""
    async with worker() as backend:
        return await fill(tasks, recording, backend, settings)


def rows(scores: Iterable[Score]) -> dict[str, dict[str, Any]]:
    """Figures of all, by language and by place."""
    every = list(scores)
    found = {"all": figures(every)}
    for language in LANGUAGES:
        found[language] = figures(score for score in every if score.language == language)
    for place in PLACES:
        found[place] = figures(score for score in every if score.place == place)
    return found


def table(found: dict[str, dict[str, Any]]) -> Table:
    """A column a language and place."""
    shown = Table("%", *found, box=box.SIMPLE)
    for name in found["all"]:
        if name not in ("lone brackets", "pass@1"):
            cells = [f"{100 * v:.1f}" if isinstance(v := row[name], float) else str(v) for row in found.values()]
            shown.add_row(name, *cells)
    return shown


def failures(filled: Iterable[Filled]) -> str:
    """The suggestions that no user should see, as Markdown."""
    every, parts = list(filled), list[str]()
    for kind in ("repeats", "unbalanced", "broken"):
        bad = [f for f in every if getattr(f.score, kind) and (kind != "broken" or f.score.multi_line)]
        parts.append(f"# {kind}: {len(bad)}\n")
        for f in bad:
            text, covers = f.score.text, f.score.covers
            before, after = "\n".join(f.task.before.split("\n")[-6:]), "\n".join(f.task.after.split("\n")[:5])
            parts.append(
                f"## {f.task.name} ({f.task.language})\n\nThe edit is in ⟦⟧ and covers {covers} characters:\n```\n"
                f"{before}⟦{text}⟧{after[covers:]}\n```\n\n    model: {f.raw!r}\n    original: {f.task.middle!r}\n"
            )
    return "\n".join(parts)


def main(
    n: Annotated[int, typer.Option(help="holes in each of the six languages")] = 350,
    seed: Annotated[int, typer.Option(help="of the holes")] = 1,
    recording: Annotated[Path | None, typer.Option(help="the model's raw answers, kept here")] = None,
    recorded: Annotated[bool, typer.Option("--recorded", help="ask no model: only what is recorded")] = False,
    examples: Annotated[Path | None, typer.Option(help="write the failures here")] = None,
    cache: Annotated[Path | None, typer.Option(help="folder of fetched packages")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
) -> None:
    """Measures what is shown in real code."""
    console = Console(width=200)
    logging.getLogger("lsp_server").setLevel(logging.ERROR)
    head = report.header("benchmarks.holes")
    kept = cache or default_cache()
    try:
        with console.status("reading the packages") as status:
            tasks = holes(n, seed, kept, lambda package: status.update(f"reading {package}"))
    except Unavailable as error:
        console.print(f"[red]{error}")
        raise typer.Exit(2) from None
    answers = Recording(recording or kept / f"holes-{seed}.jsonl")
    settings = SETTINGS
    if recorded:
        filled = asyncio.run(fill(tasks, answers, None, settings))
    else:
        with own_state():
            filled = asyncio.run(ask(tasks, answers, settings))
    found = rows(f.score for f in filled)
    console.print(table(found))
    missed = [bound for bound in BOUNDS if not bound.holds(found["all"][bound.figure])]
    for bound in BOUNDS:
        verdict = "[red]missed" if bound in missed else "[green]met"
        console.print(f"{verdict}[/]: {bound} ({found['all'][bound.figure]:.2%})")
    if examples:
        examples.write_text(failures(filled), "utf-8")
    if out:
        packages = [f"{lot.language}: {lot.package}" for lot in LOTS]
        result = {"settings": {"n": n, "seed": seed, "model": "starter"}, "packages": packages, "rows": found}
        report.write(out, head | result | {"missed": [str(bound) for bound in missed]})
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    typer.run(main)
