"""What the user sees of the server and the worker: `fimble/status` where the client takes it, else progress.

`fimble/status` goes to clients whose capabilities have `experimental.fimble.status`. Its parameters are `state`, one of
`off`, `loading`, `idle`, `working` and `error`; `message`, for the user, empty if there is nothing to say; and while
the model is loading `progress`, from 0 to 1.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lsprotocol import types

from lsp_server.backends.worker import State

if TYPE_CHECKING:
    from pygls.lsp.server import LanguageServer

WORKING_S = 0.15
"""Seconds that a request takes before the client hears that the server works: most answers come sooner."""


class Status:
    """Keeps a client's status line; silent towards a client that has not asked for it."""

    def __init__(self, server: LanguageServer):
        self.wanted = False
        self._server = server
        self._worker: State | None = None
        """None until it is known whether there is one."""
        self._enabled = True
        self._requests = 0
        self._working = False
        self._timer: asyncio.TimerHandle | None = None
        self._said: dict[str, Any] = {}

    def follow(self, state: State) -> None:
        """The worker's state has changed."""
        self._worker = state
        self._tell()

    def enable(self, enabled: bool) -> None:
        """Completions were switched on or off."""
        self._enabled = enabled
        self._tell()

    @contextmanager
    def working(self) -> Generator[None]:
        """A request is being answered."""
        self._requests += 1
        if self.wanted and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WORKING_S, self._take_long)
        try:
            yield
        finally:
            self._requests -= 1
            if self._requests == 0:
                if self._timer:
                    self._timer.cancel()
                self._timer, self._working = None, False
                self._tell()

    def _take_long(self) -> None:
        self._working = True
        self._tell()

    def _tell(self) -> None:
        status = self._status()
        if self.wanted and status and status != self._said:
            self._said = status
            self._server.protocol.notify("fimble/status", status)

    def _status(self) -> dict[str, Any] | None:
        worker = self._worker
        if not self._enabled:
            return {"state": "off", "message": ""}
        if worker is None:
            return None
        if worker.name == "loading":
            return {"state": "loading", "message": worker.message, "progress": worker.progress}
        if worker.name == "failed":
            return {"state": "error", "message": worker.message}
        working = self._working and worker.name == "ready"
        return {"state": "working" if working else "idle", "message": worker.message}


class LoadingProgress:
    """Follows the worker's state; silent towards a client that shows no progress."""

    def __init__(self, server: LanguageServer):
        self._server = server
        self._token = ""
        self._created = False
        self._latest: State | None = None

    def follow(self, state: State) -> None:
        """Begins, moves on or ends the progress."""
        window = self._server.client_capabilities.window
        if not (window and window.work_done_progress):
            return
        self._latest = state
        if state.name == "loading" and not self._token:
            self._begin()
        elif self._created:
            self._show(state)

    def _begin(self) -> None:
        token = self._token = str(uuid.uuid4())

        def created(_: object) -> None:
            # A client may take its time; by now the worker may be elsewhere.
            self._created = True
            begin = types.WorkDoneProgressBegin(title="fimble: loading the model", cancellable=False, percentage=0)
            self._server.work_done_progress.begin(token, begin)
            if self._latest:
                self._show(self._latest)

        self._server.protocol.send_request(
            types.WINDOW_WORK_DONE_PROGRESS_CREATE, types.WorkDoneProgressCreateParams(token), created
        )

    def _show(self, state: State) -> None:
        if state.name == "loading":
            report = types.WorkDoneProgressReport(message=state.message, percentage=int(state.progress * 100))
            self._server.work_done_progress.report(self._token, report)
        else:
            self._server.work_done_progress.end(self._token, types.WorkDoneProgressEnd(message=state.message))
            self._token, self._created = "", False
