"""Errors in OpenAI's form: `{"error": {"message", "type", "param", "code"}}` and the status its clients expect."""

from __future__ import annotations

import json

import attrs
from aiohttp import web

from inference.wire import Failure

STATUS = {
    "malformed": 400,
    "unauthorised": 401,
    "too_long": 400,
    "no_infilling": 400,
    "failed": 500,
    "loading": 503,
    "out_of_memory": 503,
}
TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "invalid_request_error"}
CODES = {"too_long": "context_length_exceeded", "unauthorised": "invalid_api_key", "loading": "model_loading"}


@attrs.define
class Refusal(Exception):
    """A request that is answered with an error."""

    message: str
    param: str | None = None
    status: int = 400
    code: str | None = None

    def body(self) -> dict[str, object]:
        """The answer's JSON."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> web.Response:
        """The answer."""
        headers = {"Retry-After": "2"} if self.status == 503 else {}
        return web.json_response(self.body(), status=self.status, headers=headers, dumps=dumps)


def refusal(failure: Failure) -> Refusal:
    """The engine's own error, for one of OpenAI's clients."""
    message = failure.message
    if failure.error == "too_long":
        message = f"This model's maximum context length is {failure.window} tokens: {failure.message}"
    return Refusal(message, None, STATUS[failure.error], CODES.get(failure.error))


def dumps(value: object) -> str:
    """JSON in ASCII: lone surrogates survive as escapes."""
    return json.dumps(value, separators=(",", ":"))
