"""From a request to its answer: what is known already, what is being said, and only then a question to the model.

The `Completer` serves all sessions over one backend. A new request or edit of a document supersedes the request in
hand, which is answered with nothing at once; the model's work for it goes on for as long as the text agrees with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable

import attrs

from inference.wire import Stops
from lsp_server.backends.worker import Lost, Refused
from lsp_server.cache import AnswerCache, key_of
from lsp_server.generation import Backend, Generation, Trace, budget, fim_request, milliseconds, suggested
from lsp_server.hole import Hole
from lsp_server.session import Session
from lsp_server.settings import Settings
from lsp_server.shaping import ALL, Shaping
from lsp_server.suggestions import Rest
from lsp_server.text import Position


@attrs.frozen
class Completion:
    """`text` (the document's own line breaks) replaces `start` to `end`; it fits document version `version`."""

    text: str
    start: Position
    end: Position
    version: int


def ignore(_: Trace) -> None:
    """For whoever wants no traces."""


class Completer:
    """Completions for all sessions of one server over one backend."""

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        on_trace: Callable[[Trace], None] | None = None,
        shaping: Shaping = ALL,
    ):
        self.backend, self.settings, self.on_trace = backend, settings, on_trace or ignore
        self.shaping = shaping
        self.cache = AnswerCache()
        self._numbers = itertools.count(1)

    def configure(self, backend: Backend, settings: Settings) -> None:
        """Other settings or another worker: what was said under the old ones no longer counts."""
        self.backend, self.settings = backend, settings
        self.cache.clear()

    async def complete(self, session: Session, cursor: Position) -> Completion | None:
        """The completion at `cursor`, or None: nothing to say, superseded, or no worker yet."""
        session.supersede()
        if not self._serves(session):
            return None
        task = asyncio.ensure_future(self._answer(session, cursor))
        session.waiting = task
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current and current.cancelling():  # the editor cancelled: the library answers that
                task.cancel()
                raise
            return None
        finally:
            if session.waiting is task:
                session.waiting = None

    async def warm(self, session: Session, cursor: Position) -> None:
        """Computes the prompt at a resting cursor in the background, so that the next keystroke is a cache hit."""
        if session.waiting or (session.generation and session.generation.running) or not self._serves(session):
            return
        hole = self._hole(session, cursor, resting=True)
        if self.settings.completion_cache and key_of(session.document.uri, hole) in self.cache:
            return
        request = fim_request(session, hole, Stops(max_tokens=0), self.settings, "background")
        with contextlib.suppress(Refused, Lost):
            async for _ in self.backend.fim(request):
                pass

    def _serves(self, session: Session) -> bool:
        settings = self.settings
        if not settings.enabled or session.document.language_id in settings.disabled_languages:
            return False
        if self.backend.ready is None:
            self.backend.ensure()
            return False
        return session.document.synchronised

    async def _answer(self, session: Session, cursor: Position) -> Completion | None:
        began = time.perf_counter()
        document = session.document
        trace = Trace(str(next(self._numbers)), document.uri, document.version)
        try:
            rest = await self._find(session, cursor, trace)
            if rest is None or not rest.text:
                return None
            trace.outcome, trace.text = "shown", rest.text
            end = Position(cursor.line, cursor.column + rest.covers)
            return Completion(rest.text.replace("\n", document.line_break), cursor, end, document.version)
        except asyncio.CancelledError:
            trace.outcome = "superseded"
            raise
        finally:
            trace.total_ms = milliseconds(began)
            self.on_trace(trace)

    async def _find(self, session: Session, cursor: Position, trace: Trace) -> Rest | None:
        """What to insert, from the nearest source that has it."""
        if self.settings.completion_cache:
            running = session.generation
            if running and running.serves(session.document, cursor):
                trace.source = "running"
                await self._wait(running, trace)
                if running.error or (running.complete and running.region.start == cursor):
                    return running.answer
            if rest := session.suggestions.at(session.document, cursor):
                trace.source = "suggestion" if trace.source == "model" else trace.source
                return rest
        began = time.perf_counter()
        hole = self._hole(session, cursor)
        key = key_of(session.document.uri, hole)
        if self.settings.completion_cache and key in self.cache:
            trace.source = "cache"
            answer = self.cache.get(key)
            if answer:
                session.suggestions.add(suggested(hole, answer))
            return answer
        if session.generation:
            session.generation.cancel()
        trace.source = "model"
        generation = Generation(session, hole, self.backend, self.settings, self.shaping, number=trace.id)
        generation.key, generation.on_done = key, self._done
        session.generation = generation
        trace.prepare_ms = milliseconds(began)
        generation.start()
        await self._wait(generation, trace)
        return generation.answer

    async def _wait(self, generation: Generation, trace: Trace) -> None:
        await generation.wait()
        told = generation.trace
        trace.request, trace.end, trace.first_ms = told.request, told.end, told.first_ms
        if generation.error:
            trace.outcome = told.outcome

    def _done(self, generation: Generation) -> None:
        """Keeps what the model said, for the place it was asked at and for the text typed since."""
        if not generation.complete:
            return
        self.cache.put(generation.key, generation.answer)
        if suggestion := generation.suggestion():
            generation.live.suggestions.add(suggestion)

    def _hole(self, session: Session, cursor: Position, *, resting: bool = False) -> Hole:
        size = budget(session, self.backend, self.settings)
        return session.anchor.cut(session.document, cursor, size, resting=resting)
