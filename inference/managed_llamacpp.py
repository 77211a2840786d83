"""llama.cpp inside the worker, for models that come as one GGUF file: the worker's life and routes, its engine.

`xllamacpp` brings llama.cpp with its server, which listens on the loopback address with a key that only this process
knows; what remote llama.cpp servers are asked with asks this one too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from inference.endpoint import llamacpp_missing
from inference.remote.client import Client
from inference.remote.dialect import TooLong
from inference.remote.http import Http, Rejected, Unreachable
from inference.remote.llamacpp import LlamaCpp
from inference.wire import End, Failure, FimRequest, Piece

if TYPE_CHECKING:
    from aiohttp import ClientResponse

log = logging.getLogger(__name__)

CONTEXT, PARALLEL = 16384, 4
"""Tokens of the KV cache, shared by requests under way at once; a model trained on less gets less."""
PROMPTS_MIB = 512
"""Memory for prompts of documents that are not in the KV cache at the moment."""

Sink = Callable[[Piece | End | Failure], None]


class NotHere(Exception):
    """This model can't be served by llama.cpp here; the message says what to do."""


@attrs.frozen
class Shape:
    """What `/health` says of the model."""

    device: str
    dtype: str
    window: int


class Ticket:
    """A submitted request; setting `cancelled` ends it."""

    def __init__(self, request: FimRequest, sink: Sink):
        self.request, self.sink = request, sink
        self.task: asyncio.Task[None] | None = None
        self.begun = self.over = False

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.over

    @cancelled.setter
    def cancelled(self, wanted: bool) -> None:
        if wanted and self.task:
            self.over = True
            self.task.cancel()

    def supersede(self) -> None:
        """Ends it for a newer request of its session, and says so."""
        if not self.over:
            self.cancelled = True
            for index in range(self.request.choices):
                self.sink(End("superseded", choice=index))


class ManagedLlamaCpp:
    """The worker's engine over llama.cpp's server. `submit` belongs to the event loop's thread."""

    def __init__(self, file: str, device: str, dtype: str, loop: asyncio.AbstractEventLoop):
        """Loads the model, which takes a while: for a thread of its own. Raises `NotHere`, `dialect.Unfit`."""
        if problem := llamacpp_missing():
            raise NotHere(problem)
        if dtype != "auto":
            raise NotHere(f"a GGUF file decides its number format itself: leave `dtype` at auto, not {dtype}")
        if device not in ("auto", "cpu"):
            raise NotHere(f"llama.cpp chooses among the devices itself: set `device` to auto or cpu, not {device}")
        if not Path(file).is_file():
            raise NotHere(f"there is no file {file}")
        self._server, address, key = _serve(file, device)
        self._http = http = Http(address, key)
        self.tokens = Client(http, LlamaCpp(http))
        found = asyncio.run_coroutine_threadsafe(self.tokens.look(), loop).result()
        self._loop = loop
        self.model = Shape(f"llama.cpp {'on the CPU' if device == 'cpu' else 'on what it found'}", "gguf", found.window)
        self.markers = "found"
        self.counts: Counter[str] = Counter()
        self.step_seconds = 0.0
        self._tickets: set[Ticket] = set()
        self._passed = 0  # requests of other clients under way

    @property
    def running(self) -> int:
        """Requests in hand."""
        return len(self._tickets) + self._passed

    def figures(self) -> Mapping[str, float]:
        """Gauges for `/metrics`: llama.cpp keeps its own."""
        return {}

    def submit(self, request: FimRequest, sink: Sink) -> Ticket:
        """Begins an answer, which goes to `sink`; an older request of the same session ends."""
        for other in list(self._tickets):
            if request.session and other.request.session == request.session:
                other.supersede()
        ticket = Ticket(request, sink)
        self._tickets.add(ticket)
        ticket.task = self._loop.create_task(self._answer(ticket))
        return ticket

    @contextlib.asynccontextmanager
    async def passing(self, method: str, path: str, body: bytes) -> AsyncGenerator[ClientResponse | None]:
        """llama.cpp's own answer to another client's request; None if it can't be had."""
        self._passed += 1
        try:
            async with await self._http.raw(method, path, body) as reply:
                yield reply
        except Unreachable as error:
            log.warning("%s: llama.cpp: %s", path, error)
            yield None
        finally:
            self._passed -= 1

    def close(self) -> None:
        """Ends what is under way and the server."""
        for ticket in list(self._tickets):
            ticket.cancelled = True
        self._server = None

    async def _answer(self, ticket: Ticket) -> None:
        self.counts["requests"] += 1
        began = time.perf_counter()
        try:
            async with contextlib.aclosing(self.tokens.fim(ticket.request)) as messages:
                async for message in messages:
                    if not ticket.over:
                        ticket.sink(message)
                    if isinstance(message, End):
                        self._count(message)
        except TooLong as error:
            ratio = self.tokens.chars_per_token
            ticket.sink(Failure("too_long", str(error), error.tokens, error.window, round(ratio, 3)))
        except (Unreachable, Rejected) as error:
            log.warning("request %s: llama.cpp: %s", ticket.request.id, error)
            ticket.sink(Failure("failed", f"llama.cpp: {error}"))
        finally:
            self.step_seconds += time.perf_counter() - began
            self._tickets.discard(ticket)

    def _count(self, end: End) -> None:
        self.counts.update(
            {name: int(getattr(end, name)) for name in ("prompt", "reused", "prefilled", "decoded")}
            | {f"end_{end.reason}": 1}
        )


def _serve(file: str, device: str) -> tuple[Any, str, str]:
    """llama.cpp's server over a file, its address and its key."""
    library: Any = import_module("xllamacpp")
    parameters, key = library.CommonParams(), secrets.token_urlsafe(32)
    parameters.model.path, parameters.model_alias = file, {Path(file).stem}
    parameters.n_ctx, parameters.n_parallel, parameters.kv_unified = CONTEXT, PARALLEL, True
    parameters.cache_ram_mib = PROMPTS_MIB
    parameters.port, parameters.api_keys, parameters.verbosity = 0, [key], -1
    # Threads that spin while they wait make everything slow on a machine that has other work.
    parameters.cpuparams.poll = parameters.cpuparams_batch.poll = 0
    if device == "cpu":
        parameters.n_gpu_layers = 0
    try:
        server = library.Server(parameters)
    except Exception as error:  # its own kinds differ from version to version
        raise NotHere(f"llama.cpp can't load {file}: {error or type(error).__name__}") from error
    return server, str(server.listening_address), key
