"""The wiring of the language server: each handler calls a plain function that knows nothing of LSP."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer

from inference.endpoint import WorkerSettings, endpoint
from inference.version import VERSION
from lsp_server import commands, items, metrics, user_settings
from lsp_server.backends.remote import RemoteBackend, backend_of
from lsp_server.backends.worker import State, WorkerBackend
from lsp_server.completion import Completer, Completion, ignore
from lsp_server.documents import Document, DocumentStore, Encoding, ImpossibleEdit
from lsp_server.menu import Selected
from lsp_server.metrics import Metrics
from lsp_server.protocol import FimbleProtocol, malformed, strict_converter
from lsp_server.request import Trace
from lsp_server.session import Session
from lsp_server.settings import Settings, resolve
from lsp_server.status import LoadingProgress, Status
from lsp_server.text import Position

log = logging.getLogger(__name__)

RESTART = "Restart the worker"
METRICS_S = 60.0
"""Seconds between additions to the daily totals."""


class Server(LanguageServer):
    """The server's state: documents and their sessions, settings, and the worker."""

    def __init__(self) -> None:
        cast(Any, super()).__init__("fimble", VERSION, protocol_cls=FimbleProtocol, converter_factory=strict_converter)
        self.documents = DocumentStore()
        self.sessions: dict[str, Session] = {}
        self.settings = Settings()
        self.backend: WorkerBackend | RemoteBackend = backend_of(self.settings, self.worker_state)
        self.metrics = Metrics()
        self.completer = Completer(self.backend, self.settings, metrics=self.metrics)
        self.loading = LoadingProgress(self)
        self.status = Status(self)
        self.reported: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.keeping: asyncio.Task[None] | None = None
        self.initial: Any = None
        """The client's initializationOptions: settings of a client that has no configuration."""
        self.asks_again = False
        """The client knows `fimble/refresh`: it has sent `fimble/cursor`, or says so in its capabilities."""

    def refresh(self) -> None:
        """Has the client ask again at the cursor."""
        self.protocol.notify("fimble/refresh", {})

    @property
    def encoding(self) -> Encoding:
        """The encoding of positions that was agreed with the client."""
        agreed = self.server_capabilities.position_encoding or "utf-16"
        return cast(Encoding, agreed.value if isinstance(agreed, types.PositionEncodingKind) else agreed)

    def configure(self, section: Any) -> None:
        """Applies the settings of the section `fimble` to everything that runs."""
        user, unreadable = user_settings.read()
        settings, problems = resolve(section, user)
        for problem in unreadable + problems:
            self.tell_once(problem, types.MessageType.Warning)
        old, self.settings = self.settings, settings
        self.completer.on_trace = self.send_trace if settings.trace else ignore
        if settings.layout != old.layout:
            for session in self.sessions.values():
                session.set_layout(settings.layout)
        if (settings.worker, settings.remote) != (old.worker, old.remote):
            self.change_backend(settings)
        if settings != old:
            self.completer.configure(self.backend, settings)
            for session in self.sessions.values():
                session.stop()
                session.suggestions.clear()
            if self.asks_again and self.backend.ready:  # what was answered under the old ones may not hold
                self.refresh()
        self.status.enable(settings.enabled)
        if settings.enabled:
            self.backend.ensure()

    def change_backend(self, settings: Settings) -> None:
        """Turns to another worker or engine; the old one lives on for whoever else uses it."""
        self.spawn(self.backend.close())
        self.backend = backend_of(settings, self.worker_state)

    def worker_state(self, state: State) -> None:
        """Shows the user what the worker or engine does: progress while it loads, a message when they must act."""
        log.info("worker: %s %s", state.name, state.message)
        self.status.follow(state)
        if not self.status.wanted:
            self.loading.follow(state)
        if state.name == "failed":
            self.spawn(self.offer_restart(state))
        elif state.name == "ready" and self.asks_again:
            self.refresh()
        if state.name == "ready":
            self.reported.clear()

    async def offer_restart(self, state: State) -> None:
        """Tells the user once why there is no completion, with the way out as a button."""
        if state.message in self.reported:
            return
        self.reported.add(state.message)
        actions = [types.MessageActionItem(RESTART)] if state.can_restart else []
        answer = await self.window_show_message_request_async(
            types.ShowMessageRequestParams(types.MessageType.Error, f"fimble: {state.message}", actions)
        )
        if answer is not None and answer.title == RESTART:
            await self.restart_worker()

    async def restart_worker(self) -> None:
        """Replaces the worker by one with this server's settings."""
        self.reported.clear()
        await self.backend.restart()

    def tell_once(self, message: str, kind: types.MessageType) -> None:
        """A message for the user, not repeated."""
        if message not in self.reported:
            self.reported.add(message)
            self.window_show_message(types.ShowMessageParams(kind, f"fimble: {message}"))

    def send_trace(self, trace: Trace) -> None:
        """Reports one request to a client that asked for it (`trace`)."""
        from inference.wire import converter

        fields: dict[str, Any] = converter.unstructure(trace)
        self.protocol.notify("fimble/trace", fields)

    def session_at(self, uri: str, position: types.Position) -> tuple[Session, Position] | None:
        """The session and the place in it, None for a document that is not open; -32602 for an impossible place."""
        session = self.sessions.get(uri)
        if session is None:
            return None
        if not session.document.synchronised:
            return None
        try:
            return session, session.document.position(position.line, position.character, self.encoding)
        except ImpossibleEdit as error:
            raise malformed(str(error)) from error

    async def keep_metrics(self) -> None:
        """Adds what was counted to the daily totals, once a minute."""
        while True:
            await asyncio.sleep(METRICS_S)
            await asyncio.to_thread(self.metrics.flush)

    def spawn(self, work: Any) -> None:
        """Runs a coroutine to its end in the background."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: Any) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            log.error("a background task failed", exc_info=task.exception())


server = Server()
"""One server a process: pygls registers handlers on an instance."""


@server.feature(types.INITIALIZE)
def initialize(ls: Server, params: types.InitializeParams) -> None:
    ls.initial = params.initialization_options
    text = params.capabilities.text_document
    handlers = cast(Any, ls.protocol.fm)
    if text and text.inline_completion:
        handlers.features.pop(types.TEXT_DOCUMENT_COMPLETION, None)  # ghost text once is enough
    else:  # answered if asked for, but not offered: asyncomplete-lsp for Vim would replace the whole line by it
        handlers.feature_options.pop(types.TEXT_DOCUMENT_INLINE_COMPLETION, None)
    experimental = cast(object, params.capabilities.experimental)
    ours = cast(dict[str, Any], experimental).get("fimble") if isinstance(experimental, dict) else None
    able = cast(dict[str, Any], ours) if isinstance(ours, dict) else {}
    ls.asks_again = ours is not None
    ls.completer.on_more = ls.refresh if able.get("refresh") is True else None
    ls.status.wanted = able.get("status") is True
    ls.metrics.path = endpoint(WorkerSettings()).state / metrics.FILE
    ls.keeping = asyncio.ensure_future(ls.keep_metrics())


@server.feature(types.INITIALIZED)
async def initialized(ls: Server, _: types.InitializedParams) -> None:
    workspace = ls.client_capabilities.workspace
    if workspace and workspace.did_change_configuration and workspace.did_change_configuration.dynamic_registration:
        await ls.client_register_capability_async(
            types.RegistrationParams(
                [types.Registration("configuration", types.WORKSPACE_DID_CHANGE_CONFIGURATION, {"section": "fimble"})]
            )
        )
    ls.configure(await configuration(ls, ls.initial))


@server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)
async def did_change_configuration(ls: Server, params: types.DidChangeConfigurationParams) -> None:
    pushed: Any = params.settings
    section = cast(dict[str, Any], pushed).get("fimble", pushed) if isinstance(pushed, dict) else pushed
    ls.configure(await configuration(ls, section or ls.initial))


async def configuration(ls: Server, otherwise: Any) -> Any:
    """The section `fimble` as the client has it now, or `otherwise` from a client that can't be asked."""
    workspace = ls.client_capabilities.workspace
    if not (workspace and workspace.configuration):
        return otherwise
    items = [types.ConfigurationItem(section="fimble")]
    sections = await ls.workspace_configuration_async(types.ConfigurationParams(items))
    return sections[0] if sections and sections[0] is not None else otherwise


@server.feature(types.TEXT_DOCUMENT_DID_OPEN)
def did_open(ls: Server, params: types.DidOpenTextDocumentParams) -> None:
    opened = params.text_document
    if old := ls.sessions.pop(opened.uri, None):
        old.close()
    document = ls.documents.open(opened.uri, str(opened.language_id), opened.version, opened.text)
    session = ls.sessions[opened.uri] = Session(document, ls.settings.layout)
    session.parse_later()


@server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
def did_change(ls: Server, params: types.DidChangeTextDocumentParams) -> None:
    changed = params.text_document
    changes = [_change(change) for change in params.content_changes]
    document, edits = ls.documents.change(changed.uri, changed.version, changes, ls.encoding)
    session = ls.sessions.get(changed.uri)
    if document is None or session is None:
        return
    session.edited(edits)
    if not document.synchronised:
        _report_lost_text(ls, document)


def _change(change: types.TextDocumentContentChangeEvent) -> str | tuple[int, int, int, int, str]:
    if isinstance(change, types.TextDocumentContentChangePartial):
        start, end = change.range.start, change.range.end
        return start.line, start.character, end.line, end.character, change.text
    return change.text


def _report_lost_text(ls: Server, document: Document) -> None:
    name = document.uri.rsplit("/", 1)[-1]
    ls.tell_once(f"{name} is out of step with the editor: {document.reason}", types.MessageType.Warning)


@server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
def did_close(ls: Server, params: types.DidCloseTextDocumentParams) -> None:
    ls.documents.close(params.text_document.uri)
    if session := ls.sessions.pop(params.text_document.uri, None):
        session.close()


@server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
async def inline_completion(ls: Server, params: types.InlineCompletionParams) -> types.InlineCompletionList | None:
    place = ls.session_at(params.text_document.uri, params.position)
    if place is None:
        return None
    with ls.status.working():
        found = await _inline(ls, params.context, *place)
    document = place[0].document
    return types.InlineCompletionList([items.ghost(document, one, ls.encoding) for one in found]) if found else None


async def _inline(
    ls: Server, context: types.InlineCompletionContext, session: Session, position: Position
) -> list[Completion]:
    menu = context.selected_completion_info
    if menu:
        start, end = (ls.session_at(session.document.uri, at) for at in (menu.range.start, menu.range.end))
        selected = Selected(start[1], end[1], menu.text) if start and end else None
        one = await ls.completer.complete_behind(session, position, selected) if selected else None
        return [one] if one else []
    if context.trigger_kind == types.InlineCompletionTriggerKind.Invoked:
        return await ls.completer.invoke(session, position)
    one = await ls.completer.complete(session, position)
    return [one] if one else []


@server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions())
async def completion(ls: Server, params: types.CompletionParams) -> types.CompletionList | None:
    place = ls.session_at(params.text_document.uri, params.position)
    found = await ls.completer.complete(*place) if place else None
    if place is None or found is None:
        return None
    return types.CompletionList(is_incomplete=True, items=[items.entry(place[0].document, found, ls.encoding)])


@server.feature("fimble/cursor")
async def cursor(ls: Server, params: Any) -> None:
    """The cursor has rested (`{textDocument: {uri, version}, position}`): warms the worker there."""
    ls.asks_again = True
    try:
        uri, version = str(params["textDocument"]["uri"]), int(params["textDocument"]["version"])
        position = types.Position(int(params["position"]["line"]), int(params["position"]["character"]))
        place = ls.session_at(uri, position)
    except (KeyError, TypeError, ValueError, JsonRpcInvalidParams) as error:  # a notification has no answer
        log.warning("fimble/cursor with parameters that do not fit: %r (%s)", params, error)
        return
    if place and place[0].document.version == version:
        await ls.completer.warm(*place)


commands.register(server)


@server.feature(types.SHUTDOWN)
def shutdown(ls: Server, *_: Any) -> None:
    if ls.keeping:
        ls.keeping.cancel()
    for session in ls.sessions.values():
        session.close()
    ls.metrics.flush()
    ls.spawn(ls.backend.close())
