"""The resident worker process: HTTP around the engine, and the worker's life from start to idle exit.

Started as `python -P -m inference.worker SETTINGS`, SETTINGS being `WorkerSettings` as JSON. It answers `GET /health`
before torch is imported, and is the only one of its endpoint: it holds the endpoint's file lock while it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import logging.handlers
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.typedefs import Handler
from filelock import FileLock, Timeout

from inference import keys, wire
from inference.answers import Refused, answer, failure, worded
from inference.endpoint import Endpoint, WorkerSettings, endpoint
from inference.routes import Routes
from inference.routes.passing import Passing
from inference.version import VERSION
from inference.wire import End, Failure, FimRequest, Health, Piece

if TYPE_CHECKING:
    from inference.engine import Engine
    from inference.managed_llamacpp import ManagedLlamaCpp
    from inference.weights import Loaded

log = logging.getLogger("inference.worker")

ALREADY_RUNNING = 75
"""Exit status when another worker holds the lock."""
FAILED_STAYS = 60.0
"""Seconds that a worker whose model could not be loaded stays to say so."""


class Worker:
    """One model, one engine, one listening socket."""

    def __init__(self, where: Endpoint):
        self._where = where
        self._published = where.socket if where.settings.uses_unix else where.address
        self._inode = 0
        self._settings = where.settings
        self._stage, self._progress, self._error = "starting", 0.0, ""
        self._loaded: Loaded | ManagedLlamaCpp | None = None
        self._engine: Engine | ManagedLlamaCpp | None = None
        self._last_use = time.monotonic()
        self._started = time.monotonic()
        self._token = ""
        self._key = ""  # of the address that is reached from elsewhere
        self._loopback = 0  # the port of the loopback transport
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serves until it is stopped or has been idle for long enough."""
        # handler_cancellation: a closed stream must free the device, not run on.
        app = web.Application(middlewares=[worded, self._authorise], client_max_size=64 * 2**20)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.post("/v1/fim", self._fim),
                web.post("/v1/stop", self._stop_request),
                *self._routes(),
            ]
        )
        if self._settings.listen:
            self._key = keys.serving(self._settings.key_file)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=2)
        await runner.setup()
        await self._listen(runner)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(name, self._stop.set)
        threading.Thread(target=self._load, args=[loop], name="load", daemon=True).start()
        await self._until_idle()
        # Nobody may connect any more before the lock is given up to a successor.
        if not self._unreachable():
            self._published.unlink()
        await runner.cleanup()
        if self._engine:
            self._engine.close()
        log.info("stopped")

    async def _listen(self, runner: web.AppRunner) -> None:
        where = self._where
        where.socket.unlink(missing_ok=True)
        where.address.unlink(missing_ok=True)
        if self._settings.uses_unix:
            await web.UnixSite(runner, str(where.socket)).start()
            where.socket.chmod(0o600)
        else:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self._loopback = runner.addresses[0][1]
            self._token = where.write_address(self._loopback)
        self._inode = self._published.stat().st_ino
        log.info("listening on %s", where.socket if self._settings.uses_unix else runner.addresses[0])
        if self._settings.listen:
            host, port = split_address(self._settings.listen)
            await web.TCPSite(runner, host, port).start()
            source = keys.source(self._settings.key_file)
            log.info("listening on %s, with a key from %s", runner.addresses[1:], source)

    @web.middleware
    async def _authorise(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given, elsewhere = request.headers.get("Authorization", ""), self._from_elsewhere(request)
        expected = self._key if elsewhere else self._token
        same = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {expected}".encode())
        if (expected or elsewhere) and not same:
            wanted = "this worker wants its key" if elsewhere else "this worker serves only the user who started it"
            raise Refused(Failure("unauthorised", f"{wanted}: Authorization: Bearer …"))
        return await handler(request)

    def _from_elsewhere(self, request: web.Request) -> bool:
        """Whether a request came in where `listen` says: neither by the Unix socket nor by the loopback transport."""
        here: object = request.transport.get_extra_info("sockname") if request.transport else None
        return isinstance(here, tuple) and (self._settings.uses_unix or cast(Any, here)[1] != self._loopback)

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            (self._load_into_llamacpp if self._settings.is_gguf else self._load_into_torch)(loop)
            self._report("ready", 1.0)
        except Exception as error:  # whatever it is, the user must see it in /health
            log.exception("loading %s failed", self._settings.model)
            self._error = str(error) or type(error).__name__

    def _load_into_torch(self, _: asyncio.AbstractEventLoop) -> None:
        from inference.weights import load  # late: /health must answer before torch is there

        settings = self._settings
        self._loaded = loaded = load(settings.model, settings.device, settings.dtype, self._report)
        from inference.engine import Engine

        opening = loaded.config.opening
        self._engine = Engine(loaded.model, loaded.tokens, loaded.markers, loaded.no_infilling, opening=opening)

    def _load_into_llamacpp(self, loop: asyncio.AbstractEventLoop) -> None:
        from inference.managed_llamacpp import ManagedLlamaCpp

        settings = self._settings
        self._report("loading the model into llama.cpp", 0.1)
        self._loaded = self._engine = ManagedLlamaCpp(settings.model, settings.device, settings.dtype, loop)

    def _report(self, stage: str, progress: float) -> None:
        news, self._stage, self._progress = stage != self._stage, stage, progress
        if news:
            log.info("%s (%.0f %%, %.1f s)", stage, progress * 100, time.monotonic() - self._started)

    async def _until_idle(self) -> None:
        limit = self._settings.idle_minutes * 60
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), min(1.0, max(0.05, limit / 10)) if limit else 1.0)
            if self._unreachable():
                log.warning("the socket is gone: nobody can reach this worker any more")
                return
            if self._idle() > (FAILED_STAYS if self._error else limit or float("inf")):
                log.info("idle for %.0f s", self._idle())
                return

    def _unreachable(self) -> bool:
        """Whether the socket or address file was removed or replaced under us (a cleaner of old files, say)."""
        try:
            return self._inode != self._published.stat().st_ino
        except FileNotFoundError:
            return True

    def _idle(self) -> float:
        if (self._engine and self._engine.running) or (self._engine is None and not self._error):
            self._last_use = time.monotonic()
        return time.monotonic() - self._last_use

    async def _health(self, _: web.Request) -> web.Response:
        return answer(self.health())

    def health(self) -> Health:
        """The worker's state at this moment."""
        loaded, engine, settings = self._loaded, self._engine, self._settings
        return Health(
            status="failed" if self._error else "ready" if engine else "loading",
            version=VERSION,
            model=settings.model,
            fingerprint=settings.fingerprint,
            pid=os.getpid(),
            stage=self._stage,
            progress=round(self._progress, 3),
            error=self._error,
            device=loaded.model.device if loaded else "",
            dtype=loaded.model.dtype if loaded else "",
            window=loaded.model.window if loaded else 0,
            chars_per_token=round(loaded.tokens.chars_per_token, 3) if loaded else 0.0,
            infilling=loaded is None or loaded.markers is not None,
            idle_s=round(self._idle(), 1),
            running=engine.running if engine else 0,
        )

    async def _metrics(self, _: web.Request) -> web.Response:
        from inference.metrics import exposition

        return web.Response(body=exposition(self.health(), self._engine), content_type="text/plain", charset="utf-8")

    async def _stop_request(self, request: web.Request) -> web.Response:
        if self._from_elsewhere(request):  # it may serve many
            return failure(Failure("unauthorised", "a worker is stopped on its own machine: `fimble worker stop`"))
        log.info("asked to stop")
        self._stop.set()
        return web.Response(status=204)

    async def _fim(self, request: web.Request) -> web.StreamResponse:
        self._last_use = time.monotonic()
        try:
            asked = wire.loads(await request.text(), FimRequest)
        except (ValueError, LookupError) as error:  # LookupError: a charset nobody knows
            return failure(Failure("malformed", f"malformed request: {error}"))
        engine = self._ready()
        if isinstance(engine, Failure):
            return failure(engine)
        return await self._stream(request, asked, engine)

    def _ready(self) -> Engine | ManagedLlamaCpp | Failure:
        """The engine; or why there is none."""
        self._last_use = time.monotonic()
        if self._error:
            return Failure("failed", self._error)
        return self._engine or Failure("loading", f"the model is still loading: {self._stage}")

    def _routes(self) -> list[web.RouteDef]:
        """Those of other clients."""
        if self._settings.is_gguf:
            return Passing(lambda: cast("ManagedLlamaCpp | Failure", self._ready())).table()
        return Routes(self._settings.model, self._serving).table()

    def _serving(self) -> tuple[Loaded, Engine] | Failure:
        """The model and its engine; or why there is none."""
        engine: Any = self._ready()
        return engine if isinstance(engine, Failure) else (cast("Loaded", self._loaded), engine)

    async def _stream(
        self, request: web.Request, asked: FimRequest, engine: Engine | ManagedLlamaCpp
    ) -> web.StreamResponse:
        """Streams one answer; whatever ends this coroutine early cancels the generation."""
        loop, replies = asyncio.get_running_loop(), asyncio.Queue[Piece | End | Failure]()

        def sink(message: Piece | End | Failure) -> None:
            loop.call_soon_threadsafe(replies.put_nowait, message)

        ticket = engine.submit(asked, sink)
        try:
            message = await replies.get()
            if isinstance(message, Failure):
                return failure(message)
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "X-Request-Id": asked.id})
            await response.prepare(request)
            ends = 0
            while True:
                await response.write(wire.dumps(message) + b"\n")
                ends += isinstance(message, End)
                if ends == asked.choices or isinstance(message, Failure):
                    break
                message = await replies.get()
            await response.write_eof()
            return response
        finally:
            ticket.cancelled = True


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPv6]:PORT`. Raises `ValueError`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT, such as 127.0.0.1:8765")
    return host.strip("[]"), int(port)


def _log_to(where: Endpoint) -> None:
    handler = logging.handlers.RotatingFileHandler(where.log, maxBytes=2**20, backupCount=2, encoding="utf-8")
    logging.basicConfig(
        level=logging.INFO,
        handlers=[handler],
        format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s",
    )


def main(arguments: list[str]) -> int:
    """Runs a worker in the foreground; returns its exit status."""
    where = endpoint(WorkerSettings(**json.loads(arguments[0])))
    os.chdir(where.state)
    lock = FileLock(where.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"a worker for {where.settings.model} is already running", file=sys.stderr)
        return ALREADY_RUNNING
    _log_to(where)
    log.info("fimble %s, worker for %s", VERSION, where.settings)
    try:
        asyncio.run(_run(where))
    except (keys.BadKey, ValueError, OSError) as error:  # from where it was to listen
        log.exception("can't serve")
        print(error, file=sys.stderr)
        return 1
    finally:
        lock.release()
    return 0


async def _run(where: Endpoint) -> None:
    await Worker(where).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
