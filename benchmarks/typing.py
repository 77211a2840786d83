"""How many keystrokes are answered without the model: somebody types real files, key after key, at a human rhythm.

    python -m benchmarks.typing [--keystrokes N] [--files NAME …] [--json OUT] [--offline]

Real server and worker. Two rows: one that types every character itself, and one that accepts each suggestion which is
exactly what comes next. The next key comes when it comes, answered or not. Then a file of 10,000 lines: what an answer
that needs no model takes there from request to answer, and for how long at a time parsing holds the event loop.
Exit status 1: what is asked of the figures below is missed.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import report, sources
from benchmarks.own_worker import own_state, worker
from benchmarks.player import Asked, Player
from benchmarks.sources import SourceFile
from benchmarks.typing_script import Script
from lsp_server.documents import Document
from lsp_server.session import PARSE_SLICE, Session

FREE = ("suggestion", "cache")
"""Sources of answers that no model was waited for."""
KEY_S, SPREAD_S = 0.16, 0.06
"""Mean and deviation of the time between keys: about 75 words a minute."""
LINES = 6
"""Written at one place before the user goes on to another."""
LONG = 10_000
"""Lines."""
LEAST_FREE, MOST_MS, LEAST_NEXT = 0.6, 5.0, 0.5
MOST_LONG_P50, MOST_LONG_P95, MOST_PARSING = 5.0, 10.0, 10.0


def rhythm(seed: int) -> Callable[[], float]:
    """Seconds to the next key."""
    chance = random.Random(seed)
    return lambda: max(0.04, chance.gauss(KEY_S, SPREAD_S))


def is_free(one: Asked) -> bool:
    """Whether it was answered with text, without the model."""
    return one.answer is not None and one.trace is not None and one.trace.source in FREE


def row(asked: list[Asked]) -> dict[str, Any]:
    """One row's figures."""
    free = [one for one in asked if is_free(one)]
    modelled = [one for one in asked if one.answer is not None and not is_free(one)]
    after = followers(asked)
    return {
        "keystrokes": len(asked),
        "answered without the model": round(len(free) / max(1, len(asked)), 4),
        "answered with text": round((len(free) + len(modelled)) / max(1, len(asked)), 4),
        "without the model, ms": report.spread([one.ms for one in free], 2),
        "by the model, ms": report.spread([one.ms for one in modelled]),
        "accepted": len(after),
        "next suggestion there without a wait": round(sum(map(is_free, after)) / max(1, len(after)), 4),
        "sources": dict(Counter(f"{one.trace.source} {one.trace.outcome}" if one.trace else "-" for one in asked)),
    }


def followers(asked: list[Asked]) -> list[Asked]:
    """For each acceptance the first request after it that is answered with text, before the next acceptance.

    After a finished line there is nothing to show until the next one begins; where nothing is shown at all before the
    next acceptance, or the end, the request at the acceptance itself counts.
    """
    found: list[Asked] = []
    places = [i for i, one in enumerate(asked) if one.kind == "accept"]
    for at, end in itertools.pairwise([*places, len(asked)]):
        of_file = [one for one in asked[at:end] if one.file == asked[at].file]
        found.append(next((one for one in of_file if one.answer is not None), asked[at]))
    return found


async def replay(files: list[SourceFile], keystrokes: int, seed: int, folder: Path) -> dict[str, list[Asked]]:
    """Types every file in both ways, each with a worker of its own."""
    rows: dict[str, list[Asked]] = {}
    for name, accept in (("typing all", 0.0), ("accepting", 1.0)):
        async with worker():
            player = await Player.start(name, {}, None, rhythm(seed))
            try:
                for source in files:
                    script = Script(
                        source.text, f"{seed} {source.name}", keystrokes // len(files), accept=accept, lines=LINES
                    )
                    await player.lead(source, script.holed, script.steps(), folder)
            finally:
                await player.close()
            rows[name] = player.asked
    return rows


async def long_file(source: SourceFile, keystrokes: int, seed: int, folder: Path) -> dict[str, Any]:
    """Answers without the model in a file of `LONG` lines."""
    copies = LONG // source.text.count("\n") + 1
    text = "\n".join(source.text.replace("class ", f"class C{i}") for i in range(copies))
    long = attrs.evolve(source, name=f"long-{source.name}", text=text)
    async with worker():
        player = await Player.start("long", {}, None, rhythm(seed))
        try:
            script = Script(long.text, f"{seed} long", keystrokes, accept=0.0, lines=LINES)
            await player.lead(long, script.holed, script.steps(), folder)
        finally:
            await player.close()
    free = [one.ms for one in player.asked if is_free(one)]
    return {"lines": text.count("\n"), "answers": len(free), "ms": report.spread(free, 2)}


def parsing(source: SourceFile, seed: int) -> dict[str, Any]:
    """How long one slice of parsing, and one fork, hold the event loop in a file of `LONG` lines."""
    text = "\n".join([source.text] * (LONG // source.text.count("\n") + 1))
    document = Document("file:///long", source.language, 1, text)
    session = Session(document, "anchored")
    chance = random.Random(seed)
    slices: list[float] = []
    forks: list[float] = []

    def parse() -> None:
        done = False
        while not done:
            began = time.perf_counter()
            done = session.tree.parse(PARSE_SLICE)
            slices.append((time.perf_counter() - began) * 1000)

    parse()
    for _ in range(60):
        line = chance.randrange(len(document.lines))
        for new in chance.choice(("x", "(", '"', "'''", "{", "/*", "\n", "def f(")):
            session.follow(document.apply(line, 0, line, 0, new, "utf-32"))
            parse()
        began = time.perf_counter()
        session.fork()
        forks.append((time.perf_counter() - began) * 1000)
    return {"slices": len(slices), "ms": report.spread(slices, 2) | {"most": round(max(slices), 2)}} | {
        "fork, ms": report.spread(forks, 2)
    }


def judge(found: dict[str, Any]) -> list[str]:
    """What is wrong with the figures."""
    typing, accepting, long = found["rows"]["typing all"], found["rows"]["accepting"], found["long file"]
    checks = (
        (typing["answered without the model"] >= LEAST_FREE, f"less than {LEAST_FREE:.0%} answered without the model"),
        (typing["without the model, ms"]["p50"] <= MOST_MS, f"those take more than {MOST_MS} ms"),
        (accepting["next suggestion there without a wait"] >= LEAST_NEXT, f"less than {LEAST_NEXT:.0%} there at once"),
        (long["ms"]["p50"] <= MOST_LONG_P50, f"in a long file p50 is above {MOST_LONG_P50} ms"),
        (long["ms"]["p95"] <= MOST_LONG_P95, f"in a long file p95 is above {MOST_LONG_P95} ms"),
        (found["parsing"]["ms"]["most"] <= MOST_PARSING, f"parsing holds the loop for more than {MOST_PARSING} ms"),
    )
    return [wrong for fine, wrong in checks if not fine]


def show(console: Console, found: dict[str, Any], wrong: list[str]) -> None:
    """Prints the result."""
    table = Table("", *found["rows"])
    for name in next(iter(found["rows"].values())):
        table.add_row(name, *(str(figures[name]) for figures in found["rows"].values()))
    console.print(table)
    console.print("long file:", found["long file"])
    console.print("parsing:", found["parsing"])
    for line in wrong:
        console.print(f"[red]{line}")


def main(
    keystrokes: Annotated[int, typer.Option(help="a row, about")] = 350,
    files: Annotated[list[str] | None, typer.Option(help="names of files, as in benchmarks/sources.py")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
    seed: Annotated[int, typer.Option(help="of the typing")] = 1,
    offline: Annotated[bool, typer.Option(help="only this project's own files")] = False,
    cache: Annotated[Path | None, typer.Option(help="where fetched packages are kept")] = None,
    log: Annotated[Path | None, typer.Option(help="write a line a keystroke here")] = None,
) -> None:
    """Measures what is answered without the model."""
    console = Console()
    head = report.header("benchmarks.typing")
    chosen, problems = sources.load(files or [], cache or sources.default_cache(), offline=offline)
    for problem in problems:
        console.print(f"[yellow]{problem}")
    python = next((source for source in chosen if source.language == "python"), chosen[0])
    with own_state() as folder:
        rows = asyncio.run(replay(chosen, keystrokes, seed, folder))
        long = asyncio.run(long_file(python, keystrokes // 3, seed, folder))
    found = {
        "rows": {name: row(asked) for name, asked in rows.items()},
        "long file": long,
        "parsing": parsing(python, seed),
    }
    wrong = judge(found)
    if log:
        lines = [
            f"{name} {a.file} {a.kind} {a.ms:.1f} {a.trace and (a.trace.source, a.trace.outcome, a.trace.text[:50])} "
            f"{a.trace and a.trace.end}"
            for name, asked in rows.items()
            for a in asked
        ]
        log.write_text("\n".join(lines), "utf-8")
    show(console, found, wrong)
    if out:
        about = {"settings": {"keystrokes": keystrokes, "seed": seed, "key_s": KEY_S, "spread_s": SPREAD_S}}
        named = [attrs.asdict(source, filter=attrs.filters.exclude("text")) for source in chosen]
        report.write(out, head | about | {"files": named} | found | {"passed": not wrong})
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
