"""What other clients than the language server ask of the worker: OpenAI's routes, and two that code editors use.

`/v1/models`, `/v1/completions`, `/v1/chat/completions`, `/v1/fim/completions`, `/marked/v1/completions`, `/infill`.
They use the engine's one queue, as urgent as a keystroke.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from inference.requests import TextRequest
from inference.routes import chat, completions, infill, parameters
from inference.routes.chat import Chat
from inference.routes.completions import Completions
from inference.routes.parameters import Fields
from inference.routes.refusals import Refusal, dumps, refusal
from inference.routes.replying import Call
from inference.routes.running import Run
from inference.wire import Failure

if TYPE_CHECKING:
    from inference.engine import Engine
    from inference.weights import Loaded

PATHS = ("/v1/models", "/v1/completions", "/v1/chat/", "/v1/fim/", "/marked/", "/infill")
"""Where errors are worded as OpenAI's."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Routes:
    """The routes over a model that may still be loading."""

    def __init__(self, model: str, loaded: Callable[[], tuple[Loaded, Engine] | Failure]):
        """`loaded`: the model and its engine, or why there is none yet."""
        self._loaded = loaded
        self._names = {model, Path(model).name}
        self._model = model if not Path(model).expanduser().is_absolute() else Path(model).name
        self._created = int(time.time())

    def table(self) -> list[web.RouteDef]:
        """For the application."""
        return [
            web.get("/v1/models", self._guarded(self._models)),
            web.get("/v1/models/{name:.+}", self._guarded(self._one_model)),
            web.post("/v1/completions", self._guarded(self._completions)),
            web.post("/v1/chat/completions", self._guarded(self._chat)),
            web.post("/v1/fim/completions", self._guarded(self._hole)),
            web.post("/marked/v1/completions", self._guarded(self._marked)),
            web.post("/infill", self._guarded(self._infill)),
        ]

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except Refusal as refused:
                return refused.response()

        return guarded

    def _serving(self) -> tuple[Loaded, Engine]:
        found = self._loaded()
        if isinstance(found, Failure):
            raise refusal(found)
        return found

    def _check_name(self, name: str | None) -> None:
        """Raises `Refusal` for another model than the one here, whose answer would be taken for that one's."""
        if name and name not in self._names:
            message = f"The model `{name}` is not here; this worker has `{self._model}`"
            raise Refusal(message, "model", 404, "model_not_found")

    async def _fields(self, request: web.Request) -> Fields:
        fields = await parameters.body(request)
        self._check_name(fields.text("model"))
        return fields

    def _card(self) -> dict[str, Any]:
        return {"id": self._model, "object": "model", "created": self._created, "owned_by": "fimble"}

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._card()]}, dumps=dumps)

    async def _one_model(self, request: web.Request) -> web.Response:
        self._check_name(request.match_info["name"])
        return web.json_response(self._card(), dumps=dumps)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        fields = await self._fields(request)
        return await self._complete(request, fields, *completions.requests(fields))

    async def _marked(self, request: web.Request) -> web.StreamResponse:
        fields = await self._fields(request)
        loaded, _ = self._serving()
        if loaded.markers is None:
            raise refusal(Failure("no_infilling", loaded.no_infilling))
        return await self._complete(request, fields, *completions.unmarked(fields, loaded.markers.family))

    async def _complete(
        self, request: web.Request, fields: Fields, asked: list[TextRequest], echo: bool
    ) -> web.StreamResponse:
        loaded, engine = self._serving()
        run = Run(engine, asked)
        echoes = [_text(loaded, one) for one in asked] if echo else []
        form = Completions(run, asked[0].logprobs is not None, echoes)
        return await self._answer(request, fields, run, form)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        fields = await self._fields(request)
        loaded, engine = self._serving()
        asked = chat.request(fields, loaded.config, loaded.tokens.control, self._model)
        return await self._answer(request, fields, Run(engine, [asked]), Chat(asked.logprobs is not None))

    async def _hole(self, request: web.Request) -> web.StreamResponse:
        fields = await self._fields(request)
        _, engine = self._serving()
        return await self._answer(request, fields, Run(engine, [chat.hole(fields)]), Chat())

    async def _answer(
        self, request: web.Request, fields: Fields, run: Run, form: Completions | Chat
    ) -> web.StreamResponse:
        stream, usage = fields.streams()
        choices = sum(one.n for one in run.requests)
        return await Call(run, form, self._model, choices, stream, usage).answer(request)

    async def _infill(self, request: web.Request) -> web.Response:
        fields = await parameters.body(request)  # whose `model` is nobody's name
        _, engine = self._serving()
        run = Run(engine, [infill.request(fields)])
        return web.json_response(await infill.answer(run, fields), dumps=dumps)


def _text(loaded: Loaded, request: TextRequest) -> str:
    """What is echoed of a prompt."""
    given = request.prompt
    if isinstance(given, tuple):
        return loaded.tokens.decode(given).decode("utf-8", "replace")
    return given if isinstance(given, str) else given.text


def wants_openai(path: str) -> bool:
    """Whether an error there is to be worded as OpenAI's."""
    return path.startswith(PATHS)
