"""What the command line shows: a completion with the time of each stage, the demo, the worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import attrs
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from inference.endpoint import WorkerSettings, endpoint
from inference.wire import Health
from lsp_server import connect
from lsp_server.backends.remote import RemoteBackend, backend_of
from lsp_server.backends.worker import State, WorkerBackend
from lsp_server.completion import Completer, Completion
from lsp_server.documents import Document
from lsp_server.request import Trace
from lsp_server.session import Session
from lsp_server.settings import Settings
from lsp_server.snippets import SNIPPETS, Snippet
from lsp_server.text import Position

AnyBackend = WorkerBackend | RemoteBackend
B = TypeVar("B", bound=AnyBackend)

CONTEXT = 6
"""Lines shown around a completion."""


@attrs.define
class Result:
    """A completion as the command line shows it."""

    session: Session
    cursor: Position
    found: Completion | None
    trace: Trace | None
    read_ms: float
    parse_ms: float


async def start(console: Console, settings: WorkerSettings) -> int:
    """Starts a worker and waits with a progress bar; the exit status."""
    backend = await ready(console, lambda follow: WorkerBackend(settings, follow))
    if backend is None:
        return 1
    health = backend.ready
    assert health
    console.print(f"worker {health.pid}: {health.model} on {health.device} ({health.dtype})")
    await backend.close()
    return 0


async def status(console: Console, settings: WorkerSettings) -> int:
    """Shows a running worker; the exit status."""
    backend = WorkerBackend(settings)
    health = await backend.look()
    await backend.close()
    log = "on its own machine" if settings.url else str(endpoint(settings).log)
    if health is None:
        missing = (
            f"no worker answers at {settings.url}" if settings.url else f"no worker for {settings.model} is running"
        )
        console.print(f"{missing} (log: {log})", soft_wrap=True)
        return 1
    console.print(_health_table(health, log))
    return 0


async def complete(console: Console, uri: str, text: str, cursor: Position, settings: Settings, read_ms: float) -> int:
    """Completes at a place of a file; the exit status (1: no completion, 2: it could not be asked for)."""
    backend = await ready(console, lambda follow: backend_of(settings, follow))
    if backend is None:
        return 2
    result = await _complete(backend, settings, uri, "", text, cursor, read_ms)
    console.print(_picture(result))
    console.print(_stages(result))
    await backend.close()
    return 0 if result.found else 1


async def demo(console: Console) -> int:
    """Real completions of the embedded model in several languages; the exit status."""
    settings = Settings()
    backend = await ready(console, lambda follow: backend_of(settings, follow))
    if backend is None:
        return 1
    table = Table("language", "first token", "answer", "tokens", title="cold: no keystroke before, nothing cached")
    shown = 0
    for snippet in SNIPPETS:
        result = await _snippet(backend, settings, snippet)
        shown += result.found is not None
        console.print(Panel(_picture(result), title=snippet.language, title_align="left"))
        trace = result.trace
        end = trace.end if trace else None
        tokens = f"{end.prompt} prompt, {end.decoded} new" if end else "-"
        first, total = (f"{trace.first_ms:.0f} ms", f"{trace.total_ms:.0f} ms") if trace else ("-", "-")
        table.add_row(snippet.language, first, total, tokens)
    console.print(table)
    await backend.close()
    console.print(f"{shown} of {len(SNIPPETS)} completed. The worker stays; `fimble worker stop` ends it.\n")
    for editor in connect.editors():
        console.print(f"[bold]{editor.name}[/bold]: {editor.note}")
        console.print(editor.lines + "\n", markup=False, soft_wrap=True)  # to be copied as it stands
    return 0 if shown >= 5 else 1


async def _snippet(backend: AnyBackend, settings: Settings, snippet: Snippet) -> Result:
    before, after = snippet.text.split(snippet.cursor)
    cursor = Position(before.count("\n"), len(before) - before.rfind("\n") - 1)
    return await _complete(
        backend, settings, f"untitled:{snippet.language}", snippet.language_id, before + after, cursor, 0
    )


async def _complete(
    backend: AnyBackend,
    settings: Settings,
    uri: str,
    language: str,
    text: str,
    cursor: Position,
    read_ms: float,
) -> Result:
    """The same path as the editor's, with one document; whatever the model says is shown, as it was asked for."""
    settings = attrs.evolve(settings, confidence=0.0, speculation=False)
    traces: list[Trace] = []
    began = time.perf_counter()
    document = Document(uri, language, 1, text)
    session = Session(document, settings.layout)
    while not session.tree.parse():
        pass
    parse_ms = _ms(began)
    cursor = Position(cursor.line, min(cursor.column, len(document.lines[cursor.line])))
    found = await Completer(backend, settings, traces.append).complete(session, cursor)
    session.close()  # nobody will type on
    await asyncio.sleep(0)  # for what has been cancelled to end
    return Result(session, cursor, found, traces[-1] if traces else None, read_ms, parse_ms)


async def ready(console: Console, make: Callable[[Callable[[State], None]], B]) -> B | None:
    """A backend that can answer, or None after saying why there is none."""
    bar = Progress(TextColumn("{task.description}"), BarColumn(), console=console, transient=True)
    task: TaskID = bar.add_task("worker", total=1.0)

    def follow(state: State) -> None:
        bar.update(task, description=state.message, completed=state.progress)

    backend = make(follow)
    with bar:
        await backend.ensure()
    if backend.ready is None:
        console.print(f"[red]fimble: {backend.state.message}[/red]")
        if backend.state.can_restart:
            console.print("`fimble worker stop`, with --model if you gave one, ends the worker; then try again.")
        await backend.close()
        return None
    return backend


def _picture(result: Result) -> Text:
    """The lines around the cursor with the completion in place, marked."""
    lines, cursor, found = result.session.document.lines, result.cursor, result.found
    first, last = max(0, cursor.line - CONTEXT), min(len(lines), cursor.line + CONTEXT + 1)
    picture = Text("\n".join([*lines[first : cursor.line], lines[cursor.line][: cursor.column]]), style="dim")
    picture.append(found.text.replace("\r\n", "\n") if found else "▏(no completion)", style="bold green")
    after = lines[cursor.line][(found.end if found else cursor).column :]
    picture.append("\n".join([after, *lines[cursor.line + 1 : last]]), style="dim")
    return picture


def _stages(result: Result) -> Table:
    table = Table("stage", "ms", "what")
    table.add_row("read", f"{result.read_ms:.1f}", "the file from disk (an editor sends it once)")
    table.add_row("parse", f"{result.parse_ms:.1f}", f"syntax tree from nothing ({result.session.language.name})")
    trace = result.trace
    if trace is None:
        return table
    table.add_row("prepare", f"{trace.prepare_ms:.1f}", "hole, stops, request")
    if end := trace.end:
        table.add_row("queue", f"{end.timing.queued:.1f}", "in the worker")
        prefill = end.timing.first_token - end.timing.queued
        table.add_row(
            "first token",
            f"{prefill:.1f}",
            f"{end.prefilled} of {end.prompt} tokens computed, {end.reused} reused",
        )
        table.add_row(
            "decode",
            f"{end.timing.total - end.timing.first_token:.1f}",
            f"{end.decoded} tokens, ended by: {end.reason}",
        )
    table.add_row("total", f"{trace.total_ms:.1f}", "request to answer")
    return table


def _health_table(health: Health, log: str) -> Table:
    table = Table(show_header=False, box=None)
    for name, value in attrs.asdict(health).items():
        table.add_row(name, str(value))
    table.add_row("log", log)
    return table


def _ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000
