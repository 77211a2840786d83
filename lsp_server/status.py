"""What the user sees of a loading worker: one work-done progress, from the first sign to the end."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from lsprotocol import types

from lsp_server.backends.worker import State

if TYPE_CHECKING:
    from pygls.lsp.server import LanguageServer


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
