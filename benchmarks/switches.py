"""What each mechanism brings: on against off, over the same holes and the same recorded answers of the model.

    python -m benchmarks.switches FOLDER [--recording FILE] [--json OUT]

FOLDER holds HumanEval-Infilling (its single-line and random-span-light sets are used, and the single lines once more
with the cursor at a random column, as when typing). The model is asked once for each prompt; what changes no prompt is
replayed through the server's own code. Exit status 1 if a mechanism makes something significantly worse, or if healing
or stopping brings no clear gain.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator
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
from benchmarks.sources import default_cache
from evaluation.fill import InProcess
from evaluation.recording import Recorder, Recording
from evaluation.results import differences
from evaluation.results import figures as figures_of
from evaluation.score import Score, score
from evaluation.significance import Difference, bootstrap_shares
from evaluation.tasks import KNOWN, NoSet, Task, load
from inference.wire import End, FimRequest, Piece, Stops
from lsp_server.completion import Completer
from lsp_server.request import Backend
from lsp_server.settings import Settings
from lsp_server.shaping import ALL, Shaping

SEED = 1
MEASURES = ("first line", "pass@1", "similarity")
NONE = Shaping(**dict.fromkeys(attrs.fields_dict(Shaping), False))


EVERYTHING = Settings(completion_cache=False, speculation=False, max_delay_ms=0, confidence=0)
"""Everything is shown: what is hidden can't be compared. The threshold itself is compared among what is shown."""
CONFIDENCE = Settings().confidence


@attrs.frozen
class Setting:
    """One way to complete. `stops`: the worker ends answers where the server says; else the model and limits do."""

    settings: Settings = EVERYTHING
    shaping: Shaping = ALL
    stops: bool = True


ON = Setting()


def _settings(**changes: Any) -> Setting:
    return attrs.evolve(ON, settings=attrs.evolve(ON.settings, **changes))


def _shaping(*names: str) -> Setting:
    return attrs.evolve(ON, shaping=attrs.evolve(ALL, **dict.fromkeys(names, False)))


SWITCHES = {
    "healing": _settings(healing=False),
    "anchored hole": _settings(layout="psm"),
    "stops": attrs.evolve(ON, stops=False),
    "stops and closing": attrs.evolve(_shaping("closing", "rollback"), stops=False),
    **{name: _shaping(name) for name in attrs.fields_dict(Shaping)},
    "all shaping": attrs.evolve(ON, shaping=NONE),
}
"""The mechanism, and the setting without it."""
SURE = "confidence"


class Unstopped:
    """A backend whose answers are ended by the model, by their length and by their lines."""

    def __init__(self, backend: Recorder):
        self._backend = backend
        self.ready, self.ensure = backend.ready, backend.ensure

    def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        stops = Stops(max_tokens=request.stops.max_tokens, max_lines=request.stops.max_lines)
        return self._backend.fim(attrs.evolve(request, stops=stops))


def sets(folder: Path) -> dict[str, list[Task]]:
    """The tasks by the name of their set. Raises `NoSet`."""
    lines = [task.in_an_editor() for task in load(str(folder / KNOWN["single-line"]))]
    spans = [task.in_an_editor() for task in load(str(folder / KNOWN["random-span-light"]))]
    return {"single line": lines, "line in part typed": [t.typed(SEED) for t in lines], "random span": spans}


async def measure(
    tasks: dict[str, list[Task]], recording: Recording, backend: Backend | None, console: Console
) -> dict[str, dict[str, dict[str, Score]]]:
    """Scores by setting ("" with everything on), set and task; what is not recorded and can't be asked is left out."""
    found: dict[str, dict[str, dict[str, Score]]] = {}
    settings = {"": ON, **SWITCHES, SURE: _settings(confidence=CONFIDENCE)}
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(settings) * sum(map(len, tasks.values())))
        for name, setting in settings.items():
            progress.update(bar, description=name)
            recorder = Recorder(recording, backend)
            asked = recorder if setting.stops else Unstopped(recorder)
            filler = InProcess(Completer(asked, setting.settings, shaping=setting.shaping), recorder)
            found[name] = {}
            for which, all_of_it in tasks.items():
                scores = found[name][which] = {}
                for task in all_of_it:
                    lacking = recorder.lacking
                    answer = await filler.fill(task)
                    if recorder.lacking == lacking:
                        scores[task.name] = await asyncio.to_thread(score, task, answer)
                    progress.advance(bar)
    return found


@attrs.frozen
class Row:
    """What a mechanism changes in one measure on one set, from off to on."""

    switch: str
    set: str
    measure: str
    tasks: int
    off: float
    on: float
    difference: Difference

    @property
    def worse(self) -> bool:
        return self.difference.significant and self.difference.mean < 0

    @property
    def better(self) -> bool:
        return self.difference.significant and self.difference.mean > 0


def rows(found: dict[str, dict[str, dict[str, Score]]]) -> list[Row]:
    """All mechanisms, sets and measures; the threshold by what is right among the shown."""
    every = [
        Row(name, which, measure, len(scores), *values)
        for name in SWITCHES
        for which, scores in found[name].items()
        if scores
        for measure, values in differences(scores, found[""][which]).items()
        if measure in MEASURES
    ]
    for which, sure in found[SURE].items():
        all_shown = found[""][which]
        off, on = ([(s.shown, s.first) for s in (scores[name] for name in sure)] for scores in (all_shown, sure))
        every.append(
            Row(SURE, which, "first line", len(sure), _of_shown(off), _of_shown(on), bootstrap_shares(off, on))
        )
    return every


def _of_shown(pairs: list[tuple[bool, bool]]) -> float:
    return sum(right for _, right in pairs) / max(1, sum(shown for shown, _ in pairs))


def verdict(every: list[Row]) -> list[str]:
    """What is not as it must be."""
    worse = [f"{row.switch} makes {row.measure} worse ({row.set})" for row in every if row.worse]
    gained = {row.switch for row in every if row.better}
    wanted = {"healing": {"healing"}, "stopping": {"stops", "closing", "stops and closing"}}
    return worse + [f"{name} brings no clear gain" for name, switches in wanted.items() if not gained & switches]


def table(every: list[Row]) -> Table:
    """A row a mechanism, a column a set and measure: off → on, the difference and its p."""
    columns = list(dict.fromkeys((row.set, row.measure) for row in every))
    shown = Table("mechanism", *(f"{which}: {measure}" for which, measure in columns), box=box.SIMPLE)
    for switch in (*SWITCHES, SURE):
        cells = {(row.set, row.measure): row for row in every if row.switch == switch}
        shown.add_row(switch, *map(_cell, (cells.get(column) for column in columns)))
    return shown


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row.off == row.on and row.difference.p == 1:
        return "="
    star = "*" if row.difference.significant else ""
    return (
        f"{100 * row.off:.1f} → {100 * row.on:.1f} ({100 * row.difference.mean:+.1f}, p {row.difference.p:.2g}{star})"
    )


def main(
    folder: Annotated[Path, typer.Argument(help="HumanEval-Infilling's data")],
    recording: Annotated[Path | None, typer.Option(help="the model's raw answers, kept here")] = None,
    recorded: Annotated[bool, typer.Option("--recorded", help="ask no model: only what is recorded")] = False,
    limit: Annotated[int, typer.Option(help="most tasks of a set; 0: all")] = 0,
    out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
) -> None:
    """Measures what each mechanism brings."""
    console = Console(width=220)
    logging.getLogger("lsp_server").setLevel(logging.ERROR)
    head = report.header("benchmarks.switches")
    try:
        tasks = {name: some[:limit] if limit else some for name, some in sets(folder).items()}
    except NoSet as error:
        console.print(f"[red]{error}")
        raise typer.Exit(2) from None
    answers = Recording(recording or default_cache() / "switches.jsonl")
    if recorded:
        found = asyncio.run(measure(tasks, answers, None, console))
    else:
        with own_state():
            found = asyncio.run(_asked(tasks, answers, console))
    every = rows(found)
    console.print(table(every))
    shown = {which: figures_of(scores.values()) for which, scores in found[""].items()}
    console.print(*(f"{which}: {values}" for which, values in shown.items()), sep="\n")
    missed = verdict(every)
    for miss in missed:
        console.print(f"[red]missed[/]: {miss}")
    if out:
        figures = [attrs.asdict(row) for row in every]
        for row in figures:
            row["difference"] = {
                name: value if value is None else round(value, 5) for name, value in row["difference"].items()
            }
        for row in figures:
            row["off"], row["on"] = round(row["off"], 4), round(row["on"], 4)
        settings = {"seed": SEED, "model": "starter", SURE: CONFIDENCE}
        on = {
            name: {which: figures_of(scores.values()) for which, scores in found[name].items()} for name in ("", SURE)
        }
        result = {"settings": settings, "everything shown": on[""], "threshold": on[SURE], "rows": figures}
        report.write(out, head | result | {"missed": missed})
    sys.exit(1 if missed else 0)


async def _asked(
    tasks: dict[str, list[Task]], recording: Recording, console: Console
) -> dict[str, dict[str, dict[str, Score]]]:
    async with worker() as backend:
        return await measure(tasks, recording, backend, console)


if __name__ == "__main__":
    typer.run(main)
