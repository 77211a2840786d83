"""One question to the model: from a document as it stands to the edit that the model's text amounts to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Generator

import attrs

from inference.wire import End, FimRequest, Priority, Stops
from lsp_server.backends.worker import Excluded, Lost, Refused
from lsp_server.closing import Closing
from lsp_server.documents import Document
from lsp_server.hole import Hole
from lsp_server.languages import Inside
from lsp_server.request import Backend, Trace, budget, fim_request, milliseconds
from lsp_server.session import Session
from lsp_server.settings import Settings
from lsp_server.shaping import Shaping
from lsp_server.stops import stops_for
from lsp_server.suggestions import CLOSING, Region, Rest, Suggestion, common, is_subsequence, replaced
from lsp_server.text import Edit, Position

log = logging.getLogger(__name__)

UNFINISHED = ("superseded", "cancelled")
"""Ends of a stream that say nothing of what the model would have said."""
ENDED = ("eos", "line", "lines", "dedent", "suffix")
"""Ends where the model had said all that it has to say there."""
GRACE = 0.3
"""Seconds that the model goes on for a request that nobody waits for any more: the next keystroke may agree."""


OnAnswer = Callable[["Generation", "Rest | None"], None]


@attrs.frozen
class _Question:
    request: FimRequest
    streams: list[Closing]
    """One a choice."""


class Generation:
    """The model's work for one place. It belongs to the document, not to the request that began it.

    All that it needs of the document it reads when it starts. While the user types what it says, `region` follows them,
    and later requests wait for it instead of asking anew.
    """

    def __init__(
        self,
        live: Session,
        work: Session,
        hole: Hole,
        backend: Backend,
        settings: Settings,
        shaping: Shaping,
        *,
        number: str = "",
        priority: Priority = "interactive",
    ):
        """`work`: what `hole` was cut from, `live` or a fork that has become what `live` may become."""
        self.live, self.session, self.hole = live, work, hole
        self.backend, self.settings, self.shaping, self.number = backend, settings, shaping, number
        self.priority: Priority = priority
        self.key = b""
        self.region: Region | None = _region_of(hole)
        """Of the live document, what stands between the texts that were sent; None: it has not come to this yet."""
        self.text = ""
        """The model's, as far as it has been streamed."""
        self.said: list[tuple[str, float]] = []
        """That text by the token, with log-probabilities."""
        self.begun: Suggestion | None = None
        """What is shown of it before there is an answer."""
        self.answer: Rest | None = None
        """At the end: what to show at the hole's cursor, if anything."""
        self.others: list[Rest] = []
        """Other answers, which come after it."""
        self.complete = False
        """Whether the model has said all of its answer: it may be kept."""
        self.error: Exception | None = None
        self.trace = Trace(number, live.document.uri, live.document.version)
        self.explicit = False
        """The user asked for it: whatever there is is shown."""
        self.alternatives = 0
        """Other answers that are wanted."""
        self.beyond_line = False
        """Go on on the next line, as there is nothing to add to this one."""
        self._answered = asyncio.Event()
        self._waiters = 0
        self._began = time.perf_counter()
        self._region_text = ""
        self._grace: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, on_answer: OnAnswer) -> None:
        """Asks the model; `on_answer` is called with the answer, before those who wait go on, then with each other."""
        question: _Question | None = None
        with self._noting_errors():
            question = self._question()
        if question:
            self._task = asyncio.ensure_future(self._run(question, on_answer))
        else:
            self._answered.set()

    def cancel(self) -> None:
        """Ends it; who waits is woken."""
        if self._task:
            self._task.cancel()

    @property
    def running(self) -> bool:
        """Whether its answer is still to come."""
        return self._task is not None and not self._task.done() and not self._answered.is_set()

    async def wait(self) -> None:
        """Returns when there is an answer, or it has ended without one. It ends if nobody waits for a while."""
        if self._grace:
            self._grace.cancel()
            self._grace = None
        self._waiters += 1
        try:
            await self._answered.wait()
        finally:
            self._waiters -= 1
            if not self._waiters and self.running:
                self._grace = asyncio.get_running_loop().call_later(GRACE, self._orphaned)

    async def wait_for_others(self, seconds: float | None = None) -> None:
        """Returns when there is no more to come, or after so many seconds."""
        if self._task:
            await asyncio.wait([self._task], timeout=seconds)

    def _orphaned(self) -> None:
        if not self._waiters and self.running:
            self.cancel()

    def adopt(self, hole: Hole) -> None:
        """The live document has become what this was asked for; `hole` is the same one, cut from it."""
        self.region = _region_of(hole)

    def edited(self, edits: list[Edit], document: Document) -> None:
        """Follows the document; ends as soon as the text typed is not what the model says."""
        region = self.region
        if region is None:
            return
        for edit in edits:
            region.edited(edit)
        if region.alive:
            self._region_text = document.text(region.start, region.end)
        if self.running and not self._agrees():
            self.cancel()

    def serves(self, document: Document, cursor: Position) -> bool:
        """Whether what the model says may still be what is wanted at `cursor`."""
        parts = self.region.split(document, cursor) if self.region else None
        if parts is None or not self.running:
            return False
        typed, after = parts
        return _one_begins_the_other(typed, self.text) and (after == self.hole.closers or "\n" not in after)

    def suggestion(self, answer: Rest) -> Suggestion | None:
        """An answer where the document stands now, to be typed through; None if it no longer can be."""
        if self.region is None or not self.region.alive:
            return None
        start, (line, column) = self.region.start, self.region.end
        end = Position(line, column + answer.covers - len(self.hole.closers))
        if end < start:
            return None
        found = Suggestion(answer.text, Region(start, end), replaced(self.hole, answer), answer.said, answer.ended)
        if self.begun and answer.text.startswith(self.begun.text):  # what is shown stays
            found.visible = len(self.begun.text)
        return found

    def show_begun(self, begun: Suggestion) -> None:
        """Has a beginning of the answer followed: until there is one that holds it, else to its end, as it is shown."""
        if self.begun:
            self.live.suggestions.discard(self.begun)
        self.begun = begun
        self.live.suggestions.add(begun)

    def _end_begun(self) -> None:
        if self.begun:
            self.live.suggestions.discard(self.begun)
            if self.answer is None or not self.answer.text.startswith(self.begun.text):
                self.live.suggestions.add(self.begun)

    def _agrees(self) -> bool:
        """Whether the region's text can have come of typing what the model says, with closers after the cursor."""
        if self.region is None:
            return True
        if not self.region.alive:
            return False
        text, said = self._region_text, self.text
        agreed = common(text, said)
        if agreed == len(said):
            return True  # typed ahead of the model
        return is_subsequence(text[agreed:], said[agreed:] + CLOSING)

    @contextlib.contextmanager
    def _noting_errors(self) -> Generator[None]:
        try:
            yield
        except Lost as error:
            self.error, self.trace.outcome = error, "lost"
            log.warning("request %s: %s", self.number, error)
            self.backend.ensure()
        except Refused as error:
            self.error, self.trace.outcome = error, error.failure.error
            log.log(
                logging.DEBUG if isinstance(error, Excluded) else logging.WARNING, "request %s: %s", self.number, error
            )
        except Exception as error:  # a defect of ours: this answer is null, the next may be well
            self.error, self.trace.outcome = error, "failed"
            log.exception("request %s failed", self.number)

    async def _run(self, question: _Question, on_answer: OnAnswer) -> None:
        try:
            with self._noting_errors():
                await self._ask(question, on_answer)
        finally:
            self._answered.set()

    async def _ask(self, question: _Question, on_answer: OnAnswer) -> None:
        try:
            await self._stream(question, on_answer)
        except Refused as error:
            if error.failure.error != "too_long":
                raise
            # Denser text than measured so far: cut again with this prompt's own figure.
            request, session = question.request, self.session
            length = len(request.prefix) + len(request.suffix) + len(request.typed)
            session.chars_per_token = self.live.chars_per_token = 0.9 * length / error.failure.tokens
            session.anchor.release()
            self.live.anchor.release()
            if session.document.version != self.hole.version:
                raise  # the next request is cut with that figure
            self.hole = session.anchor.cut(
                session.document, self.hole.cursor, budget(session, self.backend, self.settings)
            )
            await self._stream(self._question(), on_answer)

    def _question(self) -> _Question:
        """What is sent for the document as it stands, and what follows the answers."""
        hole, trace = self.hole, self.trace
        session = self.session
        inside = session.tree.inside(hole.cursor)
        stops = self._stops(inside)
        if self.beyond_line:
            stops = attrs.evolve(stops, end_of_line=False, max_lines=2)
        request = fim_request(session, hole, stops, self.settings, self.priority, self.number)
        request = attrs.evolve(request, alternatives=self.alternatives)
        trace.request, trace.prepare_ms = request, milliseconds(self._began)
        lines, language, in_code = session.document.lines, session.language, session.tree.begins_in_code
        streams = [Closing(hole, stops, lines, language, inside, in_code, self.shaping) for _ in range(request.choices)]
        return _Question(request, streams)

    async def _stream(self, question: _Question, on_answer: OnAnswer) -> None:
        request, streams, trace = question.request, question.streams, self.trace
        said: list[list[tuple[str, float]]] = [[] for _ in streams]
        self.said = said[0]
        async with contextlib.aclosing(self.backend.fim(request)) as pieces:
            async for piece in pieces:
                closing = streams[piece.choice]
                if piece.choice == 0 and self._answered.is_set():
                    continue
                if isinstance(piece, End):
                    if piece.choice:
                        self._also(closing, said[piece.choice], piece, on_answer)
                        continue
                    trace.end = piece
                else:
                    closed = closing.feed(piece.text)
                    said[piece.choice].append((piece.text, piece.logprob))
                    if piece.choice:
                        continue
                    trace.first_ms = trace.first_ms or milliseconds(self._began)
                    self._said(closing.text)
                    if not closed:
                        continue
                self._answer(closing, said[0], on_answer)
                if not self.alternatives or not (trace.end or self.explicit):
                    break

    def _answer(self, closing: Closing, said: list[tuple[str, float]], on_answer: OnAnswer) -> None:
        """The model's text is complete, or as much of it as is wanted."""
        end = self.trace.end
        self.complete = end is None or end.reason not in UNFINISHED
        self.answer = self._shaped(closing, said, end)
        self.trace.total_ms = milliseconds(self._began)
        if self.complete:
            on_answer(self, self.answer)
            self._end_begun()
        self._answered.set()

    def _also(
        self,
        closing: Closing,
        said: list[tuple[str, float]],
        end: End,
        on_answer: OnAnswer,
    ) -> None:
        answer = self._shaped(closing, said, end) if end.reason not in UNFINISHED else None
        if answer and answer != self.answer and answer not in self.others:
            self.others.append(answer)
            on_answer(self, answer)

    def _shaped(self, closing: Closing, said: list[tuple[str, float]], end: End | None) -> Rest | None:
        shaped = closing.finish(end.reason if end else None)
        hole, text = self.hole, shaped.text if shaped else ""
        if shaped is None or text == (hole.closers + hole.rest)[: shaped.covers]:  # it stands there already
            return None
        ended = text == closing.text and (end is None or end.reason in ENDED)
        return Rest(text, shaped.covers, tuple(said), ended)

    def _said(self, text: str) -> None:
        self.text = text
        if not self._agrees():
            self.cancel()

    def _stops(self, inside: Inside) -> Stops:
        session, settings, hole = self.session, self.settings, self.hole
        return stops_for(
            session.document.lines,
            hole.cursor,
            session.language,
            inside,
            hole.suffix,
            rest=hole.rest,
            max_tokens_line=settings.line_tokens,
            max_tokens_block=settings.block_tokens,
            max_lines=settings.max_lines,
            statements=self.shaping.closing,
        )


def _region_of(hole: Hole) -> Region:
    line, column = hole.cursor
    return Region(hole.cursor, Position(line, column + len(hole.closers)))


def _one_begins_the_other(a: str, b: str) -> bool:
    return a.startswith(b) or b.startswith(a)
