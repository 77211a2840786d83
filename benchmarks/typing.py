"""How many keystrokes are answered without the model: somebody types real files, key after key, at a human rhythm.

    python -m benchmarks.typing [--keystrokes N] [--files NAME …] [--json OUT] [--offline]

Real server and worker. Two rows: one that types every character itself, and one that accepts each suggestion which is
exactly what comes next. The next key comes when it comes, answered or not.

After an acceptance the next suggestion is to be there at once, or at the line break if that is the very next key. Where
nothing is shown the same places are asked without hurry: if there is nothing to show, the case is counted apart.

Then a file of 10,000 lines: what an answer that needs no model takes there from request to answer, and for how long at
a time parsing holds the event loop. Exit status 1: what is asked of the figures below is missed.
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
from lsp_server.completion import FREE
from lsp_server.documents import Document
from lsp_server.session import PARSE_SLICE, Session

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


@attrs.define
class Acceptance:
    """What was asked after a suggestion was accepted: there, and at the line break if that is the very next key."""

    asked: list[Asked]
    nothing: bool = False
    """Asked without hurry, the server shows nothing at these places."""

    @property
    def next(self) -> Asked | None:
        """The suggestion that was there without the model."""
        return next((one for one in self.asked if is_free(one)), None)

    @property
    def outcome(self) -> str:
        """What became of the next suggestion."""
        if self.next:
            return "there"
        if self.nothing and not any(one.answer for one in self.asked):
            return "nothing to show"
        sources = {one.trace.source if one.trace else "model" for one in self.asked}
        if sources <= set(FREE):
            return "known as nothing"
        return "still being asked" if "ahead" in sources else "asked only then"


def acceptances(asked: list[Asked]) -> list[Acceptance]:
    """Every acceptance, with what was asked after it."""
    found: list[Acceptance] = []
    for one, following in itertools.zip_longest(asked, asked[1:]):
        if one.kind == "accept":
            goes_on = following and following.kind == "newline" and _is_right_behind(one, following)
            found.append(Acceptance([one, following] if goes_on else [one]))
    return found


def _is_right_behind(one: Asked, line_break: Asked) -> bool:
    (_, cursor), (later, end) = one.place, line_break.place
    return one.file == line_break.file and end > cursor and not later[cursor:end].strip() and later[cursor] == "\n"


def row(asked: list[Asked], accepted: list[Acceptance]) -> dict[str, Any]:
    """One row's figures."""
    free = [one for one in asked if is_free(one)]
    modelled = [one for one in asked if one.answer is not None and not is_free(one)]
    outcomes = Counter(one.outcome for one in accepted)
    wanted = len(accepted) - outcomes["nothing to show"]
    return {
        "keystrokes": len(asked),
        "answered without the model": round(len(free) / max(1, len(asked)), 4),
        "answered with text": round((len(free) + len(modelled)) / max(1, len(asked)), 4),
        "without the model, ms": report.spread([one.ms for one in free], 2),
        "by the model, ms": report.spread([one.ms for one in modelled]),
        "accepted": len(accepted),
        "then": dict(outcomes),
        "next suggestion there without a wait": round(outcomes["there"] / max(1, wanted), 4),
        "that, ms": report.spread([one.next.ms for one in accepted if one.next], 2),
        "sources": dict(Counter(f"{one.trace.source} {one.trace.outcome}" if one.trace else "-" for one in asked)),
    }


async def replay(
    files: list[SourceFile], keystrokes: int, seed: int, folder: Path
) -> dict[str, tuple[list[Asked], list[Acceptance]]]:
    """Types every file in both ways, each with a worker of its own."""
    rows: dict[str, tuple[list[Asked], list[Acceptance]]] = {}
    for name, accept in (("typing all", 0.0), ("accepting", 1.0)):
        async with worker():
            player = await Player.start(name, {}, None, rhythm(seed))
            try:
                for source in files:
                    each, chance = keystrokes // len(files), f"{seed} {source.name}"
                    script = Script(source.text, chance, each, accept=accept, lines=LINES, language=source.language)
                    await player.lead(source, script.holed, script.steps(), folder)
            finally:
                await player.close()
            accepted = acceptances(player.asked)
            await look_again(accepted, files, folder)
            rows[name] = player.asked, accepted
    return rows


async def look_again(accepted: list[Acceptance], files: list[SourceFile], folder: Path) -> None:
    """Asks without hurry where nothing was shown after an acceptance: perhaps there is nothing to show."""
    named = {source.name: source for source in files}
    player = await Player.start("unhurried", {"completionCache": False}, None)
    try:
        for one in accepted:
            if not one.next:
                shown = [await player.ask_afresh(named[a.file], *a.place, folder) for a in one.asked]
                one.nothing = not any(shown)
    finally:
        await player.close()


async def long_file(source: SourceFile, keystrokes: int, seed: int, folder: Path) -> dict[str, Any]:
    """Answers without the model in a file of `LONG` lines."""
    copies = LONG // source.text.count("\n") + 1
    text = "\n".join(source.text.replace("class ", f"class C{i}") for i in range(copies))
    long = attrs.evolve(source, name=f"long-{source.name}", text=text)
    async with worker():
        player = await Player.start("long", {}, None, rhythm(seed))
        try:
            script = Script(long.text, f"{seed} long", keystrokes, accept=0.0, lines=LINES, language=long.language)
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
        "rows": {name: row(*played) for name, played in rows.items()},
        "long file": long,
        "parsing": parsing(python, seed),
    }
    wrong = judge(found)
    if log:
        lines = [
            f"{name} {a.file} {a.kind} {a.ms:.1f} {a.trace and (a.trace.source, a.trace.outcome, a.trace.text[:50])} "
            f"{a.trace and a.trace.end}"
            for name, (asked, _) in rows.items()
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
