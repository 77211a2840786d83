"""Typing straight at the engine: the server's own documents, anchors, stops and completions, without LSP and worker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from benchmarks.sources import SourceFile
from benchmarks.typing_script import Answer, Script, Step, offset, position
from inference.engine import Engine
from inference.version import VERSION
from inference.weights import Loaded
from inference.wire import End, Failure, FimRequest, Health, Piece
from lsp_server.backends.worker import Refused
from lsp_server.completion import Completer, Completion
from lsp_server.documents import Document
from lsp_server.session import Session


class EngineBackend:
    """The engine of this process in the place of a worker (a `Backend` of `lsp_server.completion`)."""

    def __init__(self, engine: Engine, loaded: Loaded):
        self._engine, self._loaded = engine, loaded

    @property
    def ready(self) -> Health | None:
        """The engine's figures."""
        model, measured = self._loaded.model, round(self._loaded.tokens.chars_per_token, 3)
        return Health("ready", VERSION, "starter", "", 0, window=model.window, chars_per_token=measured)

    def ensure(self) -> asyncio.Task[None]:
        """Nothing to bring up."""
        return asyncio.ensure_future(asyncio.sleep(0))

    async def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        """Streams an answer; closing the iterator cancels it. Raises `Refused`."""
        loop, replies = asyncio.get_running_loop(), asyncio.Queue[Piece | End | Failure]()
        ticket = self._engine.submit(request, lambda message: _hand_over(loop, replies, message))
        try:
            while True:
                message = await replies.get()
                if isinstance(message, Failure):
                    raise Refused(message)
                yield message
                if isinstance(message, End):
                    return
        finally:
            ticket.cancelled = True


def _hand_over(loop: asyncio.AbstractEventLoop, replies: asyncio.Queue[Any], message: Any) -> None:
    loop.call_soon_threadsafe(replies.put_nowait, message)


class Typist:
    """Types a script into one document, as fast as the answers come."""

    def __init__(
        self,
        completer: Completer,
        source: SourceFile,
        script: Script,
        *,
        session: str = "",
        patience: Callable[[], float | None] = lambda: None,
    ):
        """`patience`: seconds after which the next request is cancelled by the editor; None: never.

        `session` tells apart two typists of the same file.
        """
        self._completer, self._script, self._patience = completer, script, patience
        self._document = Document(f"file:///{session}/{source.name}", source.language, 1, script.holed)
        self._text = script.holed
        self._open: list[asyncio.Task[Completion | None]] = []

    async def type(self) -> str:
        """Types it all; returns the text at the end."""
        session = Session(self._document, "anchored")
        steps, answer, begun = self._script.steps(), None, False
        try:
            while True:
                try:
                    step = steps.send(answer) if begun else next(steps)
                except StopIteration:
                    return self._text
                begun, answer = True, await self._do(session, step)
        finally:
            await self._settle()
            session.close()

    async def _do(self, session: Session, step: Step) -> Answer | None:
        if step.edit:
            self._edit(session, *step.edit)
        session.tree.parse()
        cursor = self._document.position(*position(self._text, step.cursor), "utf-16")
        if not step.asks:
            await self._completer.warm(session, cursor)
            return None
        patience = self._patience()
        asked = self._completer.complete(session, cursor)
        if patience is not None:
            return await _give_up(asked, patience)
        self._open.append(asyncio.ensure_future(asked))
        if not step.waits:
            await asyncio.sleep(0.001)  # the request is on its way when the next key comes
            return None
        found = await self._settle()
        return Answer(step.cursor, self._offset(found), found.text.replace("\r\n", "\n")) if found else None

    def _edit(self, session: Session, start: int, end: int, new: str) -> None:
        places = (*position(self._text, start), *position(self._text, end))
        self._document.version += 1
        session.edited(self._document.apply(*places, new, "utf-16"))
        self._text = self._text[:start] + new + self._text[end:]

    def _offset(self, found: Completion) -> int:
        return offset(self._text, found.end.line, self._document.character(found.end, "utf-16"))

    async def _settle(self) -> Completion | None:
        """Waits for every answer that is due; returns the last."""
        waiting, self._open = self._open, []
        answers = [await task for task in waiting]
        return answers[-1] if answers else None


async def _give_up(asked: Coroutine[Any, Any, Completion | None], patience: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asked, patience)
