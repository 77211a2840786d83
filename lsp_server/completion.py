"""From a request to its answer: what is known already, what is being said, and only then a question to the model.

The `Completer` serves all sessions over one backend. A new request or edit of a document supersedes the request in
hand, which is answered with nothing at once; the model's work for it goes on for as long as the text agrees with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from inference.wire import Stops
from lsp_server.accept import Watch
from lsp_server.ahead import LookAhead
from lsp_server.asking import OTHERS, Asking
from lsp_server.backends.worker import Lost, Refused
from lsp_server.begun import begun
from lsp_server.confidence import sure_part, threshold_at
from lsp_server.generation import Generation
from lsp_server.hole import Hole
from lsp_server.menu import Selected, for_menu, with_selected
from lsp_server.metrics import Metrics
from lsp_server.pace import Pace
from lsp_server.request import Backend, Trace, fim_request, milliseconds
from lsp_server.session import Session
from lsp_server.settings import Settings
from lsp_server.shaping import ALL, Shaping
from lsp_server.suggestions import Rest, Suggestion, suggested
from lsp_server.text import Position

FREE = ("suggestion", "cache", "begun")
"""Sources of answers that no model is waited for."""
ALTERNATIVES = 3
"""Other answers to a request that the user made."""


@attrs.frozen
class Completion:
    """`text` (the document's own line breaks) replaces `start` to `end`; it fits document version `version`."""

    text: str
    start: Position
    end: Position
    version: int
    number: str = ""
    """The suggestion's name, for the client to say what became of it."""


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
        metrics: Metrics | None = None,
    ):
        self.on_trace = on_trace or ignore
        self.on_more: Callable[[], None] | None = None
        """Has the client ask again, and draw what it is told then in place of what it shows. None: it waits for all."""
        self.metrics = metrics or Metrics()
        self.asking = Asking(backend, settings, shaping)
        self.look_ahead = LookAhead(self.asking)
        self.pace = Pace()
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
        found = await self._request(session, self._answer, cursor)
        return found[0] if found else None

    async def complete_behind(self, session: Session, cursor: Position, selected: Selected) -> Completion | None:
        """The completion that goes on behind the selected entry of a menu that is open at `cursor`."""
        if not selected.fits(cursor):
            return None
        fork, place = with_selected(session, selected)

        async def answer(_: Session, __: Position, trace: Trace) -> list[Completion]:
            return await self._answer(fork, place, trace)

        found = await self._request(session, answer, cursor)
        if not found:
            return None
        covers = found[0].end.column - place.column
        edit = for_menu(session, cursor, selected, found[0].text, covers)
        # Nobody follows it: the document that it belongs to is not the one that is edited.
        return Completion(*edit, session.document.version) if edit else None

    async def invoke(self, session: Session, cursor: Position) -> list[Completion]:
        """The completions that the user asked for at `cursor`: the best one and others, whatever they are worth."""
        return await self._request(session, self._answer_explicitly, cursor)

    def known(self, session: Session, cursor: Position) -> list[Completion]:
        """Every suggestion that is known at `cursor`, without asking anybody; the first one counts as shown."""
        found = session.suggestions.all_at(session.document, cursor)
        for suggestion, _ in found:
            suggestion.visible = len(suggestion.text)
        if found:
            self._watch(session, found[0])
        return [_completion(session, cursor, one) for one in found]

    async def _request(
        self,
        session: Session,
        answer: Callable[[Session, Position, Trace], Awaitable[list[Completion]]],
        cursor: Position,
    ) -> list[Completion]:
        session.supersede()
        if not self._serves(session):
            return []
        task = asyncio.ensure_future(self._traced(session, answer, cursor))
        session.waiting = task
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current and current.cancelling():  # the editor cancelled: the library answers that
                task.cancel()
                raise
            return []
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

    async def _traced(
        self,
        session: Session,
        answer: Callable[[Session, Position, Trace], Awaitable[list[Completion]]],
        cursor: Position,
    ) -> list[Completion]:
        began = time.perf_counter()
        trace = Trace(str(next(self._numbers)), session.document.uri, session.document.version)
        try:
            return await answer(session, cursor, trace)
        except asyncio.CancelledError:
            trace.outcome = "superseded"
            raise
        finally:
            trace.total_ms = milliseconds(began)
            self._count(session, trace)
            self.on_trace(trace)

    async def _answer(self, session: Session, cursor: Position, trace: Trace) -> list[Completion]:
        if session.document.version != session.asked_version:  # a key, not a cursor that moved
            session.asked_version = session.document.version
            self.pace.key(time.perf_counter())
        rest = await self._find(session, cursor, trace)
        found = session.suggestions.at(session.document, cursor)
        shown = self._sure(session, cursor, found) if found and rest and rest.text else None
        self._prepare_next(session, cursor, shown, found is None and not (rest and rest.text), trace)
        if shown is None:
            return []
        trace.outcome, trace.text = "shown", shown[1].text
        self._watch(session, shown)
        return [_completion(session, cursor, shown)]

    def _sure(
        self, session: Session, cursor: Position, found: tuple[Suggestion, Rest]
    ) -> tuple[Suggestion, Rest] | None:
        """As much of a suggestion as the model is sure of; None if that is nothing, or the user sent it away.

        What is shown stays while the user types it, however sure the model is of less.
        """
        suggestion, rest = found
        line = session.document.lines[cursor.line]
        usual = 0.0 if suggestion.asked_for else self.settings.confidence
        after = line[cursor.column :]
        wanted = threshold_at(line[: cursor.column], after[rest.covers :], usual)
        typed = len(suggestion.text) - len(rest.text)
        sure = len(sure_part(rest.text, suggestion.said, wanted, typed))
        length = max(sure, suggestion.visible_of(rest))
        if suggestion.dismissed or not rest.text[:length].strip():
            return None
        suggestion.visible = typed + length
        return suggestion, rest if length == len(rest.text) else rest.beginning(length, after[: rest.covers])

    async def _answer_explicitly(self, session: Session, cursor: Position, trace: Trace) -> list[Completion]:
        """Everything that leads to here, once the model has been asked for all of it."""
        hole = self.asking.hole(session, cursor)
        for beyond_line in (False, True):
            await self._ask(session, hole, trace, alternatives=ALTERNATIVES, explicit=True, beyond_line=beyond_line)
            assert session.generation
            await session.generation.wait_for_others()
            found = session.suggestions.all_at(session.document, cursor)
            if found or session.generation.error:
                break
        for suggestion, _ in found:
            suggestion.dismissed, suggestion.asked_for = False, True
        if found:
            trace.outcome, trace.text = "shown", found[0][1].text
        return self.known(session, cursor)

    def _watch(self, session: Session, found: tuple[Suggestion, Rest]) -> None:
        """Follows the suggestion that is on the screen from now on."""
        if session.watch is None:
            session.watch = Watch(self.metrics, session.language.name)
        session.watch.show(found[0], len(found[1].text))

    async def _find(self, session: Session, cursor: Position, trace: Trace) -> Rest | None:
        """What to insert, from the nearest source that has it."""
        asking, remembers = self.asking, self.settings.completion_cache
        if remembers:
            running = session.generation
            if running and running.serves(session.document, cursor):
                if self.on_more and (part := begun(session, cursor, self.settings.confidence, self.on_more)):
                    trace.source = "begun"
                    return part
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
                trace.source, answers = "cache", asking.cache.get(key)
                for other in answers[1:]:
                    session.suggestions.add_other(suggested(hole, other))
                for answer in answers[:1]:
                    session.suggestions.add(suggested(hole, answer))
                return answers[0] if answers else None
            if (ahead := session.ahead) and ahead.key == key and ahead.running:
                trace.source = "ahead"
                session.generation, session.ahead = ahead, None
                ahead.adopt(hole)
                await self._wait(ahead, trace)
                if ahead.error or ahead.complete:
                    return ahead.answer
        if session.generation:
            session.generation.cancel()
        await asyncio.sleep(self.pace.delay(self.settings.max_delay_ms / 1000))
        others = OTHERS if remembers and self.settings.speculation else 0
        return (await self._ask(session, hole, trace, alternatives=others)).answer

    async def _ask(self, session: Session, hole: Hole, trace: Trace, **how: Any) -> Generation:
        """Asks the model, in place of whatever it was asked of this document before."""
        if session.generation:
            session.generation.cancel()
        session.stop_looking_ahead()
        trace.source = "model"
        session.generation = generation = self.asking.ask(session, hole, number=trace.id, **how)
        await self._wait(generation, trace)
        if generation.complete:
            self.pace.answered(generation.trace.total_ms / 1000)
        return generation

    async def _wait(self, generation: Generation, trace: Trace) -> None:
        await generation.wait()
        told = generation.trace
        trace.request, trace.end, trace.first_ms = told.request, told.end, told.first_ms
        trace.prepare_ms = told.prepare_ms
        if generation.error:
            trace.outcome = told.outcome

    def _prepare_next(
        self, session: Session, cursor: Position, shown: tuple[Suggestion, Rest] | None, nothing: bool, trace: Trace
    ) -> None:
        """Looks ahead of what is shown now; where nothing is to be said, to the next line."""
        if not self.settings.speculation or not self.settings.completion_cache:
            return
        if shown:
            self.look_ahead.after(session, shown[0])
        elif nothing and trace.source != "suggestion" and trace.outcome == "empty":
            looking = session.looking_ahead  # perhaps at this very line: it was expected to end here
            if trace.source != "cache" or looking is None or looking.done():
                self.look_ahead.after_line(session, cursor)

    def _count(self, session: Session, trace: Trace) -> None:
        language = session.language.name
        if trace.outcome == "superseded":
            return
        self.metrics.count(language, "requests")
        if trace.outcome == "shown":
            self.metrics.count(language, "answers")
            source = "cache" if trace.source in FREE else "model"
            self.metrics.time(language, source, trace.total_ms)


def _completion(session: Session, cursor: Position, found: tuple[Suggestion, Rest]) -> Completion:
    document, (suggestion, rest) = session.document, found
    text = rest.text.replace("\n", document.line_break)
    end = Position(cursor.line, cursor.column + rest.covers)
    return Completion(text, cursor, end, document.version, suggestion.number)
