"""Answers on their way out: one JSON object, or server-sent events that end with `[DONE]`."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any, Protocol

import attrs
from aiohttp import web

from inference.routes.refusals import Refusal, dumps
from inference.routes.running import Ended, Run, Said


class Form(Protocol):
    """How one route words its answers."""

    object: str
    chunk_object: str

    def whole(self, said: list[Said], reason: str, choice: int) -> dict[str, Any]:
        """A choice, all of it."""
        ...

    def first(self, choice: int) -> dict[str, Any] | None:
        """What a choice's stream begins with."""
        ...

    def delta(self, said: Said) -> dict[str, Any]:
        """A part of a choice."""
        ...

    def last(self, choice: int, reason: str) -> dict[str, Any]:
        """A choice's end."""
        ...


@attrs.frozen
class Call:
    """One request as it was understood."""

    run: Run
    form: Form
    model: str
    choices: int
    stream: bool = False
    include_usage: bool = False
    id: str = attrs.field(factory=lambda: uuid.uuid4().hex)
    created: int = attrs.field(factory=lambda: int(time.time()))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers; when the client leaves, the handler is cancelled and with it the run. Raises `Refusal`."""
        events = self.run.events()
        try:
            return await (self._stream(request, events) if self.stream else self._at_once(events))
        finally:
            await events.aclose()

    async def _at_once(self, events: AsyncGenerator[Said | Ended, None]) -> web.Response:
        said: list[list[Said]] = [[] for _ in range(self.choices)]
        reasons = [""] * self.choices
        async for event in events:
            if isinstance(event, Said):
                said[event.choice].append(event)
            else:
                reasons[event.choice] = event.reason
        choices = [self.form.whole(said[i], reasons[i], i) for i in range(self.choices)]
        return web.json_response(
            self._envelope(self.form.object, choices) | {"usage": self.run.usage.json()}, dumps=dumps
        )

    async def _stream(self, request: web.Request, events: AsyncGenerator[Said | Ended, None]) -> web.StreamResponse:
        first = await anext(events)  # what is refused at once is refused by its status
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        for choice in range(self.choices):
            if begun := self.form.first(choice):
                await self._send(response, begun)
        try:
            await self._send(response, self._chunk(first))
            async for event in events:
                await self._send(response, self._chunk(event))
            if self.include_usage:
                await self._send(response, None)
            await response.write(b"data: [DONE]\n\n")
        except Refusal as refused:  # too late for a status
            await response.write(f"data: {dumps(refused.body())}\n\n".encode())
        await response.write_eof()
        return response

    def _chunk(self, event: Said | Ended) -> dict[str, Any]:
        return self.form.delta(event) if isinstance(event, Said) else self.form.last(event.choice, event.reason)

    async def _send(self, response: web.StreamResponse, choice: dict[str, Any] | None) -> None:
        chunk = self._envelope(self.form.chunk_object, [choice] if choice else [])
        if self.include_usage:
            chunk["usage"] = None if choice else self.run.usage.json()
        await response.write(f"data: {dumps(chunk)}\n\n".encode())

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        prefix = "chatcmpl" if kind.startswith("chat") else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
