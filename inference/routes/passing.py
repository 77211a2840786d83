"""Other clients' routes where llama.cpp runs inside the worker: it has them itself, so they are passed on to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web

from inference.routes.refusals import Refusal, refusal
from inference.wire import Failure

if TYPE_CHECKING:
    from inference.managed_llamacpp import ManagedLlamaCpp


class Passing:
    """The routes over a llama.cpp that may still be loading."""

    def __init__(self, engine: Callable[[], ManagedLlamaCpp | Failure]):
        """`engine`: llama.cpp, or why it is not there yet."""
        self._engine = engine

    def table(self) -> list[web.RouteDef]:
        """For the application."""
        posts = ("/v1/completions", "/v1/chat/completions", "/infill")
        return [web.get("/v1/models", self._pass), *(web.post(path, self._pass) for path in posts)]

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        """Passes on a request, and the answer as it comes; a client that leaves closes the connection there too."""
        engine = self._engine()
        if isinstance(engine, Failure):
            return refusal(engine).response()
        async with engine.passing(request.method, request.path, await request.read()) as reply:
            if reply is None:
                return Refusal("llama.cpp can't be reached; see the worker's log", None, 502).response()
            headers = {"Content-Type": reply.headers.get("Content-Type", "application/json")}
            response = web.StreamResponse(status=reply.status, headers=headers)
            await response.prepare(request)
            async for part in reply.content.iter_any():
                await response.write(part)
            await response.write_eof()
            return response
