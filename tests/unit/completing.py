"""A document being edited and completed, and a model that says the same at the same text: tests without weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping

from inference.stops import Stopper
from inference.wire import End, FimRequest, Health, Piece
from lsp_server.completion import Completer, Completion
from lsp_server.documents import Document
from lsp_server.request import Trace
from lsp_server.session import Session
from lsp_server.settings import Settings
from lsp_server.text import Position

Says = Callable[[str, str], str]
"""From the text before and after the cursor to the middle."""


class ScriptedModel:
    """A `Backend` that says what `says` says, by the character and under the request's stops.

    With `steps`, each character waits for `step()`. `doubts`: log-probabilities of characters that it is less sure of.
    """

    def __init__(
        self, says: Says, *, steps: bool = False, logprob: float = -0.01, doubts: Mapping[str, float] | None = None
    ):
        self.says, self.logprob, self.doubts = says, logprob, doubts or {}
        self.asked: list[FimRequest] = []
        self.running = 0
        self._steps = asyncio.Semaphore(0) if steps else None

    @property
    def ready(self) -> Health | None:
        return Health("ready", "1", "scripted", "", 0, window=4096, chars_per_token=3.0)

    @property
    def questions(self) -> int:
        """Those that a user waits for."""
        return sum(request.priority == "interactive" for request in self.asked)

    def ensure(self) -> asyncio.Task[None]:
        return asyncio.ensure_future(asyncio.sleep(0))

    def step(self, count: int = 1) -> None:
        """Lets it say so many characters more."""
        assert self._steps
        for _ in range(count):
            self._steps.release()

    async def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        self.asked.append(request)
        self.running += 1
        try:
            text, stopper = self.says(request.prefix + request.typed, request.suffix), Stopper(request.stops)
            for i, char in enumerate(text[: request.stops.max_tokens]):
                if self._steps:
                    await self._steps.acquire()
                else:
                    await asyncio.sleep(0)
                if certain := stopper.feed(char):
                    yield Piece(certain, self._logprob(certain))
                if stopper.reason or i + 1 == request.stops.max_tokens:
                    break
            if rest := stopper.finish("eos"):
                yield Piece(rest, self._logprob(rest))
            yield End(stopper.reason or "eos")
        finally:
            self.running -= 1

    def _logprob(self, text: str) -> float:
        return sum(self.doubts[char] for char in text if char in self.doubts) or self.logprob


class Desk:
    """One document under one completer, edited by offsets in its LF text."""

    def __init__(
        self,
        model: ScriptedModel,
        text: str,
        *,
        uri: str = "file:///w/a.py",
        language: str = "python",
        completer: Completer | None = None,
        settings: Settings | None = None,
    ):
        self.traces: list[Trace] = []
        self.completer = completer or Completer(model, settings or Settings(), self.traces.append)
        self.document = Document(uri, language, 1, text)
        self.session = Session(self.document, "anchored")
        while not self.session.tree.parse():
            pass

    @property
    def text(self) -> str:
        return self.document.normalised()

    def edit(self, start: int, end: int, new: str) -> None:
        """Replaces a stretch of the text."""
        self.document.version += 1
        (line, column), (last, to) = self.place(start), self.place(end)
        self.session.edited(self.document.apply(line, column, last, to, new, "utf-32"))

    def type(self, new: str, at: int) -> int:
        """Types text at an offset, in one edit; the offset after it."""
        self.edit(at, at, new)
        return at + len(new)

    def place(self, offset: int) -> Position:
        before = self.text[:offset]
        return Position(before.count("\n"), len(before) - before.rfind("\n") - 1)

    async def ask(self, offset: int) -> Completion | None:
        return await self.completer.complete(self.session, self.place(offset))

    async def text_at(self, offset: int) -> str | None:
        """What would be inserted at an offset."""
        found = await self.ask(offset)
        return found.text if found else None

    def start(self, offset: int) -> asyncio.Task[Completion | None]:
        """Asks without waiting."""
        return asyncio.ensure_future(self.ask(offset))

    def close(self) -> None:
        self.session.close()


async def settle() -> None:
    """Lets everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)
