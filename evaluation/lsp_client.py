"""A small LSP client over a server's standard input and output, for evaluation, benchmarks and protocol tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

Params = dict[str, Any] | list[Any] | None

SERVER = [str(Path(sys.executable).with_name("fimble"))]

CAPABILITIES: dict[str, Any] = {
    "general": {"positionEncodings": ["utf-16"]},
    "textDocument": {"inlineCompletion": {}},
    "window": {"workDoneProgress": True},
    "experimental": {"fimble": {"refresh": True}},
    "workspace": {"configuration": True, "didChangeConfiguration": {"dynamicRegistration": True}},
}


class LspError(Exception):
    """The server answered a request with an error."""

    def __init__(self, code: int, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code


class LspClient:
    """One server process. `settings` is what the client's configuration holds in the section `fimble`."""

    def __init__(self, process: asyncio.subprocess.Process, settings: dict[str, Any]):
        self.process = process
        self.settings = settings
        self.notifications: list[tuple[str, Any]] = []
        self.requests: list[tuple[str, Any]] = []
        self.on_notification: Callable[[str, Any], None] = lambda _method, _params: None
        self._arrived = asyncio.Condition()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls,
        settings: dict[str, Any] | None = None,
        *,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        command: list[str] | None = None,
        stderr: IO[bytes] | int | None = None,
    ) -> LspClient:
        process = await asyncio.create_subprocess_exec(
            *(command or SERVER),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=env,
            cwd=cwd,
            limit=2**26,
        )
        return cls(process, settings or {})

    async def initialize(self, capabilities: dict[str, Any] | None = None, **more: Any) -> Any:
        result = await self.request(
            "initialize",
            {"processId": None, "rootUri": None, "capabilities": capabilities or CAPABILITIES, **more},
        )
        self.notify("initialized", {})
        return result

    def send(self, message: dict[str, Any]) -> None:
        self.send_raw(json.dumps({"jsonrpc": "2.0", **message}).encode())

    def send_raw(self, body: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def notify(self, method: str, params: Params) -> None:
        self.send({"method": method, "params": params})

    def ask(self, method: str, params: Params) -> tuple[int, asyncio.Future[Any]]:
        """Sends a request; its id and the future answer."""
        self._next += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[self._next] = future
        self.send({"id": self._next, "method": method, "params": params})
        return self._next, future

    async def request(self, method: str, params: Params, seconds: float = 60) -> Any:
        return await asyncio.wait_for(self.ask(method, params)[1], seconds)

    def open(self, uri: str, language: str, text: str, version: int = 1) -> None:
        document = {"uri": uri, "languageId": language, "version": version, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})

    def change(self, uri: str, version: int, *changes: tuple[tuple[int, int], tuple[int, int], str] | str) -> None:
        items: list[dict[str, Any]] = []
        for change in changes:
            if isinstance(change, str):
                items.append({"text": change})
            else:
                (sl, sc), (el, ec), text = change
                span = {"start": {"line": sl, "character": sc}, "end": {"line": el, "character": ec}}
                items.append({"range": span, "text": text})
        self.notify(
            "textDocument/didChange",
            {"textDocument": {"uri": uri, "version": version}, "contentChanges": items},
        )

    def ask_inline(self, uri: str, line: int, character: int) -> tuple[int, asyncio.Future[Any]]:
        params = {
            "textDocument": {"uri": uri},
            "position": {"line": line, "character": character},
            "context": {"triggerKind": 2},
        }
        return self.ask("textDocument/inlineCompletion", params)

    async def inline(self, uri: str, line: int, character: int, seconds: float = 60) -> dict[str, Any] | None:
        """The first item of the answer, or None."""
        result = await asyncio.wait_for(self.ask_inline(uri, line, character)[1], seconds)
        return result["items"][0] if result else None

    async def until(self, method: str, fits: Callable[[Any], bool] = lambda _: True, seconds: float = 60) -> Any:
        """The first notification or request from the server (also one that came before) that fits."""

        def found() -> list[Any]:
            return [p for m, p in self.notifications + self.requests if m == method and fits(p)]

        async with self._arrived:
            await asyncio.wait_for(self._arrived.wait_for(lambda: bool(found())), seconds)
        return found()[0]

    async def ready(self, seconds: float = 120) -> None:
        """Waits until the worker is loaded; only a client that declares `experimental.fimble` is told."""
        await self.until("fimble/refresh", seconds=seconds)

    async def close(self) -> int:
        """Shuts the server down as an editor does; its exit status."""
        if self.process.returncode is None:
            with contextlib.suppress(LspError, TimeoutError):
                await self.request("shutdown", None, 10)
            self.notify("exit", None)
            await asyncio.wait_for(self.process.wait(), 10)
        self._reader.cancel()
        return self.process.returncode or 0

    async def _read(self) -> None:
        assert self.process.stdout
        while header := await self.process.stdout.readline():
            length = 0
            while header.strip():
                name, _, value = header.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
                header = await self.process.stdout.readline()
            message = json.loads(await self.process.stdout.readexactly(length))
            await self._take(message)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the server closed the connection"))

    async def _take(self, message: dict[str, Any]) -> None:
        method, number = message.get("method"), message.get("id")
        if method is None:
            future = self._waiting.pop(number, None) if isinstance(number, int) else None
            if future and not future.done():
                error = message.get("error")
                if error:
                    future.set_exception(LspError(error["code"], error["message"]))
                else:
                    future.set_result(message.get("result"))
            return
        if number is not None:
            self.requests.append((method, message.get("params")))
            self.send({"id": number, "result": self._answer(method, message.get("params"))})
        else:
            self.notifications.append((method, message.get("params")))
            self.on_notification(method, message.get("params"))
        async with self._arrived:
            self._arrived.notify_all()

    def _answer(self, method: str, params: Any) -> Any:
        if method == "workspace/configuration":
            return [self.settings for _ in params["items"]]
        if method == "workspace/applyEdit":
            return {"applied": True}
        return None
