"""The resident worker as the server sees it: found or started, watched while it loads, asked, restarted if it died."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import time
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, Literal

import attrs

from inference import keys, wire
from inference.endpoint import Endpoint, Unsafe, WorkerSettings, endpoint
from inference.version import VERSION
from inference.wire import End, Failure, FimRequest, Health, Piece

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

POLL = 0.1
"""Seconds between looks at a worker that is starting or loading."""
RETRY = 30.0
"""Seconds after a failure before requests bring about another try; `restart` tries at once."""
CRASHES = 2
"""Starts that may end in a crash before the user is told."""


class Refused(Exception):
    """The worker answered a request with an error."""

    def __init__(self, failure: Failure):
        super().__init__(failure.message)
        self.failure = failure


class Excluded(Refused):
    """The document may not leave this machine, and nobody here answers; the log has it, once a document."""


class Unanswered(Exception):
    """One of the worker's other routes refused a request; the message says why."""


class Lost(Exception):
    """The worker went away, before or during an answer."""


@attrs.frozen
class State:
    """Where the worker stands. `message` is for the user; `problem` says that they must act."""

    name: Literal["absent", "loading", "ready", "failed"]
    message: str = ""
    progress: float = 0.0
    health: Health | None = None
    can_restart: bool = False


class WorkerBackend:
    """One worker endpoint. Everything runs on the server's event loop; nothing here blocks it."""

    def __init__(self, settings: WorkerSettings, on_state: Callable[[State], None] = lambda _: None):
        self._settings, self._on_state = settings, on_state
        self._session: aiohttp.ClientSession | None = None
        self._base = settings.url.rstrip("/") or "http://worker"
        self._bringing: asyncio.Task[None] | None = None
        self._retry_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self.state = State("absent")

    @property
    def ready(self) -> Health | None:
        """The loaded worker's figures, None while there is none."""
        return self.state.health if self.state.name == "ready" else None

    def ensure(self) -> asyncio.Task[None]:
        """Finds or starts the worker in the background; the task ends when it is ready or has failed.

        After a failure nothing is tried for `RETRY` seconds, however many keystrokes ask.
        """
        fresh_failure = self.state.name == "failed" and time.monotonic() < self._retry_at
        if self._bringing is None or (self._bringing.done() and not fresh_failure):
            self._bringing = asyncio.create_task(self._bring_up())
        return self._bringing

    async def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        """Streams the answer; closing the iterator cancels the generation.

        Raises `Refused` with the worker's reason, or `Lost`; after that `ensure` brings another worker.
        """
        session = self._session
        if session is None:
            raise Lost("not connected to a worker")
        try:
            async with session.post(f"{self._base}/v1/fim", data=wire.dumps(request)) as response:
                if response.status != 200:
                    raise Refused(wire.loads(await response.read(), Failure))
                ends = 0
                async for line in response.content:
                    message = _message(line)
                    ends += isinstance(message, End)
                    yield message
                if ends < request.choices:
                    raise Lost("the worker ended in the middle of an answer")
        except (OSError, _client_error()) as error:
            self._become(State("absent", f"the worker is gone: {error or type(error).__name__}"))
            raise Lost(str(error)) from error
        except Lost as error:
            self._become(State("absent", str(error)))
            raise

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Streams the answer of one of the worker's OpenAI routes; closing it cancels. Raises `Unanswered`, `Lost`."""
        if self._session is None:
            raise Lost("not connected to a worker")
        try:
            async with self._session.post(self._base + path, json={**body, "stream": True}) as response:
                if response.status != 200:
                    raise Unanswered((await response.json())["error"]["message"])
                async for line in response.content:
                    if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                        continue
                    event: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
                    if "error" in event:
                        raise Unanswered(event["error"]["message"])
                    yield event
        except (OSError, _client_error()) as error:
            raise Lost(str(error) or type(error).__name__) from error

    async def stop(self) -> bool:
        """Asks the worker to end; False if none was there. Returns once its socket is gone.

        One on another machine is left alone: it may serve others.
        """
        where = self._where()
        if where is None or await self._health(where) is None:
            return False
        await self._stop(where)
        return True

    async def look(self) -> Health | None:
        """The worker's health if one is running, compatible or not; starts nothing."""
        return await self._health(self._where())

    async def restart(self) -> None:
        """Replaces the worker, whatever its state."""
        if self._bringing:
            self._bringing.cancel()
            self._bringing = None
        await self.stop()
        await self.ensure()

    async def close(self) -> None:
        """Lets go of the worker, which lives on."""
        if self._bringing:
            self._bringing.cancel()
        await self._disconnect()

    def _where(self) -> Endpoint | None:
        """The place of this machine's worker; None if it is on another."""
        return None if self._settings.url else endpoint(self._settings)

    async def _bring_up(self) -> None:
        crashes = 0
        try:
            where = self._where()
            while True:
                health = await self._health(where)
                if health is None and where is None:
                    return self._become(State("failed", _unreachable(self._settings.url), can_restart=True))
                if health is None:
                    assert where
                    crashes += self._crashed()
                    if crashes >= CRASHES:
                        return self._become(State("failed", _crash_message(where), can_restart=True))
                    if self._process is None:
                        self._become(State("loading", "starting the worker"))
                        self._process = where.spawn()
                elif await self._decide(where, health):
                    return None
                await asyncio.sleep(POLL)
        except (Unsafe, OSError, keys.BadKey) as error:
            self._become(State("failed", f"the worker can't be reached: {error}"))

    async def _decide(self, where: Endpoint | None, health: Health) -> bool:
        """What follows from a worker's health; True when there is nothing more to wait for."""
        if where is None and health.version != VERSION:
            self._become(State("failed", _other_version(self._settings.url, health)))
            return True
        if where and health.version != VERSION and _older(health.version, VERSION):
            log.info("replacing a worker of version %s", health.version)
            await self._stop(where)
            return False
        if where and (health.version, health.fingerprint) != (VERSION, self._settings.fingerprint):
            self._become(State("failed", _mismatch(health), can_restart=True))
        elif health.status == "failed":
            self._become(State("failed", f"the model can't be loaded: {health.error}", can_restart=True))
        elif health.status == "ready":
            self._become(State("ready", f"{health.model} on {health.device}", 1.0, health))
        else:
            self._become(State("loading", health.stage, health.progress))
            return False
        return True

    def _crashed(self) -> bool:
        """Whether the worker that was started has ended without leaving the place to another."""
        status = self._process.poll() if self._process else None
        if status is None:
            return False
        self._process = None
        return status not in (0, 75)  # 75: another one holds the lock

    async def _health(self, where: Endpoint | None) -> Health | None:
        import aiohttp

        try:
            await self._connect(where)
            assert self._session
            async with self._session.get(f"{self._base}/health", timeout=aiohttp.ClientTimeout(5)) as response:
                if where is None and response.status == 401:
                    raise keys.BadKey(f"{self._base} refuses the key from {keys.source(self._settings.key_file)}")
                return wire.loads(await response.read(), Health) if response.status == 200 else None
        except (FileNotFoundError, TimeoutError, ValueError, aiohttp.ClientError) as error:  # ValueError: no `Health`
            log.debug("no worker: %s", error)
            await self._disconnect()
            return None

    async def _connect(self, where: Endpoint | None) -> None:
        """Opens the connection pool; kept between keystrokes. Raises FileNotFoundError, `Unsafe`, `keys.BadKey`."""
        import aiohttp  # late: 0.2 s that the answer to `initialize` need not wait for

        if self._session:
            return
        headers: dict[str, str] = {}
        if where is None:
            headers["Authorization"] = f"Bearer {keys.asking(self._settings.key_file)}"
            connector: aiohttp.BaseConnector = aiohttp.TCPConnector()
        elif self._settings.uses_unix:
            where.check_socket()
            connector = aiohttp.UnixConnector(str(where.socket))
        else:
            port, token = where.read_address()
            self._base = f"http://127.0.0.1:{port}"
            headers["Authorization"] = f"Bearer {token}"
            connector = aiohttp.TCPConnector()
        # No total time-out: a long answer is ended by cancelling, and a loading model takes what it takes.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        self._session = aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout)

    async def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session:
            await session.close()

    async def _stop(self, where: Endpoint) -> None:
        with contextlib.suppress(_client_error(), OSError):
            assert self._session
            async with self._session.post(f"{self._base}/v1/stop"):
                pass
        for _ in range(100):
            await self._disconnect()
            if await self._health(where) is None:
                return
            await asyncio.sleep(POLL)

    def _become(self, state: State) -> None:
        if state.name == "failed":
            self._retry_at = time.monotonic() + RETRY
        if state != self.state:
            self.state = state
            self._on_state(state)


def _message(line: bytes) -> Piece | End:
    """One line of a stream. A failure in the middle raises `Refused`."""
    if line.startswith(b'{"error"'):
        raise Refused(wire.loads(line, Failure))
    return wire.loads(line, End) if line.startswith(b'{"reason"') else wire.loads(line, Piece)


def _client_error() -> type[Exception]:
    import aiohttp

    return aiohttp.ClientError


def _older(a: str, b: str) -> bool:
    from packaging.version import Version

    return Version(a) < Version(b)


def _unreachable(url: str) -> str:
    return (
        f"no worker answers at {url} (`worker.url`): start it there with `fimble worker run --listen HOST:PORT`, "
        "and see that the tunnel to it is open"
    )


def _other_version(url: str, health: Health) -> str:
    return f"the worker at {url} is fimble {health.version}, this server is {VERSION}: install the same version on both"


def _mismatch(health: Health) -> str:
    if health.version != VERSION:
        return (
            f"restart the editor: a newer worker (fimble {health.version}) is running, this server is {VERSION}; "
            "or restart the worker"
        )
    return (
        f"restart the worker: it was started with other settings ({health.model} on {health.device or '?'} in "
        f"{health.dtype or '?'}) than this editor's"
    )


def _crash_message(where: Endpoint) -> str:
    with contextlib.suppress(OSError):
        tail = where.crash_log.read_text("utf-8", "replace").strip().splitlines()[-1:]
        return f"the worker dies at start: {' '.join(tail) or 'it said nothing'} (log: {where.log})"
    return f"the worker dies at start (log: {where.log})"
