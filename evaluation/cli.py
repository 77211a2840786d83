"""`fimble eval`: how good the completions are here, with this model and these settings."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import attrs
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperGroup

from evaluation import fill
from evaluation.places import pick, sources
from evaluation.results import Results, Setting, Unfit, differences, figures, read
from evaluation.run import run
from evaluation.tasks import KNOWN, NoSet, Task, load
from inference.version import VERSION
from lsp_server.backends.worker import Lost, Refused
from lsp_server.settings import FIELDS, resolve

HOLES = 200
"""In a folder, unless --limit says otherwise."""


class SetFirst(TyperGroup):
    """`eval SET` is short for `eval run SET`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the command in if the first word names none."""
        named = not args or args[0] in self.commands or args[0] == "--help"
        return super().parse_args(ctx, args if named else ["run", *args])


app = typer.Typer(
    cls=SetFirst,
    no_args_is_help=True,
    help="How good the completions are, on code whose middle is known: `fimble eval SET`.",
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


@app.command("run")
def measure(
    what: Annotated[
        str, typer.Argument(metavar="SET", help=f"a folder, a JSON-lines file, or one of {', '.join(KNOWN)}")
    ],
    bare: Annotated[bool, typer.Option("--bare", help="the model alone, without the language server")] = False,
    typed: Annotated[bool, typer.Option("--typed", help="the cursor at a random column inside the line")] = False,
    limit: Annotated[int, typer.Option(help="most tasks; 0: all (of a folder 200)")] = 0,
    seed: Annotated[int, typer.Option(help="of every choice by chance")] = 1,
    setting: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="a setting of the server; may be repeated")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="keep each result here as it comes (JSON lines)")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with --out")] = False,
    summary: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
    execute: Annotated[bool, typer.Option(help="run the programs that the model completes, for pass@1")] = True,
    offline: Annotated[bool, typer.Option("--offline", help="download nothing")] = False,
) -> None:
    """Fills the holes of SET through the real language server, as an editor would, and judges the answers.

    Programs of the set are run, with limits on time and memory and without a network; that is a seat belt, not a
    jail: --no-execute leaves it out.
    """
    if resume and not out:
        raise typer.BadParameter("needs --out, the file to go on with", param_hint="--resume")
    section = _section(setting or [])
    try:
        tasks = _tasks(what, limit, seed, offline, typed=typed, in_an_editor=not bare)
        name = Path(what).name
        told: Setting = {
            "set": name,
            "way": "bare" if bare else "editor",
            "typed": typed,
            "seed": seed,
            "settings": attrs.asdict(resolve(section)[0]),  # resolved: defaults change
        }
        results = Results(out, told | {"version": VERSION}, resume=resume)
        asyncio.run(_run(tasks, results, section, bare=bare, execute=execute))
    except (NoSet, Unfit, fill.NoWorker) as error:
        _give_up(str(error))
    except (fill.NoAnswer, Refused, Lost) as error:
        _give_up(f"{error}; " + ("what is done is kept: go on with --resume" if out else "--out FILE would keep it"))
    found = figures(results.scores[task.name] for task in tasks)
    console.print(_table(f"{name}, {'the model alone' if bare else 'through the language server'}", {"": found}))
    if summary:
        summary.parent.mkdir(parents=True, exist_ok=True)
        summary.write_text(json.dumps(results.setting | {"figures": found}, indent=1) + "\n", "utf-8")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="results of `fimble eval --out`")],
    second: Annotated[Path, typer.Argument(help="results of the same set with another setting")],
) -> None:
    """Says whether two settings differ by more than chance, on the tasks that both have."""
    try:
        (one, a), (other, b) = read(first), read(second)
        found = differences(a, b)
    except Unfit as error:
        _give_up(str(error))
    shown = Table("", first.name, second.name, "difference", "p")
    for measure, (before, after, difference) in found.items():
        bounds = (
            "" if difference.low is None else f" ({100 * difference.low:+.1f} to {100 * (difference.high or 0):+.1f})"
        )
        p = f"{difference.p:.2g}" + (" *" if difference.significant else "")
        shown.add_row(measure, _cell(before), _cell(after), f"{100 * difference.mean:+.1f}{bounds}", p)
    console.print(shown)
    one, other = ({**setting, **setting.get("settings", {})} for setting in (one, other))
    for name in sorted({*one, *other} - {"settings"}):
        if one.get(name) != other.get(name):
            console.print(f"{name}: {one.get(name)} | {other.get(name)}")
    console.print("p: McNemar's exact test, for the similarity a paired bootstrap (brackets: its 95 %). * below 0.05")


def _tasks(what: str, limit: int, seed: int, offline: bool, *, typed: bool, in_an_editor: bool) -> list[Task]:
    folder = Path(what)
    if folder.is_dir():
        tasks = pick(sources(folder), limit or HOLES, seed)
        if not tasks:
            raise NoSet(f"{what} holds no source in which a hole can be made")
        return tasks
    tasks = load(what, offline=offline)
    if in_an_editor:
        tasks = [task.in_an_editor() for task in tasks]
    if typed:
        tasks = [task.typed(seed) for task in tasks]
    return tasks[:limit] if limit else tasks


async def _run(tasks: list[Task], results: Results, section: dict[str, Any], *, bare: bool, execute: bool) -> None:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=errors, transient=True) as progress:
        bar = progress.add_task("loading the model", total=len(tasks), completed=len(results.scores))
        async with _filler(section, bare, one_line=all("\n" not in t.middle.rstrip("\n") for t in tasks)) as filler:
            progress.update(bar, description="asking")
            await run(tasks, filler, results, execute=execute, done=lambda: progress.advance(bar))


@contextlib.asynccontextmanager
async def _filler(section: dict[str, Any], bare: bool, *, one_line: bool) -> AsyncGenerator[fill.Filler, None]:
    if bare:
        async with fill.worker(resolve(section)[0]) as backend:
            yield fill.Bare(backend, one_line)
    else:
        async with fill.editor(section) as server:
            yield server


def _section(pairs: list[str]) -> dict[str, Any]:
    """The settings as an editor would send them; a value is JSON if it can be."""
    section: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or name not in FIELDS:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE of a setting; see the README", param_hint="--setting")
        try:
            section[name] = json.loads(value)
        except ValueError:
            section[name] = value
    if problems := resolve(section)[1]:
        raise typer.BadParameter(problems[0], param_hint="--setting")
    return section


def _table(title: str, rows: dict[str, dict[str, Any]]) -> Table:
    """Figures by name, a column a run."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    for name in rows:
        shown.add_column(name, justify="right")
    for name in next(iter(rows.values())):
        shown.add_row(name, *(_cell(row[name]) for row in rows.values()))
    return shown


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if isinstance(value, float) else str(value)


def _give_up(message: str) -> NoReturn:
    errors.print(f"[red]fimble:[/red] {message}")
    raise typer.Exit(2)
