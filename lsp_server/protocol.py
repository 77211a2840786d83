"""The protocol layer: pygls with our own documents, and an answer to every request.

pygls 2.1 keeps its own copy of every document (split at form feeds too, and re-split at every edit), and never answers
a request whose parameters do not fit, or one that comes after `shutdown`.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any, cast

from cattrs import Converter
from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams
from pygls.protocol import LanguageServerProtocol, default_converter
from pygls.protocol.json_rpc import JsonRPCNotification, JsonRPCRequestMessage
from pygls.protocol.language_server import lsp_method

log = logging.getLogger(__name__)

INVALID_REQUEST = -32600
INVALID_PARAMS = -32602
NOT_INITIALIZED = -32002


class Unanswerable:
    """Stands for a message that was answered, or given up, before any handler saw it."""

    jsonrpc = "2.0"


class FimbleProtocol(LanguageServerProtocol):
    """`LanguageServerProtocol` with the differences above."""

    _initialized = False

    def structure_message(self, data: dict[str, Any]) -> Any:
        """See `JsonRPCProtocol`; called for every JSON object, the nested ones first."""
        if "jsonrpc" not in data:
            return data
        try:
            return super().structure_message(data)
        except Exception as error:  # noqa: BLE001 - cattrs raises many kinds for text from outside
            method, number = data.get("method"), data.get("id")
            log.warning("%s: parameters that do not fit: %s", method, error)
            if isinstance(number, int | str) and method is not None:
                why = f"the parameters of {method} do not fit the protocol"
                self._refuse(number, INVALID_PARAMS, why)
            return Unanswerable()

    def handle_message(self, message: Any) -> None:
        """See `JsonRPCProtocol`; refuses what comes too early or too late instead of dropping it."""
        if isinstance(message, Unanswerable):
            return
        number, method = getattr(message, "id", None), getattr(message, "method", None)
        if method is not None and number is not None:
            if self._shutdown:
                return self._refuse(number, INVALID_REQUEST, "the server is shutting down")
            if method == types.INITIALIZE and self._initialized:
                return self._refuse(number, INVALID_REQUEST, "the server is already initialized")
            if method != types.INITIALIZE and not self._initialized:
                return self._refuse(number, NOT_INITIALIZED, "the first request must be initialize")
            self._initialized = True
        super().handle_message(message)

    def _refuse(self, number: int | str, code: int, why: str) -> None:
        self._send_response(number, error=types.ResponseError(code=code, message=why))

    def _handle_cancel_notification(self, msg_id: int | str) -> None:
        # A request that was answered a moment ago is not worth a warning.
        if msg_id in self._request_futures:
            super()._handle_cancel_notification(msg_id)

    def _handler(self, method: str) -> Any:
        return cast(Any, self.fm).features[method]

    # Our handlers own the documents; pygls' workspace never sees them.

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> Generator[Any, Any, None]:
        """Hands the notification to the server's handler."""
        yield self._handler(types.TEXT_DOCUMENT_DID_OPEN), (params,), None

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> Generator[Any, Any, None]:
        """Hands the notification to the server's handler."""
        yield self._handler(types.TEXT_DOCUMENT_DID_CHANGE), (params,), None

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> Generator[Any, Any, None]:
        """Hands the notification to the server's handler."""
        yield self._handler(types.TEXT_DOCUMENT_DID_CLOSE), (params,), None


def strict_converter() -> Converter:
    """pygls' converter, but a number is no text and a text no number: they are refused, not converted."""
    converter = default_converter()

    def exactly(kind: type[Any]) -> None:
        def hook(value: Any, wanted: Any) -> Any:
            if type(value) is not kind:
                raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")
            return value if wanted is kind else wanted(value)  # enums derive from their kind of value

        converter.register_structure_hook(kind, hook)

    def as_sent(message: Any, kind: Any) -> Any:
        return kind(**message)  # pygls would make named tuples of the objects in it

    for kind in (JsonRPCNotification, JsonRPCRequestMessage):
        converter.register_structure_hook(kind, as_sent)

    for kind in (str, int, bool):
        exactly(kind)
    return converter


def malformed(why: str) -> JsonRpcInvalidParams:
    """The error for parameters that have the right types but make no sense; answered with -32602."""
    return JsonRpcInvalidParams(message=why)
