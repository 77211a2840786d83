"""How sure is sure enough: the share of holes with a suggestion against the share of right ones among those.

    python -m benchmarks.confidence [--n 350] [--seed 1] [--recording FILE] [--json OUT]

Over the holes of `benchmarks.holes` and the same recording. The confidence of a suggestion is the probability that the
model gives to exactly its tokens. Each threshold goes through the server's own code, as the setting `confidence`. Half
of the packages (every other one of a language) choose the threshold, the other half tell what it is worth: exit status
1 if there the default shows fewer than half of the holes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.holes import SETTINGS, Filled, ask, fill
from benchmarks.own_worker import own_state
from benchmarks.packages import LOTS, holes
from benchmarks.sources import Unavailable, default_cache
from evaluation.recording import Recording
from evaluation.tasks import Task

THRESHOLDS = sorted({0.0, 0.02, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, SETTINGS.confidence})
LEAST_SHOWN = 0.5


def chooses(name: str) -> bool:
    """Whether a hole is of the half that chooses the threshold: every other package of each language."""
    package = next(lot for lot in LOTS if name.startswith(f"{lot.package.name}/"))
    of_language = [lot for lot in LOTS if lot.language == package.language]
    return of_language.index(package) % 2 == 0


def curve(by_threshold: dict[float, list[Filled]], half: bool) -> list[dict[str, Any]]:
    """Shares by threshold over one half of the packages."""
    points: list[dict[str, Any]] = []
    for threshold, every in by_threshold.items():
        scores = [f.score for f in every if chooses(f.task.name) is half]
        shown = [score for score in scores if score.shown]
        points.append(
            {
                "threshold": threshold,
                "holes": len(scores),
                "shown": round(len(shown) / max(1, len(scores)), 4),
                "right of shown": round(sum(s.right for s in shown) / max(1, len(shown)), 4),
                "first line of shown": round(sum(s.first for s in shown) / max(1, len(shown)), 4),
                "right beside threshold 0": 0.0,
            }
        )
    for point in points:
        kept = point["shown"] * point["right of shown"]
        point["right beside threshold 0"] = round(kept / max(1e-9, points[0]["shown"] * points[0]["right of shown"]), 4)
    return points


def bins(every: list[Filled]) -> list[dict[str, Any]]:
    """Tenths of the confidence: how many suggestions have it, and how many of those are right."""
    found: list[dict[str, Any]] = []
    for tenth in range(10):
        fits = [f.score for f in every if f.score.shown and min(9, int(10 * math.exp(f.score.logprob))) == tenth]
        right = sum(score.right for score in fits) / max(1, len(fits))
        found.append({"from": tenth / 10, "suggestions": len(fits), "right": round(right, 4)})
    return found


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    """Records as they are printed."""
    shown = Table(*rows[0], title=title, title_justify="left", box=box.SIMPLE)
    for row in rows:
        shares = {name for name in row if name not in ("threshold", "from")}
        cells = [f"{v:.1%}" if isinstance(v, float) and name in shares else str(v) for name, v in row.items()]
        shown.add_row(*cells)
    return shown


async def measure(tasks: list[Task], recording: Recording, recorded: bool) -> dict[float, list[Filled]]:
    """The holes filled under every threshold; the first run records what is missing."""
    found: dict[float, list[Filled]] = {}
    for threshold in THRESHOLDS:
        settings = attrs.evolve(SETTINGS, confidence=threshold)
        if recorded or found:
            found[threshold] = await fill(tasks, recording, None, settings)
        else:
            found[threshold] = await ask(tasks, recording, settings)
    return found


def main(
    n: Annotated[int, typer.Option(help="holes in each language")] = 350,
    seed: Annotated[int, typer.Option(help="of the holes")] = 1,
    recording: Annotated[Path | None, typer.Option(help="the model's raw answers, kept here")] = None,
    recorded: Annotated[bool, typer.Option("--recorded", help="ask no model: only what is recorded")] = False,
    cache: Annotated[Path | None, typer.Option(help="folder of fetched packages")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
) -> None:
    """Measures what a threshold on the confidence shows and hides."""
    console = Console(width=140)
    logging.getLogger("lsp_server").setLevel(logging.ERROR)
    head = report.header("benchmarks.confidence")
    kept = cache or default_cache()
    try:
        tasks = holes(n, seed, kept)
    except Unavailable as error:
        console.print(f"[red]{error}")
        raise typer.Exit(2) from None
    with own_state():
        found = asyncio.run(measure(tasks, Recording(recording or kept / f"holes-{seed}.jsonl"), recorded))
    halves = {"chosen on": curve(found, True), "tested on": curve(found, False)}
    for title, points in halves.items():
        console.print(table(title, points))
    calibration = bins(found[0.0])
    console.print(table("is the probability one?", calibration))
    default = SETTINGS.confidence
    tested = next(point for point in halves["tested on"] if point["threshold"] == default)
    if out:
        result = {"settings": {"n": n, "seed": seed, "model": "starter", "default": default}}
        report.write(out, head | result | halves | {"calibration": calibration})
    sys.exit(tested["shown"] < LEAST_SHOWN)


if __name__ == "__main__":
    typer.run(main)
