"""Whether the engine stays right and small: replayed typing without pauses, in two documents at once, for minutes.

    python -m benchmarks.soak [--minutes M] [--offline] [--json OUT]

Two typists at a time type holes of many files through one engine; one request in ten is cancelled on its way, others
are superseded by the next key. When both have finished, the prefix cache's invariants are checked and 5 % of the
answers, all greedy, are computed anew without the cache, in the same process.

Exit status 1: the memory of the last quarter of the time is not within 5 % of the second quarter's, a broken invariant,
a request that failed, a text that was not typed right, or an answer that differs where the model preferred its token by
more than twice the largest difference seen between log-probabilities (or more than 0.5 % that differ at all).
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Any

import attrs
import psutil
import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks import report, sources
from benchmarks.cache_check import Answer, Pair, Verdict
from benchmarks.engine_client import ask, load_starter, start
from benchmarks.sources import ROOT, SourceFile
from benchmarks.typing_script import Script
from benchmarks.typist import EngineBackend, Typist
from inference.engine import Engine
from inference.weights import Loaded
from inference.wire import End, FimRequest, Piece, Stops
from lsp_server.completion import Completer
from lsp_server.request import Trace
from lsp_server.settings import Settings

CHECKED, CANCELLED, MOST_PATIENCE = 0.05, 0.1, 0.15
"""Share of the answers computed anew, of the requests cancelled, and after how many seconds at most."""
FILLING = 3000
"""Characters of each text that fills the cache before the time begins."""
KEYSTROKES = 30
"""Of each typist in one round."""
GROWTH = 0.05
"""By how much the memory may differ."""
SECONDS_FREE = 10.0
"""Within which the engine must have nothing in hand once both typists have ended."""


class Sampling(EngineBackend):
    """Keeps some of the answers, with the likeliest tokens at each step."""

    def __init__(self, engine: Engine, loaded: Loaded, chance: random.Random):
        super().__init__(engine, loaded)
        self._chance = chance
        self.kept: list[tuple[FimRequest, Answer]] = []

    async def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        """See `EngineBackend`."""
        sampled = request.priority == "interactive" and self._chance.random() < CHECKED
        asked = attrs.evolve(request, top_logprobs=2) if sampled else request
        text, steps = "", list[tuple[tuple[str, float], ...]]()
        async for message in super().fim(asked):
            if isinstance(message, Piece):
                text += message.text
                steps += [message.top] if message.top else []
            elif sampled and message.reason not in ("superseded", "cancelled"):
                self.kept.append((asked, Answer(text, steps, message)))
            yield message


@attrs.define
class Tally:
    """The comparison so far, in a few numbers: what is kept must not grow with the time."""

    exact: int = 0
    difference: float = 0.0
    prompt: int = 0
    reused: int = 0
    margins: list[float] = attrs.field(factory=list)
    examples: list[tuple[str, str]] = attrs.field(factory=list)

    def add(self, pair: Pair) -> None:
        """Counts one answer."""
        self.difference = max(self.difference, pair.difference)
        self.prompt += pair.cached.end.prompt
        self.reused += pair.cached.end.reused
        if pair.cached.text == pair.fresh.text:
            self.exact += 1
            return
        self.margins.append(pair.margin)
        self.examples = [*self.examples, (pair.cached.text, pair.fresh.text)][:5]

    def verdict(self) -> Verdict:
        """The count, as `benchmarks.cache_check` makes it."""
        error = 2 * self.difference
        excused = sum(margin < error for margin in self.margins)
        reused = self.reused / max(1, self.prompt)
        return Verdict(self.exact, excused, len(self.margins) - excused, error, reused, self.examples)


@attrs.define
class Outcome:
    """Everything that was seen."""

    tally: Tally = attrs.field(factory=Tally)
    outcomes: Counter[str] = attrs.field(factory=Counter)
    memory: list[tuple[float, float]] = attrs.field(factory=list)
    """Seconds since the start, MB, once a second."""
    broken: list[str] = attrs.field(factory=list)
    rounds: int = 0
    checks: int = 0
    """Of the cache's invariants."""


def quarters(memory: list[tuple[float, float]]) -> list[float]:
    """The mean of each quarter of the time; 0 for one without a sample."""
    last = memory[-1][0] if memory else 0.0
    parts: list[list[float]] = [[], [], [], []]
    for at, mb in memory:
        parts[min(3, int(4 * at / last)) if last else 0].append(mb)
    return [round(sum(part) / len(part), 1) if part else 0.0 for part in parts]


def problems(outcome: Outcome) -> list[str]:
    """What is wrong with a run."""
    wrong, verdict, mean = list(outcome.broken), outcome.tally.verdict(), quarters(outcome.memory)
    if not mean[1] or abs(mean[3] / mean[1] - 1) > GROWTH:
        wrong.append(f"memory by quarters is {mean} MB: the last is not within {GROWTH:.0%} of the second")
    if failed := {name: n for name, n in outcome.outcomes.items() if name not in ("shown", "empty", "superseded")}:
        wrong.append(f"requests failed: {failed}")
    if not verdict.exact:
        wrong.append("no answer was checked; let it run for longer")
    if not verdict.passed:
        wrong.append(f"of the answers checked {verdict.wrong} are wrong and {verdict.excused} differ")
    return wrong


async def soak(loaded: Loaded, files: list[SourceFile], seconds: float, seed: int, progress: Progress) -> Outcome:
    """Types until the time is over."""
    outcome, chance = Outcome(), random.Random(seed)
    engine = start(loaded)
    backend = Sampling(engine, loaded, chance)

    def count(trace: Trace) -> None:
        outcome.outcomes[trace.outcome] += 1

    def patience() -> float | None:
        return chance.uniform(0, MOST_PATIENCE) if chance.random() < CANCELLED else None

    await _fill(engine, loaded, files, chance)
    began = time.monotonic()
    completer = Completer(backend, Settings(completion_cache=False, confidence=0.0, max_delay_ms=0), count)
    watching = asyncio.ensure_future(_watch(outcome, began, seconds, progress))
    while time.monotonic() - began < seconds and not outcome.broken:
        typists = [
            (source, Typist(completer, source, script, session=f"{place}", patience=patience))
            for place, source in enumerate(chance.choices(files, k=2))
            for script in [Script(source.text, f"{seed} {outcome.rounds} {place}", KEYSTROKES)]
        ]
        texts = await asyncio.gather(*(typist.type() for _, typist in typists))
        for (source, _), text in zip(typists, texts, strict=True):
            outcome.broken += [f"{source.name} was not typed right"] if text != source.text else []
        await _inspect(engine, loaded, backend, outcome)
        outcome.rounds += 1
    watching.cancel()
    engine.close()
    return outcome


async def _fill(engine: Engine, loaded: Loaded, files: list[SourceFile], chance: random.Random) -> None:
    """Fills the pool of KV, whose memory is taken when it is first written."""
    while not loaded.model.figures().get("evicted", 1):
        text = chance.choice(files).text
        at = chance.randrange(max(1, len(text) - FILLING))
        await asyncio.to_thread(ask, engine, FimRequest(text[at : at + FILLING], stops=Stops(max_tokens=0)))


async def _watch(outcome: Outcome, began: float, seconds: float, progress: Progress) -> None:
    """Notes the memory."""
    process, bar = psutil.Process(), progress.add_task("typing", total=seconds)
    while True:
        at = time.monotonic() - began
        outcome.memory.append((round(at, 1), round(process.memory_info().rss / 2**20, 1)))
        progress.update(bar, completed=min(at, seconds))
        await asyncio.sleep(1)


async def _inspect(engine: Engine, loaded: Loaded, backend: Sampling, outcome: Outcome) -> None:
    """With nothing in hand: the cache's invariants, and the answers that were kept."""
    waited = time.monotonic()
    while engine.running:
        if time.monotonic() - waited > SECONDS_FREE:
            outcome.broken.append(f"nobody waits for an answer, but the engine still has {engine.running} in hand")
            return
        await asyncio.sleep(0.005)
    if check := getattr(loaded.model, "check", None):
        try:
            check()
        except AssertionError as error:
            outcome.broken.append(f"an invariant of the cache is broken: {error}")
        outcome.checks += 1
    for request, cached in backend.kept:
        fresh = await asyncio.to_thread(ask, engine, attrs.evolve(request, session="", reuse=False))
        outcome.tally.add(Pair(cached, fresh.answer))
    backend.kept.clear()


def own_files() -> list[SourceFile]:
    """This project's Python files of some length."""
    paths = [path for folder in ("inference", "lsp_server", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    texts = {path.name: path.read_text("utf-8") for path in sorted(paths)}
    return [SourceFile(name, "python", text, "this project", "") for name, text in texts.items() if len(text) > 3000]


def main(
    minutes: Annotated[float, typer.Option(help="how long to type")] = 30.0,
    seed: Annotated[int, typer.Option(help="of the typing")] = 1,
    offline: Annotated[bool, typer.Option(help="only this project's own files")] = False,
    cache: Annotated[Path | None, typer.Option(help="where fetched packages are kept")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
) -> None:
    """Types for long."""
    console, head = Console(), report.header("benchmarks.soak")
    files, left_out = sources.load([], cache or sources.default_cache(), offline=offline)
    for problem in left_out:
        console.print(f"[yellow]{problem}")
    files += own_files()
    loaded = load_starter()
    with Progress(console=console, transient=True) as progress:
        outcome = asyncio.run(soak(loaded, files, minutes * 60, seed, progress))
    found, wrong = summary(outcome), problems(outcome)
    for name, value in found.items():
        console.print(f"{name}: {value}", highlight=False)
    for line in wrong:
        console.print(f"[red]failed: {line}")
    if out:
        kept = outcome.memory[:: max(1, len(outcome.memory) // 200)]
        settings = {"minutes": minutes, "seed": seed, "files": len(files), "model": "starter"}
        report.write(out, head | {"settings": settings, "memory, s and MB": kept} | found | {"failed": wrong})
    sys.exit(1 if wrong else 0)


def summary(outcome: Outcome) -> dict[str, Any]:
    """The figures."""
    return {
        "rounds": outcome.rounds,
        "requests": dict(outcome.outcomes),
        "memory by quarters, MB": quarters(outcome.memory),
        "invariants checked": outcome.checks,
        "answers checked": attrs.asdict(outcome.tally.verdict()),
    }


if __name__ == "__main__":
    typer.run(main)
