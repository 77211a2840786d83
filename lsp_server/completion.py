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
from lsp_server.ahead import LookAhead
from lsp_server.asking import Asking
from lsp_server.backends.worker import Lost, Refused
from lsp_server.generation import Backend, Generation, Trace, fim_request, milliseconds, suggested
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
        self.on_trace = on_trace or ignore
        self.asking = Asking(backend, settings, shaping)
        self.look_ahead = LookAhead(self.asking)
        self._numbers = itertools.count(1)

    @property
    def settings(self) -> Settings:
        """The user's, as they are now."""
        return self.asking.settings

    def configure(self, backend: Backend, settings: Settings) -> None:
        """Other settings or another worker: what was said under the old ones no longer counts."""
        self.asking.backend, self.asking.settings = backend, settings
        self.asking.cache.clear()

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
        asking = self.asking
        busy = session.waiting or any(g and g.running for g in (session.generation, session.ahead))
        if busy or not self._serves(session):
            return
        hole = asking.hole(session, cursor, resting=True)
        if asking.settings.completion_cache and asking.key(session, hole) in asking.cache:
            return
        request = fim_request(session, hole, Stops(max_tokens=0), asking.settings, "background")
        with contextlib.suppress(Refused, Lost):
            async for _ in asking.backend.fim(request):
                pass

    def _serves(self, session: Session) -> bool:
        settings, backend = self.settings, self.asking.backend
        if not settings.enabled or session.document.language_id in settings.disabled_languages:
            return False
        if backend.ready is None:
            backend.ensure()
            return False
        return session.document.synchronised

    async def _answer(self, session: Session, cursor: Position) -> Completion | None:
        began = time.perf_counter()
        document = session.document
        trace = Trace(str(next(self._numbers)), document.uri, document.version)
        try:
            rest = await self._find(session, cursor, trace)
            self._prepare_next(session, cursor, rest, trace)
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
        began, asking, remembers = time.perf_counter(), self.asking, self.settings.completion_cache
        if remembers:
            running = session.generation
            if running and running.serves(session.document, cursor):
                trace.source = "running"
                await self._wait(running, trace)
                if running.error or (running.complete and running.region and running.region.start == cursor):
                    return running.answer
            if found := session.suggestions.at(session.document, cursor):
                trace.source = "suggestion" if trace.source == "model" else trace.source
                return found[1]
        hole = asking.hole(session, cursor)
        key = asking.key(session, hole)
        if remembers:
            if key in asking.cache:
                trace.source, answer = "cache", asking.cache.get(key)
                if answer:
                    session.suggestions.add(suggested(hole, answer))
                return answer
            if (ahead := session.ahead) and ahead.key == key and ahead.running:
                trace.source = "ahead"
                session.generation, session.ahead = ahead, None
                ahead.adopt(hole)
                await self._wait(ahead, trace)
                if ahead.error or ahead.complete:
                    return ahead.answer
        if session.generation:
            session.generation.cancel()
        session.stop_looking_ahead()
        trace.source, trace.prepare_ms = "model", milliseconds(began)
        session.generation = asking.ask(session, session.fork(), hole, number=trace.id)
        await self._wait(session.generation, trace)
        return session.generation.answer

    async def _wait(self, generation: Generation, trace: Trace) -> None:
        await generation.wait()
        told = generation.trace
        trace.request, trace.end, trace.first_ms = told.request, told.end, told.first_ms
        if generation.error:
            trace.outcome = told.outcome

    def _prepare_next(self, session: Session, cursor: Position, rest: Rest | None, trace: Trace) -> None:
        """Looks ahead of what is shown now; where nothing is to be said, to the next line."""
        if not self.settings.speculation or not self.settings.completion_cache:
            return
        if found := session.suggestions.at(session.document, cursor):
            self.look_ahead.after(session, found[0])
        elif rest is None and trace.source in ("model", "running", "ahead") and trace.outcome == "empty":
            self.look_ahead.after_line(session, cursor)
