"""The ways to have a hole filled: as an editor does, in this process over a recording, or by the model alone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from evaluation.lsp_client import CAPABILITIES, LspClient
from evaluation.recording import Recorder
from evaluation.score import Answer
from evaluation.tasks import EXTENSIONS, Task
from inference.wire import FimRequest, Piece, Stops
from lsp_server.backends.worker import WorkerBackend
from lsp_server.completion import Completer
from lsp_server.documents import Document
from lsp_server.request import Backend
from lsp_server.session import Session
from lsp_server.settings import Settings
from lsp_server.text import Position

SECONDS = 300.0
"""Longest wait for an answer, and for the worker."""
PARSED = 0.05
"""Seconds that an editor leaves between opening a file and its first request, at the very least."""
BARE_TOKENS = 128
ANSWERED = ("shown", "empty", "too_long")
"""Outcomes of a request that say something of the suggestion, and not of the worker."""


class Filler(Protocol):
    """Fills holes under one setting."""

    async def fill(self, task: Task) -> Answer:
        """The answer to one task. Raises `NoAnswer`, `Refused` or `Lost` where the worker gives none."""
        ...


class NoWorker(Exception):
    """The worker could not be brought up; the message says why."""


class NoAnswer(Exception):
    """The worker failed in the middle of a run: null would not mean that there is nothing to say."""


class Editor:
    """The real language server over its pipes, with the real worker, as an editor uses them."""

    def __init__(self, client: LspClient):
        self._client = client
        self._outcomes: dict[str, str] = {}
        client.on_notification = self._notified

    async def fill(self, task: Task) -> Answer:
        uri = _uri(task)
        self._client.open(uri, task.language, task.before + task.after)
        await asyncio.sleep(PARSED)
        place = _cursor(task)
        began = time.perf_counter()
        item = await self._client.inline(uri, place.line, place.column, SECONDS)
        ms = (time.perf_counter() - began) * 1000
        self._client.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
        outcome = self._outcomes.pop(uri, "")
        if outcome not in ANSWERED:
            raise NoAnswer(f"{task.name} got no answer from the worker ({outcome or 'it is gone'})")
        if item is None:
            return Answer(ms=ms)
        text, span = str(item["insertText"]), item["range"]
        # Text before the cursor that the edit replaces, it writes again.
        begun = place.column - int(span["start"]["character"])
        return Answer(text[begun:], int(span["end"]["character"]) - place.column, ms)

    def _notified(self, method: str, params: Any) -> None:
        if method == "fimble/trace":
            self._outcomes[params["uri"]] = params.get("outcome", "empty")


@contextlib.asynccontextmanager
async def editor(settings: dict[str, Any]) -> AsyncGenerator[Editor, None]:
    """A server of its own whose worker is loaded. `settings`: the section `fimble` of the configuration."""
    capabilities = CAPABILITIES | {"general": {"positionEncodings": ["utf-32"]}}
    client = await LspClient.start(settings | {"trace": True})
    try:
        await client.initialize(capabilities)
        await client.ready(SECONDS)
        yield Editor(client)
        await client.close()
    finally:
        if client.process.returncode is None:
            client.process.kill()


class InProcess:
    """The server's own code without its pipes, over a recording: what is in it costs no model time."""

    def __init__(self, completer: Completer, recorder: Recorder):
        self._completer, self._recorder = completer, recorder

    async def fill(self, task: Task) -> Answer:
        document = Document(_uri(task), task.language, 1, task.before + task.after)
        session = Session(document, self._completer.settings.layout)
        while not session.tree.parse():
            pass
        cursor = _cursor(task)
        began = time.perf_counter()
        found = await self._completer.complete(session, cursor)
        ms = (time.perf_counter() - began) * 1000
        session.close()
        if found is None:
            return Answer(ms=ms)
        text = found.text[cursor.column - found.start.column :]
        spelled = self._recorder.last.spelling(text) if self._recorder.last else ()
        return Answer(text, found.end.column - cursor.column, ms, sum(t.logprob for t in spelled), len(spelled))


class Bare:
    """The model alone: the plain prompt with the hole at the cursor, no healing, no server; ended by the model.

    `one_line`: the set asks for single lines, so an answer ends with its first.
    """

    def __init__(self, backend: Backend, one_line: bool):
        self._backend = backend
        self._stops = Stops(max_tokens=BARE_TOKENS, end_of_line=one_line)

    async def fill(self, task: Task) -> Answer:
        began = time.perf_counter()
        request = FimRequest(task.before, task.after, stops=self._stops, heal=False)
        pieces = [piece async for piece in self._backend.fim(request) if isinstance(piece, Piece)]
        ms = (time.perf_counter() - began) * 1000
        text = "".join(piece.text for piece in pieces)
        if not text.strip():
            return Answer(ms=ms)
        if self._stops.end_of_line and task.middle.endswith("\n"):
            text += "\n"  # it ends before the line break, which stands in the hole here
        return Answer(text, 0, ms, sum(p.logprob for p in pieces), sum(p.tokens for p in pieces))


@contextlib.asynccontextmanager
async def worker(settings: Settings) -> AsyncGenerator[WorkerBackend]:
    """The user's worker, loaded. Raises `NoWorker`."""
    backend = WorkerBackend(settings.worker)
    try:
        await backend.ensure()
        if backend.ready is None:
            raise NoWorker(backend.state.message)
        yield backend
    finally:
        await backend.close()


def _uri(task: Task) -> str:
    """A document of its own for each hole: what one completion learns must not help the next."""
    return f"file:///{hashlib.sha256(task.name.encode()).hexdigest()[:12]}/hole.{EXTENSIONS.get(task.language, 'txt')}"


def _cursor(task: Task) -> Position:
    return Position(task.before.count("\n"), len(task.before) - task.before.rfind("\n") - 1)
