"""One completion, from the document to the edit.

A `Session` is one open document with its tree and its anchor; the `Completer` serves them all over one backend. A new
request or edit of a document supersedes the one in hand, which is answered with nothing at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal, Protocol

import attrs

from inference.wire import End, FimRequest, Health, Piece, Priority, Sampling, Stops
from lsp_server.backends.worker import Lost, Refused
from lsp_server.documents import Document
from lsp_server.hole import Anchor, Budget, Hole
from lsp_server.languages import Language, language_of
from lsp_server.settings import Settings
from lsp_server.shaping import shape
from lsp_server.stops import stops_for
from lsp_server.syntax import SyntaxTree
from lsp_server.text import Edit, Position

log = logging.getLogger(__name__)

TYPED_TOKENS = 128
"""Typed since the anchor before it moves up (at rest; at four times that at once)."""
PARSE_SLICE = 0.004
"""Seconds of parsing at a time; the event loop runs in between."""
PARSE_DELAY = 0.03
"""Seconds after an edit before the tree is brought up to date: requests come first, on the tree as edited."""


class Backend(Protocol):
    """What answers: the worker today, other engines later."""

    @property
    def ready(self) -> Health | None:
        """The engine's figures once it can answer."""
        ...

    def ensure(self) -> asyncio.Task[None]:
        """Brings the engine up, in the background."""
        ...

    def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        """Streams an answer; closing the iterator cancels it. Raises `Refused`, `Lost`."""
        ...


@attrs.frozen
class Completion:
    """`text` (the document's own line breaks) replaces `start` to `end`; it fits document version `version`."""

    text: str
    start: Position
    end: Position
    version: int


@attrs.define
class Trace:
    """What one request cost. Milliseconds; tokens as the worker counted them."""

    id: str
    uri: str
    version: int
    outcome: str = "empty"
    request: FimRequest | None = None
    end: End | None = None
    prepare_ms: float = 0.0
    first_ms: float = 0.0
    total_ms: float = 0.0
    text: str = ""


def ignore(_: Trace) -> None:
    """For whoever wants no traces."""


class Session:
    """One open document: its mirror, its tree, its anchor, and the request in hand."""

    def __init__(self, document: Document, layout: Literal["anchored", "psm"]):
        self.document = document
        self.language: Language = language_of(document.language_id, document.uri)
        self.tree = SyntaxTree(self.language, document)
        self.set_layout(layout)
        self.running: asyncio.Task[Any] | None = None
        self.chars_per_token = 0.0  # this document's own, once a prompt of it was too long
        self._parsing: asyncio.TimerHandle | None = None

    def set_layout(self, layout: Literal["anchored", "psm"]) -> None:
        """Where holes begin from now on."""
        self.anchor = Anchor(layout)

    def edited(self, edits: list[Edit]) -> None:
        """Follows the document; parses once there is time."""
        for edit in edits:
            self.tree.edit(edit)
            self.anchor.edit(edit)
        self.supersede()
        self.parse_later(PARSE_DELAY)

    def supersede(self) -> None:
        """Ends the request in hand; its caller answers null."""
        if self.running:
            self.running.cancel()
            self.running = None

    def parse_later(self, delay: float = 0.0) -> None:
        """Brings the tree up to date in slices, between other work."""
        if self._parsing:
            self._parsing.cancel()
        self._parsing = asyncio.get_running_loop().call_later(delay, self._parse)

    def _parse(self) -> None:
        self._parsing = None
        if not self.tree.parse(PARSE_SLICE):
            self.parse_later()

    def close(self) -> None:
        """Nothing of this document runs on."""
        self.supersede()
        if self._parsing:
            self._parsing.cancel()


class Completer:
    """Completions for all sessions of one server over one backend."""

    def __init__(self, backend: Backend, settings: Settings, on_trace: Callable[[Trace], None] | None = None):
        self.backend, self.settings, self.on_trace = backend, settings, on_trace or ignore
        self._numbers = itertools.count(1)

    async def complete(self, session: Session, cursor: Position) -> Completion | None:
        """The completion at `cursor`, or None: nothing to say, superseded, or no worker yet."""
        session.supersede()
        if not self._serves(session):
            return None
        task = asyncio.ensure_future(self._answer(session, cursor))
        session.running = task
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current and current.cancelling():  # the editor cancelled: the library answers that
                task.cancel()
                raise
            return None
        finally:
            if session.running is task:
                session.running = None

    async def warm(self, session: Session, cursor: Position) -> None:
        """Computes the prompt at a resting cursor in the background, so that the next keystroke is a cache hit."""
        if session.running or not self._serves(session):
            return
        hole = session.anchor.cut(session.document, cursor, self._budget(session), resting=True)
        request = self._request(session, hole, Stops(max_tokens=0), "background")
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
        trace = Trace(str(next(self._numbers)), session.document.uri, session.document.version)
        try:
            return await self._ask(session, cursor, trace, began)
        except asyncio.CancelledError:
            trace.outcome = "superseded"
            raise
        except Lost as error:
            trace.outcome = "lost"
            log.warning("request %s: %s", trace.id, error)
            self.backend.ensure()
            return None
        except Refused as error:
            trace.outcome = error.failure.error
            log.warning("request %s: %s", trace.id, error)
            return None
        finally:
            trace.total_ms = _ms(began)
            self.on_trace(trace)

    async def _ask(self, session: Session, cursor: Position, trace: Trace, began: float) -> Completion | None:
        try:
            return await self._stream(session, cursor, trace, began)
        except Refused as error:
            if error.failure.error != "too_long":
                raise
            # Denser text than measured so far: cut again with this prompt's own figure.
            request = trace.request
            assert request
            length = len(request.prefix) + len(request.suffix) + len(request.typed)
            session.chars_per_token = 0.9 * length / error.failure.tokens
            session.anchor.release()
            return await self._stream(session, cursor, trace, began)

    async def _stream(self, session: Session, cursor: Position, trace: Trace, began: float) -> Completion | None:
        document = session.document
        hole = session.anchor.cut(document, cursor, self._budget(session))
        request = self._request(session, hole, self._stops(session, hole), "interactive", trace.id)
        trace.request, trace.prepare_ms = request, _ms(began)
        text = ""
        async with contextlib.aclosing(self.backend.fim(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, End):
                    trace.end = piece
                else:
                    trace.first_ms = trace.first_ms or _ms(began)
                    text += piece.text
        shaped = shape(text, hole.closers, hole.rest)
        if shaped is None or document.version != hole.version:
            return None
        trace.outcome, trace.text = "shown", shaped.text
        end = Position(cursor.line, cursor.column + shaped.covers)
        return Completion(shaped.text.replace("\n", document.line_break), cursor, end, hole.version)

    def _stops(self, session: Session, hole: Hole) -> Stops:
        settings = self.settings
        return stops_for(
            session.document.lines,
            hole.cursor,
            session.language,
            session.tree.inside(hole.cursor),
            hole.suffix,
            rest=hole.rest,
            max_tokens_line=settings.line_tokens,
            max_tokens_block=settings.block_tokens,
            max_lines=settings.max_lines,
        )

    def _request(self, session: Session, hole: Hole, stops: Stops, priority: Priority, number: str = "") -> FimRequest:
        return FimRequest(
            prefix=hole.prefix,
            suffix=hole.suffix,
            typed=hole.typed,
            stops=stops,
            sampling=Sampling(),
            priority=priority,
            id=number,
            session=f"{os.getpid()} {session.document.uri}",
            heal=self.settings.healing,
            reuse=self.settings.prefix_cache,
        )

    def _budget(self, session: Session) -> Budget:
        """The window in characters, from the measured characters a token."""
        settings, health = self.settings, self.backend.ready
        assert health
        chars = session.chars_per_token or health.chars_per_token
        room = health.window - settings.block_tokens - 4 * TYPED_TOKENS
        share = min(1.0, max(0.1, room / (settings.prefix_tokens + settings.suffix_tokens)))
        return Budget(
            prefix=int(settings.prefix_tokens * share * chars),
            suffix=int(settings.suffix_tokens * share * chars),
            typed=int(TYPED_TOKENS * chars),
        )


def _ms(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)
