"""The worker's answers that are no stream, and errors in the words of whoever asks."""

from __future__ import annotations

import logging
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from inference import wire
from inference.routes import wants_openai
from inference.routes.refusals import Refusal, refusal
from inference.wire import Failure, Health

log = logging.getLogger(__name__)

STATUS = {
    "malformed": 400,
    "unauthorised": 401,
    "too_long": 413,
    "no_infilling": 422,
    "failed": 500,
    "loading": 503,
    "out_of_memory": 507,
}


class Refused(Exception):
    """A request that is not let in."""

    def __init__(self, failure: Failure):
        super().__init__(failure.message)
        self.failure = failure


@web.middleware
async def worded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors in the words of whoever asks: OpenAI's clients read another form than ours."""
    openai = wants_openai(request.path)
    try:
        return await handler(request)
    except Refused as refused:
        return refusal(refused.failure).response() if openai else failure(refused.failure)
    except web.HTTPException as error:
        if not openai or error.status < 400:
            raise
        return Refusal(f"{request.method} {request.path}: {error.reason}", None, error.status).response()
    except Exception:  # a mistake of ours
        log.exception("%s %s failed", request.method, request.path)
        if not openai:
            raise
        return Refusal(f"the worker failed at this request (log: {Path.cwd()})", None, 500).response()


def answer(value: Health | Failure, status: int = 200) -> web.Response:
    """A message of `wire` as the body of a response."""
    return web.Response(body=wire.dumps(value), status=status, content_type="application/json")


def failure(why: Failure) -> web.Response:
    """A failure in our own form."""
    return answer(why, STATUS[why.error])
