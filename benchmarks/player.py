"""Plays a typing script against a real language server, and keeps what each request cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any

import attrs

from benchmarks.sources import SourceFile
from benchmarks.typing_script import Answer, Kind, Step, offset, position
from evaluation.lsp_client import LspClient
from inference.wire import converter
from lsp_server.request import Trace

SECONDS = 120.0
"""Longest time that an answer may take."""


@attrs.define
class Asked:
    """One request as the editor saw it, and the server's trace of it."""

    file: str
    kind: Kind
    uri: str
    version: int
    ms: float = 0.0
    """From sending the edit to the answer."""
    answer: dict[str, Any] | None = None
    trace: Trace | None = None
    place: tuple[str, int] = ("", 0)
    """The text and the cursor in it, after an acceptance and at a line break."""

    @property
    def superseded(self) -> bool:
        """A newer key came first: null is the right answer. (Superseded before it began, it leaves no trace.)"""
        return self.trace is None or self.trace.outcome == "superseded"

    @property
    def first_ms(self) -> float | None:
        """To the first token: the server's preparation, and the worker's time; None if none was decoded."""
        trace = self.trace
        if trace is None or trace.end is None or not trace.end.decoded:
            return None
        return trace.prepare_ms + trace.end.timing.first_token


class Player:
    """One server process with one configuration, and every request made of it."""

    def __init__(self, name: str, client: LspClient, rhythm: Callable[[], float] | None):
        self.name, self._client, self._rhythm = name, client, rhythm
        self.asked: list[Asked] = []
        self._open: list[tuple[Asked, asyncio.Future[Any]]] = []
        self._uri, self._text, self._version, self._file = "", "", 0, ""
        client.on_notification = self._notified

    @classmethod
    async def start(
        cls, name: str, settings: dict[str, Any], errors: IO[bytes] | None, rhythm: Callable[[], float] | None = None
    ) -> Player:
        """Starts a server whose worker is there already; `errors` takes what it logs.

        `rhythm`: seconds from one key to the next, whether the answer has come or not; None: each key waits for it.
        """
        client = await LspClient.start(settings | {"trace": True}, stderr=errors)
        player = cls(name, client, rhythm)
        await client.initialize()
        await client.ready()
        return player

    async def close(self) -> None:
        """Ends the server."""
        await self._client.close()

    async def lead(
        self, source: SourceFile, text: str, steps: Generator[Step, Answer | None, None], folder: Path
    ) -> list[Step]:
        """Types a file, letting what is shown decide what is accepted; returns the steps, for others to repeat."""
        self._begin(source, text, folder)
        played: list[Step] = []
        answer: Answer | None = None
        while True:
            try:
                step = steps.send(answer) if played else next(steps)
            except StopIteration:
                break
            answer = await self._do(step)
            played.append(step)
        await self._finish()
        return played

    async def repeat(self, source: SourceFile, text: str, steps: list[Step], folder: Path) -> str:
        """Types a file exactly as another player did; returns the text at the end."""
        self._begin(source, text, folder)
        for step in steps:
            await self._do(step)
        await self._finish()
        return self._text

    async def ask_afresh(self, source: SourceFile, text: str, cursor: int, folder: Path) -> dict[str, Any] | None:
        """What is shown in a text that was just opened, however long that takes."""
        self._begin(source, text, folder)
        asked = self._ask(Step("arrive", cursor), time.perf_counter())
        await self._finish()
        return asked.answer

    def _begin(self, source: SourceFile, text: str, folder: Path) -> None:
        self._file, self._text, self._version = source.name, text, 1
        self._uri = (folder / source.name).as_uri()
        self._client.open(self._uri, source.language, text)

    async def _finish(self) -> None:
        await self._settle()
        self._client.notify("textDocument/didClose", {"textDocument": {"uri": self._uri}})

    async def _do(self, step: Step) -> Answer | None:
        """Makes one step; the ghost text that came of it, if the step waits for it."""
        began = time.perf_counter()
        if step.edit:
            self._change(*step.edit)
        shown = None
        if step.asks:
            asked = self._ask(step, began)
            if self._rhythm:
                _, future = self._open[-1]
                end = began + self._rhythm()
                await asyncio.wait([future], timeout=max(0.0, end - time.perf_counter()))
                shown = asked.answer if future.done() else None
                await asyncio.sleep(max(0.0, end - time.perf_counter()))
            elif step.waits:
                await self._settle()
                shown = asked.answer
        else:
            self._rest(step.cursor)
        answer = self._placed(shown) if shown else None
        if not (self._rhythm and step.asks):
            await asyncio.sleep(step.pause)
        return answer

    def _change(self, start: int, end: int, new: str) -> None:
        self._version += 1
        span = (position(self._text, start), position(self._text, end), new)
        self._client.change(self._uri, self._version, span)
        self._text = self._text[:start] + new + self._text[end:]

    def _ask(self, step: Step, began: float) -> Asked:
        asked = Asked(self._file, step.kind, self._uri, self._version)
        if step.kind in ("accept", "newline"):
            asked.place = self._text, step.cursor

        def done(future: asyncio.Future[Any]) -> None:
            asked.ms = (time.perf_counter() - began) * 1000
            if not future.cancelled() and not future.exception() and (found := future.result()):
                asked.answer = found["items"][0]

        _, future = self._client.ask_inline(self._uri, *position(self._text, step.cursor))
        future.add_done_callback(done)
        self.asked.append(asked)
        self._open.append((asked, future))
        return asked

    async def _settle(self) -> None:
        """Waits for every answer that is due; an error is raised."""
        waiting, self._open = self._open, []
        for _, future in waiting:
            await asyncio.wait_for(future, SECONDS)
        await asyncio.sleep(0)  # the callbacks of the last one

    def _rest(self, cursor: int) -> None:
        line, character = position(self._text, cursor)
        self._client.notify(
            "fimble/cursor",
            {
                "textDocument": {"uri": self._uri, "version": self._version},
                "position": {"line": line, "character": character},
            },
        )

    def _placed(self, item: dict[str, Any]) -> Answer:
        places = [offset(self._text, at["line"], at["character"]) for at in item["range"].values()]
        return Answer(min(places), max(places), item["insertText"])

    def _notified(self, method: str, params: Any) -> None:
        if method != "fimble/trace":
            return
        trace = converter.structure(params, Trace)
        untraced = [a for a in self.asked[-8:] if a.trace is None and (a.uri, a.version) == (trace.uri, trace.version)]
        if untraced:
            # Of two requests at one version (no edit between them) the older one is the one that is superseded.
            untraced[0 if trace.outcome == "superseded" else -1].trace = trace
