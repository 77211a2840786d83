"""A small HTTP server that answers as an engine's documentation says it does, and keeps every request it got.

For engines that can't run where the tests do. What a real one makes of the requests is proved with llama.cpp only.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
from aiohttp import web

DONE = "[DONE]"


@attrs.frozen
class Request:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


Event = dict[str, Any] | str | float
"""What is sent next; text as it is, a number: seconds of silence."""


@attrs.frozen
class Error:
    """An answer that is none."""

    status: int
    body: dict[str, Any]


Reply = Sequence[Event] | Error
"""Events of a stream, or an error."""


@attrs.define(eq=False)
class Engine:
    """The server; tests set what it answers while it runs."""

    models: dict[str, Any] = attrs.field(factory=dict[str, Any])
    answer: Callable[[Request], Reply] = lambda _: [DONE]
    requests: list[Request] = attrs.field(factory=list[Request])
    left: int = 0
    """Streams whose reader went away before their end."""
    address: str = ""
    models_status: int = 200

    @property
    def asked(self) -> list[Request]:
        """Requests for completions."""
        return [request for request in self.requests if request.method == "POST"]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Every route."""
        text = await request.text()
        seen = Request(request.method, request.path, dict(request.headers), json.loads(text) if text else {})
        self.requests.append(seen)
        if request.method == "GET":
            return web.json_response(self.models, status=self.models_status)
        reply = self.answer(seen)
        if isinstance(reply, Error):
            return web.json_response(reply.body, status=reply.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for event in reply:
                if isinstance(event, float):
                    await asyncio.sleep(event)
                    continue
                data = event if isinstance(event, str) else json.dumps(event)
                await response.write(f"data: {data}\n\n".encode())
        except (asyncio.CancelledError, ConnectionResetError):
            self.left += 1
            raise
        return response


@contextmanager
def serving(engine: Engine, certificate: ssl.SSLContext | None = None, port: int = 0) -> Iterator[Engine]:
    """Runs an engine on a loopback port, in a thread."""
    started, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def run() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", engine.handle)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=certificate).start()
        scheme = "https" if certificate else "http"
        engine.address = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=[run()], daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield engine
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


def chunks(*texts: str, finish: str = "length", logprob: float = -0.1, **more: Any) -> list[Event]:
    """A stream of `text_completion` chunks, as OpenAI's completions route sends them; `more`: with the last one."""
    events: list[Event] = [_chunk(text, logprob) for text in texts]
    last = _chunk("", logprob)
    last["choices"][0] |= {"finish_reason": finish, "logprobs": None} | more
    usage = {"prompt_tokens": 31, "completion_tokens": len(texts), "total_tokens": 31 + len(texts)}
    return [*events, last, {"object": "text_completion", "choices": [], "usage": usage}, DONE]


def _chunk(text: str, logprob: float) -> dict[str, Any]:
    logprobs = {"text_offset": [0], "tokens": [text], "token_logprobs": [logprob], "top_logprobs": [{text: logprob}]}
    choice: dict[str, Any] = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": None}
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


def card(name: str, owner: str, window: int | None = 4096) -> dict[str, Any]:
    """The reply of `/v1/models`."""
    model: dict[str, Any] = {"id": name, "object": "model", "created": 1, "owned_by": owner}
    return {"object": "list", "data": [model | ({"max_model_len": window} if window else {})]}
