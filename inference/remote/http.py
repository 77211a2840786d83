"""One address of an engine: JSON there and back, and answers as server-sent events."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import aiohttp

CONNECT_S = 5.0
SILENCE_S = 60.0
"""Longest wait for the next bytes of an answer, the first included: a long prompt on a small machine takes a while."""
KEPT_S = 4.0
"""A connection is kept for the next request; engines give theirs up after five seconds."""
LOOK_S = 10.0
"""For everything but answers."""
LONGEST_MESSAGE = 300
"""Characters of an engine's own words in an error."""
LONGEST_LINE = 2**20
"""Bytes, about: llama.cpp's last event repeats the prompt."""
BUSY = (408, 429, 500, 502, 503, 504)
"""Statuses after which another try, or another engine, may do."""


class Unreachable(Exception):
    """The engine is not there, or went away in the middle of an answer."""


class Rejected(Exception):
    """The engine answered with an error."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status

    @property
    def passing(self) -> bool:
        """Whether another try may do."""
        return self.status in BUSY


class Http:
    """A connection pool to `base`; the key goes into the header of each request and nowhere else."""

    def __init__(self, base: str, key: str = ""):
        self.base, self._key = base.rstrip("/"), key
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str) -> Any:
        """The JSON at `path`. Raises `Unreachable`, `Rejected`."""
        return await self._json("GET", path, None)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that answers `body`. Raises `Unreachable`, `Rejected`."""
        return await self._json("POST", path, body)

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The events that answer `body`; closing the iterator closes the connection, by which engines cancel.

        Raises `Unreachable`, `Rejected`; the stream ends with `[DONE]` or where the engine ends it.
        """
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        with self._errors():
            async with await self._open("POST", path, _bytes(body), timeout) as response:
                await self._check(response)
                async for line in response.content:
                    name, _, data = line.rstrip(b"\r\n").partition(b":")
                    if name == b"error":  # llama.cpp's form of an error in the middle
                        raise Rejected(500, self.said(data))
                    if name != b"data":
                        continue
                    if data.strip() == b"[DONE]":
                        return
                    event = cast(dict[str, Any], json.loads(data))
                    if event.get("error"):
                        raise Rejected(500, self.said(data))
                    yield event

    async def raw(self, method: str, path: str, body: bytes) -> aiohttp.ClientResponse:
        """The answer as it is, whatever it is, to be read and closed by the caller. Raises `Unreachable`."""
        import aiohttp

        with self._errors():
            return await self._open(method, path, body, aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S))

    async def close(self) -> None:
        """Lets go of all connections."""
        session, self._session = self._session, None
        if session:
            await session.close()

    def said(self, body: bytes | str) -> str:
        """The engine's words about an error, shortened, without the key."""
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
        with contextlib.suppress(ValueError, AttributeError):
            fields: Any = json.loads(text)
            error: Any = fields.get("error") or fields.get("message") or fields.get("detail") or text
            words = cast(dict[str, Any], error).get("message") if isinstance(error, dict) else None
            text = str(cast(object, words or error))
        text = " ".join(text.split())
        if self._key:
            text = text.replace(self._key, "(the key)")
        return text[:LONGEST_MESSAGE] or "it said nothing"

    async def _json(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=LOOK_S, sock_connect=CONNECT_S)
        with self._errors():
            async with await self._open(method, path, _bytes(body), timeout) as response:
                await self._check(response)
                return json.loads(await response.read())

    async def _open(
        self, method: str, path: str, body: bytes | None, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        import aiohttp  # late: 0.2 s that the answer to `initialize` need not wait for

        if self._session is None:
            headers = {"Content-Type": "application/json"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            connector = aiohttp.TCPConnector(keepalive_timeout=KEPT_S)
            self._session = aiohttp.ClientSession(headers=headers, connector=connector, read_bufsize=LONGEST_LINE)
        url, session = self.base + path, self._session
        for last in (False, True):
            try:
                # A redirect would take documents to where nobody said they may go.
                return await session.request(method, url, data=body, timeout=limits, allow_redirects=False)
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if last:  # the first was a kept connection that the engine was just giving up
                    raise
        raise AssertionError

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        if 300 <= response.status < 400:
            where = response.headers.get("Location", "elsewhere")
            raise Rejected(response.status, f"it sends on to {where}: if that is right, make it the address")
        if response.status != 200:
            raise Rejected(response.status, self.said(await response.read()))

    @contextlib.contextmanager
    def _errors(self) -> Any:
        import aiohttp

        try:
            yield
        except aiohttp.ClientConnectorCertificateError as error:
            why = f"its certificate is not valid for it: {error.certificate_error}"
            raise Unreachable(why) from error
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(os.strerror(error.errno).lower() if error.errno else str(error)) from error
        except TimeoutError as error:
            raise Unreachable("it does not answer in time") from error
        except (OSError, aiohttp.ClientError) as error:
            raise Unreachable(self.said(str(error) or type(error).__name__)) from error
        except ValueError as error:
            raise Rejected(502, f"its answer is no JSON: {error}") from error


def _bytes(body: dict[str, Any] | None) -> bytes | None:
    return None if body is None else json.dumps(body).encode()
