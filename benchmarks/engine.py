"""The engine against other engines, on the same prompts, side by side in one run.

    python -m benchmarks.engine [--repeats N] [--quick] [--anyway] [--json OUT]

Compared are this project's engine as a worker runs it, with and without drafts; `generate` of the transformers library
in float32 over the same weights; and llama.cpp on a random 8-bit model of this size in its favourite shape, since it
can't load this one (pip install xllamacpp gguf; nothing else here needs them), with and without flash attention: each
ratio is over the faster of the two. Each has a process of its own and two
threads. They take turns, document by document, so that a drift of the machine hits all alike, idle and beside one busy
processor.

Prompts are this project's own source, half of it behind the hole, each text used once. Cold: a new prompt to its first
token. Keystrokes: the prompt has grown by one to three tokens. A line is exactly 12 tokens; keystrokes at which this
project's model ends its answer earlier are left out for everybody (the others are kept from ending).

Exit status 1 if a ratio is missed, 2 if the machine is not idle at the start (with --anyway that is only noted).
"""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import attrs
import psutil
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import engine_sharing, llama_standin, report
from benchmarks.contenders import FIMBLE, FLASH, LLAMA, PLAIN, THREADS, TRANSFORMERS, Apart, spin
from benchmarks.engine_work import Document, Library, own_texts
from benchmarks.quiet import IDLE, Quiet

SIZES = (600, 1200)
LOADS = ("idle", "busy")
KEYS, MISSING, LINE = 12, 120, 12
"""Keystrokes a document, tokens missing from its hole, tokens of a line."""
COLD, FIRST, ROW_LINE = "new prompt, 1 token", "keystroke, 1 token", f"keystroke, {LINE} tokens"

Case = tuple[str, str, int, str]
"""Engine, what is timed, tokens of the prompt, load."""
Figures = dict[str, float]
"""Of one request: `ms`, tokens `decoded` and `prefilled`, and `own ms` if the engine times itself."""


@attrs.frozen
class Ratio:
    """One figure that is wanted above or below a limit."""

    name: str
    value: float
    limit: float
    at_least: bool = False
    goal: float | None = None

    @property
    def met(self) -> bool:
        """Whether the limit is kept; a figure that was not measured is missed."""
        return self.value > 0 and (self.value >= self.limit if self.at_least else self.value <= self.limit)

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        goal = f", goal {self.goal:g}" if self.goal else ""
        return f"{self.name}: {self.value:.2f} ({sign} {self.limit:g} wanted{goal})"


def measure(names: list[str], repeats: int, keys: int, seed: int, progress: Progress) -> dict[Case, list[Figures]]:
    """The figures of every case."""
    library, samples = Library(own_texts(), seed), dict[Case, list[Figures]]()
    bar = progress.add_task("loading the engines", total=repeats * len(SIZES) * len(LOADS))
    engines = [Apart(name) for name in names]
    busy = get_context("spawn").Process(target=spin, daemon=True)
    busy.start()
    spinning = psutil.Process(busy.pid)
    spinning.suspend()
    for turn, size, load in itertools.product(range(repeats), SIZES, LOADS):
        progress.update(bar, description=f"{size} tokens, {load}")
        if load == "busy":
            spinning.resume()
        document, other = (library.document(size, keys, MISSING) for _ in range(2))
        order = engines[turn % len(engines) :] + engines[: turn % len(engines)]
        timed = {engine.name: type_into(engine, document, other) for engine in order}
        for (name, what), figures in comparable(timed).items():
            samples.setdefault((name, what, size, load), []).extend(figures)
        spinning.suspend()
        progress.advance(bar)
    for engine in engines:
        engine.close()
    busy.kill()
    busy.join()
    return samples


def type_into(engine: Apart, document: Document, other: Document) -> list[tuple[str, Figures]]:
    """Asks for a new prompt, then after every keystroke for a token and for a line in turn."""
    engine.settle(other.prompt)
    found = [(COLD, engine.complete(document.prompt, 1))]
    for i, key in enumerate(document.keys):
        found.append((ROW_LINE, engine.complete(key, LINE)) if i % 2 else (FIRST, engine.complete(key, 1)))
    return found


def comparable(timed: dict[str, list[tuple[str, Figures]]]) -> dict[tuple[str, str], list[Figures]]:
    """The figures by engine and row, without the lines that some engine ended early."""
    kept: dict[tuple[str, str], list[Figures]] = {}
    for samples in zip(*timed.values(), strict=True):
        what = samples[0][0]
        if what == ROW_LINE and any(figures["decoded"] != LINE for _, figures in samples):
            continue
        for name, (_, figures) in zip(timed, samples, strict=True):
            kept.setdefault((name, what), []).append(figures)
    return kept


def ratios(samples: dict[Case, list[Figures]], shared: dict[str, Any]) -> list[Ratio]:
    """The medians that the project is held to."""

    def p50(*case: Any) -> float:
        return report.percentile([figures["ms"] for figures in samples.get(case, [])], 0.5)

    def over(a: float, b: float) -> float:
        return a / b if b else 0.0

    found: list[Ratio] = []
    for size in SIZES:
        line, cold = p50(FIMBLE, ROW_LINE, size, "idle"), p50(FIMBLE, COLD, size, "idle")
        at = f"{size} tokens"
        theirs, busy = p50(TRANSFORMERS, ROW_LINE, size, "idle"), p50(FIMBLE, ROW_LINE, size, "busy")
        found.append(Ratio(f"line, times as fast as transformers, {at}", over(theirs, line), 4.0, at_least=True))
        if any(name == LLAMA for name, *_ in samples):
            their_line, their_cold = (
                min(filter(None, (p50(name, what, size, "idle") for name in (LLAMA, FLASH))), default=0.0)
                for what in (ROW_LINE, COLD)
            )
            found.append(Ratio(f"line, over llama.cpp, {at}", over(line, their_line), 1.0, goal=0.6))
            found.append(Ratio(f"cold prompt, over llama.cpp, {at}", over(cold, their_cold), 0.5))
        found.append(Ratio(f"line beside a busy processor, over idle, {at}", over(busy, line), 1.5))
    found.append(Ratio("tokens/s of two users, over one", shared["two users"]["ratio"], 1.5, at_least=True))
    return found


def spread(figures: list[Figures]) -> dict[str, dict[str, float]]:
    """The spread of each figure."""
    names = dict.fromkeys(["ms", *(name for one in figures for name in one)])
    return {name: report.spread([one[name] for one in figures if name in one]) for name in names}


def digits(ms: dict[str, float]) -> int:
    """Behind the point, as far as they mean something."""
    return 0 if ms["p95"] >= 100 else 1


def table(samples: dict[Case, list[Figures]], names: list[str]) -> Table:
    """Every case as it is printed."""
    shown = Table(title=f"ms, p50 / p95, {THREADS} threads each")
    shown.add_column("")
    for name in names:
        shown.add_column(name, justify="right")
    for what, size, load in itertools.product((COLD, FIRST, ROW_LINE), SIZES, LOADS):
        spreads = (spread(samples.get((name, what, size, load), []))["ms"] for name in names)
        cells = (f"{ms['p50']:.{digits(ms)}f} / {ms['p95']:.{digits(ms)}f}" for ms in spreads)
        shown.add_row(f"{what}\n{size} tokens, {load}", *cells)
    return shown


def main(
    repeats: Annotated[int, typer.Option(help="documents of each size, idle and busy")] = 6,
    quick: Annotated[bool, typer.Option(help="one document and few keys: does it work at all?")] = False,
    anyway: Annotated[bool, typer.Option(help="measure on a machine that is not idle")] = False,
    seed: Annotated[int, typer.Option(help="of the prompts")] = 1,
    out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
) -> None:
    """Compares engines."""
    console, head = Console(), report.header("benchmarks.engine")
    quiet = Quiet()
    if not quiet.idle:
        console.print(f"[yellow]the machine is not idle: {quiet}")
        if not (anyway or quick):
            console.print(f"[red]end other programs (below {IDLE:.0%} is wanted), or measure with --anyway")
            raise typer.Exit(2)
    names = [FIMBLE, PLAIN, TRANSFORMERS, LLAMA, FLASH]
    if lacking := llama_standin.missing():
        console.print(f"[yellow]{lacking}")
        names = names[:3]
    with Progress(console=console, transient=True) as progress:
        samples = measure(names, 1 if quick else repeats, 4 if quick else KEYS, seed, progress)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        shared = apart.submit(engine_sharing.measure, *((1, 10) if quick else (6, 200)), seed).result()
    quiet.finish()
    found = ratios(samples, shared)
    console.print(table(samples, names))
    for title, figures in shared.items():
        console.print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in figures.items()), highlight=False)
    console.print(f"the machine: {quiet}")
    for ratio in found:
        console.print(f"{'[green]met' if ratio.met else '[red]missed'}[/]: {ratio}", highlight=False)
    passed = all(ratio.met for ratio in found)
    if out:
        rows = [
            dict(zip(("engine", "row", "tokens", "load"), case, strict=True)) | {"n": len(figures)} | spread(figures)
            for case, figures in samples.items()
        ]
        versions = head["versions"] | llama_standin.versions()
        result = {"machine idle": quiet.figures, "rows": rows, **shared, "passed": passed}
        kept = [attrs.asdict(ratio) | {"met": ratio.met} for ratio in found]
        report.write(out, head | {"versions": versions} | result | {"ratios": kept})
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    typer.run(main)
