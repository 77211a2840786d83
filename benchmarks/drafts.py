"""What drafts bring: the requests of replayed typing, answered by the engine with drafts and without.

    python -m benchmarks.drafts [--keystrokes N] [--files NAME …] [--offline] [--json OUT]

Real files are typed once against the engine itself, through the server's documents, anchors and stops but without LSP
or a worker; what is shown decides what is accepted. The requests that were answered are then sent again, in the same
order, to two fresh engines in a process each: block by block in turn, so that a drift of the machine hits both alike.

Both must give the same texts. Where they part, the answer is excused if the model without drafts preferred its token by
less than twice the largest difference seen between the log-probabilities of the two. Exit status 1: suggestions that
are shown come less than 1.3 times as fast, or an answer is wrong, or too many are excused.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import report, sources
from benchmarks.cache_check import Answer, Pair, Verdict
from benchmarks.contenders import SETTLE
from benchmarks.engine_client import Reply, ask, load_starter, start
from benchmarks.quiet import Quiet
from benchmarks.sources import SourceFile
from benchmarks.typing_script import Script
from benchmarks.typist import EngineBackend, Typist
from inference.wire import FimRequest
from lsp_server.completion import Completer
from lsp_server.request import Trace
from lsp_server.settings import Settings

BLOCK = 10
"""Requests that one engine answers before it is the other's turn."""
COMPARED = 40
"""Answers whose log-probabilities are compared, to know the error."""
TARGET = 1.3


@attrs.frozen
class Recorded:
    """A request as it was made, and whether its answer was shown."""

    request: FimRequest
    shown: bool


class Side:
    """An engine in a process of its own, with drafts or without."""

    def __init__(self, drafts: bool):
        self._apart = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_open, initargs=(drafts,))

    def record(self, files: list[SourceFile], keystrokes: int, seed: int) -> list[Recorded]:
        """Types every file; returns the requests that were answered."""
        return self._apart.submit(_record, files, keystrokes, seed).result()

    def ask(self, requests: list[FimRequest]) -> list[Reply]:
        """The answers, one after the other. Raises `engine_client.Failed`."""
        return self._apart.submit(_ask, requests).result()

    def counts(self) -> Counter[str]:
        """What the engine has counted."""
        return self._apart.submit(_counts).result()

    def close(self) -> None:
        """Ends the process."""
        self._apart.submit(_close).result()
        self._apart.shutdown()


_inside: dict[str, Any] = {}
"""In a side's process: its model and engine."""


def _open(drafts: bool) -> None:
    _inside["loaded"] = load_starter()
    _inside["engine"] = start(_inside["loaded"], drafts=drafts)
    ask(_inside["engine"], FimRequest("def first():\n", heal=False))


def _record(files: list[SourceFile], keystrokes: int, seed: int) -> list[Recorded]:
    return asyncio.run(_type(files, keystrokes, seed))


async def _type(files: list[SourceFile], keystrokes: int, seed: int) -> list[Recorded]:
    traces: list[Trace] = []
    completer = Completer(
        EngineBackend(_inside["engine"], _inside["loaded"]),
        Settings(completion_cache=False, confidence=0.0, max_delay_ms=0),
        traces.append,
    )
    for source in files:
        script = Script(source.text, f"{seed} {source.name}", max(4, keystrokes // len(files)))
        text = await Typist(completer, source, script).type()
        assert text == source.text, f"{source.name} was not typed right"
    return [Recorded(t.request, t.outcome == "shown") for t in traces if t.request and t.outcome in ("shown", "empty")]


def _ask(requests: list[FimRequest]) -> list[Reply]:
    return [ask(_inside["engine"], request) for request in requests]


def _counts() -> Counter[str]:
    return Counter(_inside["engine"].counts)


def _close() -> None:
    _inside["engine"].close()


def replay(sides: dict[bool, Side], recorded: list[Recorded], progress: Progress) -> dict[bool, list[Reply]]:
    """Every answer of both sides (by whether they draft), in blocks that alternate."""
    bar = progress.add_task("asking", total=len(recorded))
    replies: dict[bool, list[Reply]] = {drafts: [] for drafts in sides}
    for i in range(0, len(recorded), BLOCK):
        requests = [one.request for one in recorded[i : i + BLOCK]]
        for drafts in (True, False) if i // BLOCK % 2 else (False, True):
            time.sleep(SETTLE)
            replies[drafts] += sides[drafts].ask(requests)
        progress.advance(bar, len(requests))
    return replies


def row(counts: Counter[str], replies: list[Reply], shown: list[bool]) -> dict[str, Any]:
    """One side's figures. A forward is counted whatever it computes: the prompt's too."""
    times = [reply.ms for reply, was in zip(replies, shown, strict=True) if was]
    return {
        "shown": len(times),
        "shown suggestion, ms": report.spread(times),
        "to its first text, ms": report.spread([r.first_ms for r, was in zip(replies, shown, strict=True) if was]),
        "tokens decoded": counts["decoded"],
        "tokens a forward": round(counts["decoded"] / max(1, counts["steps"]), 2),
        "drafted": counts["drafted"],
        "accepted": round(counts["accepted"] / max(1, counts["drafted"]), 3),
    }


def judge(sides: dict[bool, Side], recorded: list[Recorded], replies: dict[bool, list[Reply]], seed: int) -> Verdict:
    """Compares the texts; asks again, with log-probabilities, where they differ and for a sample where they don't."""
    texts = [(on.text, off.text) for on, off in zip(replies[True], replies[False], strict=True)]
    different = [i for i, (on, off) in enumerate(texts) if on != off]
    sample = random.Random(seed).sample(range(len(texts)), min(COMPARED, len(texts)))
    margins, error = list[float](), 0.0
    for i in sorted({*different, *sample}):
        request = attrs.evolve(recorded[i].request, session="", top_logprobs=2)
        on, off = (sides[drafts].ask([request])[0].answer for drafts in (True, False))
        error = max(error, Pair(on, off).difference)
        margins += [margin(off, texts[i][0])] if i in different else []
    excused = sum(found < 2 * error for found in margins)
    reused = sum(r.end.reused for r in replies[True]) / max(1, sum(r.end.prompt for r in replies[True]))
    examples = [texts[i] for i in different][:5]
    return Verdict(len(texts) - len(different), excused, len(different) - excused, 2 * error, reused, examples)


def margin(answer: Answer, other: str) -> float:
    """By how much an answer preferred its token over the next where another text parts from it.

    Infinite where that can't be told: the answer's tokens do not spell its text, or the other text goes on after it.
    """
    spelled = [step[0][0] for step in answer.steps]
    head = "".join(spelled).find(answer.text)  # before it stands what healing held back
    at = next((i for i, (a, b) in enumerate(zip(answer.text, other, strict=False)) if a != b), None)
    place = head + (min(len(answer.text), len(other)) if at is None else at)
    ends = itertools.accumulate(map(len, spelled))
    step = next((step for step, end in zip(answer.steps, ends, strict=True) if end > place), ())
    return step[0][1] - step[1][1] if head >= 0 and len(step) > 1 else float("inf")


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """Both rows as they are printed."""
    shown = Table(title=f"{rows['drafts']['shown']} suggestions that were shown")
    for name in ("", "mean, ms", "p50", "p95", "tokens a forward", "drafts accepted"):
        shown.add_column(name, justify="right" if name else "left")
    for name, figures in rows.items():
        ms = figures["shown suggestion, ms"]
        times = (f"{ms[value]:.1f}" for value in ("mean", "p50", "p95"))
        shown.add_row(name, *times, f"{figures['tokens a forward']}", f"{figures['accepted']:.0%}")
    return shown


def main(
    keystrokes: Annotated[int, typer.Option(help="requests, about")] = 400,
    files: Annotated[list[str] | None, typer.Option(help="names of files, as in benchmarks/sources.py")] = None,
    seed: Annotated[int, typer.Option(help="of the typing")] = 1,
    offline: Annotated[bool, typer.Option(help="only this project's own files")] = False,
    cache: Annotated[Path | None, typer.Option(help="where fetched packages are kept")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
) -> None:
    """Measures what drafts bring."""
    console, head, quiet = Console(), report.header("benchmarks.drafts"), Quiet()
    chosen, problems = sources.load(files or [], cache or sources.default_cache(), offline=offline)
    for problem in problems:
        console.print(f"[yellow]{problem}")
    typed = Side(drafts=True)
    recorded = typed.record(chosen, keystrokes, seed)
    typed.close()
    sides = {drafts: Side(drafts) for drafts in (True, False)}
    before = {drafts: side.counts() for drafts, side in sides.items()}
    with Progress(console=console, transient=True) as progress:
        replies = replay(sides, recorded, progress)
    counted = {drafts: side.counts() - before[drafts] for drafts, side in sides.items()}
    shown = [one.shown for one in recorded]
    rows = {
        name: row(counted[drafts], replies[drafts], shown) for name, drafts in (("drafts", True), ("no drafts", False))
    }
    verdict = judge(sides, recorded, replies, seed)
    for side in sides.values():
        side.close()
    quiet.finish()
    means = [rows[name]["shown suggestion, ms"]["mean"] for name in ("no drafts", "drafts")]
    ratio = round(means[0] / max(0.001, means[1]), 2)
    passed = ratio >= TARGET and verdict.passed
    console.print(table(rows))
    console.print(
        f"{len(recorded)} answers: {verdict.exact} equal, {verdict.excused} differ within the measured error "
        f"({verdict.error:.1e} nats), {verdict.wrong} wrong; the machine: {quiet}"
    )
    color = "green" if passed else "red"
    console.print(f"[{color}]a shown suggestion comes {ratio:.2f} times as fast[/] (≥ {TARGET} wanted)")
    if out:
        settings = {"keystrokes": keystrokes, "seed": seed, "block": BLOCK, "model": "starter"}
        named = [{"name": file.name, "from": file.origin, "sha256": file.sha256} for file in chosen]
        found = {"ratio": ratio, "rows": rows, "check": attrs.asdict(verdict), "passed": passed}
        report.write(out, head | {"settings": settings, "files": named, "machine idle": quiet.figures} | found)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    typer.run(main)
