"""What a keystroke costs: replays the typing of real files through the real language server and worker.

    python -m benchmarks.keystrokes [--keystrokes N] [--files NAME …] [--json OUT] [--check N] [--quick] [--offline]

Four servers share one worker, started for this run: the hole at the cursor without and with the prefix cache and with
token healing too, and the anchored hole, healed and cached. All type the same keys, file by file, and each key waits
for the answer to the last (but for a few typed in quick succession). The anchored server goes first and what it shows
decides what is accepted; where the next one finds a prefix that is cached already, the comparison errs against it.

Inside a word a keystroke changes no healed prompt, whatever the layout: the word is held back. So the anchored row is
compared with the plain row over all keystrokes, and with the healed one over those that gave the model something new.
Exit status 1: fewer than 80 % of the requests answered with text, an anchored row that is less than 5 times as fast as
the plain cached one, or an answer that differs with the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import attrs
import psutil
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import report, sources
from benchmarks.cache_check import Verdict, check
from benchmarks.own_worker import complaints, own_state, worker
from benchmarks.player import Asked, Player
from benchmarks.sources import SourceFile
from benchmarks.typing_script import Script
from inference import starter
from inference.tokens import Tokens, clean
from inference.wire import FimRequest

# psm is what other clients send: the hole at the cursor, the text before it as it stands.
ROWS: dict[str, dict[str, Any]] = {
    "psm without cache": {"layout": "psm", "healing": False, "prefixCache": False},
    "psm with cache": {"layout": "psm", "healing": False, "prefixCache": True},
    "psm healed with cache": {"layout": "psm", "healing": True, "prefixCache": True},
    "anchored with cache": {"layout": "anchored", "healing": True, "prefixCache": True},
}
MODEL_ONLY = {"completionCache": False, "confidence": 0, "maxDelayMs": 0}
"""What is measured here is what a question to the model costs; `benchmarks.typing` measures how many are not asked."""
BASE, HEALED, LEAD = "psm with cache", "psm healed with cache", "anchored with cache"
PREFIX_TOKENS, SUFFIX_TOKENS = 740, 680
LARGE, LARGE_SUFFIX = 1000, 500
"""Tokens of the prompts, and of the suffixes in them, that the headline is about."""
MOST_PREFILLED = 16
"""Tokens prefilled at a keystroke beyond which the cache has missed something."""
LEAST_SHOWN, TARGET = 0.8, 5.0


@attrs.frozen
class Options:
    """What was asked for."""

    keystrokes: int
    files: list[str]
    check: int
    seed: int
    cache: Path
    offline: bool


@attrs.define
class Outcome:
    """Everything that was seen."""

    files: list[SourceFile]
    players: dict[str, Player]
    holes: dict[str, int]
    worker_mb: int = 0
    """The worker's memory after the replay."""
    verdict: Verdict | None = None
    complaints: list[str] = attrs.field(factory=list)


def is_large(asked: Asked, tokens: Tokens) -> bool:
    """Whether a request's prompt is of the size that the headline is about."""
    trace = asked.trace
    if trace is None or trace.end is None or trace.request is None or trace.end.prompt < LARGE:
        return False
    return len(tokens.encode_stable(clean(trace.request.suffix))) >= LARGE_SUFFIX


def news(asked: list[Asked], tokens: Tokens) -> list[Asked]:
    """The requests whose prompt, less what is held back, is not that of the request before."""
    markers, before, found = tokens.markers(), list[int](), list[Asked]()
    for one in asked:
        if one.trace and one.trace.request:
            ids = tokens.prompt(one.trace.request, markers).ids
            found += [one] if ids != before else []
            before = ids
    return found


def row(asked: list[Asked], tokens: Tokens) -> dict[str, Any]:
    """One row's figures, of the requests that were not superseded."""
    counted = [a for a in asked if not a.superseded]
    ended = [(a, a.trace.request, a.trace.end) for a in counted if a.trace and a.trace.request and a.trace.end]
    big = [a for a in counted if is_large(a, tokens)]
    new = [a for a in news(asked, tokens) if a in big]
    prompt = sum(end.prompt for _, _, end in ended)
    return {
        "requests": len(asked),
        "superseded": len(asked) - len(counted),
        "shown": round(sum(a.answer is not None for a in counted) / max(1, len(counted)), 4),
        "large prompts": len(big),
        "large prompts that are new": len(new),
        "first token, ms": firsts(counted),
        "first token of large prompts, ms": firsts(big),
        "first token of large prompts that are new, ms": firsts(new),
        "answer, ms": report.spread([a.ms for a in counted]),
        "server overhead, ms": report.spread([a.ms - end.timing.total for a, _, end in ended], 2),
        "prompt tokens": report.spread([end.prompt for _, _, end in ended]),
        "prefilled tokens": report.spread([end.prefilled for _, _, end in ended]),
        "decoded tokens": report.spread([end.decoded for _, _, end in ended]),
        "cache hits": round(sum(end.reused for _, _, end in ended) / max(1, prompt), 4),
        f"prefilled more than {MOST_PREFILLED}": sum(end.prefilled > MOST_PREFILLED for _, _, end in ended),
        "outcomes": dict(Counter(a.trace.outcome if a.trace else "superseded" for a in asked)),
        "ends": dict(Counter(end.reason for _, _, end in ended)),
        "by file": {
            name: {
                "requests": len(of),
                "shown": round(sum(a.answer is not None for a in of) / len(of), 3),
                "first token p50, ms": firsts(of)["p50"],
            }
            for name in dict.fromkeys(a.file for a in counted)
            if (of := [a for a in counted if a.file == name])
        },
    }


def firsts(asked: list[Asked]) -> dict[str, float]:
    """The spread of the times to the first token."""
    return report.spread([ms for one in asked if (ms := one.first_ms) is not None])


async def replay(options: Options, files: list[SourceFile], progress: Progress) -> Outcome:
    """Types every file once a row, then checks a sample of the anchored row's answers."""
    bar = progress.add_task("loading the model", total=None)
    async with worker() as backend, contextlib.AsyncExitStack() as stack:
        errors = (Path(os.environ["XDG_STATE_HOME"]) / "servers.log").open("w+b")
        stack.callback(errors.close)
        players: dict[str, Player] = {}
        for name, settings in ROWS.items():
            context = {"context": {"prefixTokens": PREFIX_TOKENS, "suffixTokens": SUFFIX_TOKENS}}
            players[name] = await Player.start(name, settings | context | MODEL_ONLY, errors)
            stack.push_async_callback(players[name].close)
        outcome = Outcome(files, players, {})
        progress.update(bar, total=len(files) * len(ROWS))
        for source in files:
            await _type(source, options, outcome, lambda text: progress.update(bar, description=text))
            progress.advance(bar, len(ROWS))
        if health := backend.ready:
            outcome.worker_mb = psutil.Process(health.pid).memory_info().rss // 2**20
        chosen = sample(players[LEAD].asked, options)
        progress.update(bar, description="checking answers", total=len(chosen), completed=0)
        outcome.verdict = await check(backend, chosen, lambda: progress.advance(bar))
        errors.seek(0)
        outcome.complaints = [*complaints(), *errors.read().decode("utf-8", "replace").splitlines()]
    return outcome


async def _type(source: SourceFile, options: Options, outcome: Outcome, say: Any) -> None:
    keys = max(4, options.keystrokes // len(outcome.files))
    script = Script(source.text, f"{options.seed} {source.name}", keys)
    outcome.holes[source.name] = len(script.regions)
    folder = Path(os.environ["XDG_STATE_HOME"])
    say(f"{source.name}: {LEAD}")
    steps = await outcome.players[LEAD].lead(source, script.holed, script.steps(), folder)
    for name, player in outcome.players.items():
        if name != LEAD:
            say(f"{source.name}: {name}")
            text = await player.repeat(source, script.holed, steps, folder)
            assert text == source.text, f"{source.name} was not typed right"


def sample(asked: list[Asked], options: Options) -> list[tuple[FimRequest | None, FimRequest]]:
    """Requests to check, in the order of typing, each with the one before it in the same file."""
    made: list[tuple[str, FimRequest]] = [
        (a.file, a.trace.request) for a in asked if a.trace and a.trace.request and not a.superseded
    ]
    places = random.Random(options.seed).sample(range(len(made)), min(options.check, len(made)))
    return [(made[i - 1][1] if i and made[i - 1][0] == made[i][0] else None, made[i][1]) for i in sorted(places)]


def summary(outcome: Outcome) -> tuple[dict[str, Any], list[str]]:
    """The figures of the run, and what is wrong with them."""
    tokens = Tokens(starter.FOLDER / "tokenizer.json")
    rows = {name: row(player.asked, tokens) for name, player in outcome.players.items()}
    verdict = outcome.verdict
    assert verdict
    wrong = [
        f"{row}: {figures['shown']:.0%} of the requests were answered with text; {LEAST_SHOWN:.0%} are wanted"
        for row, figures in rows.items()
        if figures["shown"] < LEAST_SHOWN
    ]
    if not verdict.passed:
        compared = verdict.exact + verdict.excused + verdict.wrong
        wrong.append(f"of {compared} cached answers {verdict.wrong} are wrong and {verdict.excused} differ")
    headlines = [
        headline(rows, BASE, "large prompts"),
        headline(rows, HEALED, "large prompts"),
        headline(rows, HEALED, "large prompts that are new"),
    ]
    if headlines[0]["ratio"] < TARGET:
        wrong.append(
            f"to the first token {LEAD} is {headlines[0]['ratio']} times as fast as {BASE}; {TARGET:g} are wanted"
        )
    found = {
        "headline": headlines,
        "check": attrs.asdict(verdict),
        "rows": rows,
        "worker, MB": outcome.worker_mb,
        "logged": digest(outcome.complaints),
    }
    return found, wrong


def headline(rows: dict[str, dict[str, Any]], base_name: str, which: str) -> dict[str, Any]:
    """The medians to the first token that are compared, and how they compare."""
    base, lead = (rows[name][f"first token of {which}, ms"] for name in (base_name, LEAD))
    return {
        "what": f"median ms to the first token, {which} (≥ {LARGE} tokens, ≥ {LARGE_SUFFIX} of them suffix)",
        "against": base_name,
        "ms there": base["p50"],
        "ms": lead["p50"],
        "ratio": round(base["p50"] / max(0.001, lead["p50"]), 2),
        "ratio of the means": round(base["mean"] / max(0.001, lead["mean"]), 2),
    }


def digest(lines: list[str]) -> list[str]:
    """What was logged, each kind of line once with its count, without places and numbers."""
    kinds = Counter(re.sub(r"file://[^'\s]*|\d+", "…", line)[:200] for line in lines)
    return [f"{count} × {line}" for line, count in kinds.most_common(20)]


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """The rows as they are printed."""
    shown = Table(title="a keystroke, p50 / p95 / p99")
    shown.add_column("")
    for name in rows:
        shown.add_column(name, justify="right")

    def line(title: str, name: str, digits: int = 0) -> None:
        cells = (figures[name] for figures in rows.values())
        shown.add_row(title, *(" / ".join(f"{cell[p]:.{digits}f}" for p in ("p50", "p95", "p99")) for cell in cells))

    shown.add_row("requests (superseded)", *(f"{r['requests']} ({r['superseded']})" for r in rows.values()))
    shown.add_row("answered with text", *(f"{r['shown']:.1%}" for r in rows.values()))
    line("first token, ms", "first token, ms")
    line("answer, ms", "answer, ms")
    line("server overhead, ms", "server overhead, ms", 1)
    line("prompt, tokens", "prompt tokens")
    line("prefilled, tokens", "prefilled tokens")
    line("decoded, tokens", "decoded tokens")
    shown.add_row("cache hits", *(f"{r['cache hits']:.1%}" for r in rows.values()))
    return shown


def main(
    keystrokes: Annotated[int, typer.Option(help="requests a row, about")] = 70,
    files: Annotated[list[str] | None, typer.Option(help="names of files, as in benchmarks/sources.py")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
    check_: Annotated[int, typer.Option("--check", help="answers compared with and without the cache")] = 50,
    seed: Annotated[int, typer.Option(help="of the typing and the sample")] = 1,
    quick: Annotated[bool, typer.Option(help="two files and few keys: does it work at all?")] = False,
    offline: Annotated[bool, typer.Option(help="only this project's own files")] = False,
    cache: Annotated[Path | None, typer.Option(help="where fetched packages are kept")] = None,
) -> None:
    """Measures what a keystroke costs."""
    console = Console()
    head = report.header("benchmarks.keystrokes")
    if quick:
        keystrokes, check_, files = 16, 8, files or ["parser.py", "documents.py"]
    options = Options(keystrokes, files or [], check_, seed, cache or sources.default_cache(), offline)
    try:
        chosen, problems = sources.load(options.files, options.cache, offline=offline)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    for problem in problems:
        console.print(f"[yellow]{problem}")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with own_state(), Progress(*columns, console=console, transient=True) as progress:
        outcome = asyncio.run(replay(options, chosen, progress))
    found, wrong = summary(outcome)
    show(console, found, wrong)
    if out:
        report.write(out, head | describe(options, outcome, problems) | found | {"passed": not wrong})
    sys.exit(1 if wrong else 0)


def show(console: Console, found: dict[str, Any], wrong: list[str]) -> None:
    """Prints the result."""
    console.print(table(found["rows"]))
    for line in found["headline"]:
        verdict = "[green]" if line["ratio"] >= TARGET else "[yellow]"
        console.print(
            f"{line['what']}: {line['ms there']:.0f} {line['against']}, {line['ms']:.0f} {LEAD}: "
            f"{verdict}{line['ratio']:.1f} times as fast[/] (of the means {line['ratio of the means']:.1f})"
        )
    verdict = found["check"]
    console.print(
        f"with and without the cache: {verdict['exact']} answers equal, {verdict['excused']} differ within the "
        f"measured error ({verdict['error']:.1e} nats), {verdict['wrong']} wrong; {verdict['reused']:.1%} was reused"
    )
    for line in found["logged"]:
        console.print(f"[yellow]logged: {line}", highlight=False)
    for line in wrong:
        console.print(f"[red]failed: {line}")


def describe(options: Options, outcome: Outcome, problems: list[str]) -> dict[str, Any]:
    """The settings and the files of the run."""
    files = [
        {"name": f.name, "language": f.language, "from": f.origin, "sha256": f.sha256, "holes": outcome.holes[f.name]}
        for f in outcome.files
    ]
    settings = {"keystrokes": options.keystrokes, "seed": options.seed, "check": options.check, "model": "starter"}
    context = {"prefixTokens": PREFIX_TOKENS, "suffixTokens": SUFFIX_TOKENS}
    kinds = dict(Counter(asked.kind for asked in outcome.players[LEAD].asked))
    return {"settings": settings | {"context": context, "rows": ROWS}, "files": files, "left out": problems} | {
        "requests by what was typed": kinds
    }


if __name__ == "__main__":
    typer.run(main)
