"""Engines with OpenAI's completions route, and what each of them adds to it.

What is sent follows their documentation: vLLM and SGLang take token ids and a regular expression; others take `prompt`
and `suffix` as text; Mistral's has a route of its own, whose answers look like those of a chat.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Literal, cast

from inference.remote.dialect import TEXT_CHARS_PER_TOKEN, WINDOW, Ask, Delta, Found, Token, TooLong, Unfit
from inference.remote.http import Http, Rejected
from inference.remote.prompts import Tokenizer, native_stops, neutral, tokenizer
from inference.wire import FimRequest

Kind = Literal["vllm", "sglang", "mistral", "generic"]
ADVICE = {
    "vllm": "set `fimble.remote.engine` to `vllm`",
    "sglang": "set `fimble.remote.engine` to `sglang`",
    "llamacpp": "set `fimble.backend` to `llamacpp` and leave `/v1` off the address",
}
"""By who says to own the models there."""
_META = re.compile(r"([\\.^$|?*+()\[\]{}])")


class OpenAI:
    """One engine behind `http`, whose base ends where `/completions` begins (`…/v1`)."""

    def __init__(self, http: Http, kind: Kind = "generic", model: str = "", tokenizer_file: str = ""):
        """`model`: empty, whichever is served; `tokenizer_file`: the model's `tokenizer.json`, or its folder."""
        self._http, self._kind, self._wanted, self._file = http, kind, model, tokenizer_file
        self._model, self._window = model, 0
        self._tokenizer: Tokenizer | None = None
        self.constrains = constrains(kind)
        self.bills = not self.constrains

    @property
    def chars_per_token(self) -> float:
        """Measured by our own tokenizer, if there is one."""
        return self._tokenizer.chars_per_token if self._tokenizer else TEXT_CHARS_PER_TOKEN

    async def look(self) -> Found:
        """Asks for the models there, and reads the tokenizer."""
        models = await self._models()
        if models:
            owner = str(models[0].get("owned_by"))
            if owner in ADVICE and owner != self._kind and not (owner == "llamacpp" and self._kind != "generic"):
                raise Unfit(f"that is {owner}: {ADVICE[owner]}")
        names = [str(model.get("id")) for model in models]
        if self._wanted and names and self._wanted not in names:
            raise Unfit(
                f"there is no model {self._wanted}; set `fimble.remote.model` to one of: {', '.join(names[:8])}"
            )
        if not self._wanted and len(names) != 1:
            raise Unfit(f"set `fimble.remote.model`; there are: {', '.join(names[:8]) or 'none that it lists'}")
        self._model = self._wanted or names[0]
        windows = [int(model.get("max_model_len") or WINDOW) for model in models if model.get("id") == self._model]
        self._window = windows[0] if windows else WINDOW
        if self._kind in ("vllm", "sglang") and not self._file:
            raise Unfit(
                "set `fimble.remote.tokenizer` to the model's tokenizer.json (it lies in the model's folder there): "
                "prompts go out as token ids, since marker strings inside a text would act as markers"
            )
        if self._file and self._tokenizer is None:
            self._tokenizer = await asyncio.to_thread(tokenizer, self._file, self._model)
        return Found(self._model, self._window)

    async def _models(self) -> list[dict[str, Any]]:
        try:
            reply: Any = await self._http.get("/models")
        except Rejected as error:
            if error.status in (404, 405):  # not every completions endpoint lists its models
                return []
            raise
        data: Any = cast(dict[str, Any], reply).get("data") if isinstance(reply, dict) else reply
        return cast(list[dict[str, Any]], data) if isinstance(data, list) else []

    async def ask(self, request: FimRequest, *, heal: bool, likeliest: int) -> Ask:
        """Token ids if there is a tokenizer, else the two texts."""
        body = self._common(request)
        if self._kind == "mistral":
            body["random_seed"] = body.pop("seed", None)
        else:
            body |= {"stream_options": {"include_usage": True}, "logprobs": likeliest}
        if self._tokenizer is None:
            body |= {"prompt": neutral(request.prefix + request.typed), "suffix": neutral(request.suffix)}
            path = "/fim/completions" if self._kind == "mistral" else "/completions"
            return Ask(path, _without_none(body))
        prompt = self._tokenizer.prompt(request, heal=heal)
        if len(prompt.ids) + body["max_tokens"] > self._window:
            raise TooLong(len(prompt.ids), body["max_tokens"], self._window)
        body["prompt"] = prompt.ids
        if self.constrains:
            body |= {"stop_token_ids": self._tokenizer.ends}
            if request.sampling.top_k:
                body["top_k"] = request.sampling.top_k
            if prompt.held:
                pattern = beginning_with(prompt.held)
                body |= {"structured_outputs": {"regex": pattern}} if self._kind == "vllm" else {"regex": pattern}
        return Ask("/completions", _without_none(body), prompt.held, len(prompt.ids))

    def _common(self, request: FimRequest) -> dict[str, Any]:
        sampling = request.sampling
        return {
            "model": self._model,
            "max_tokens": max(1, request.stops.max_tokens),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p if sampling.temperature else None,
            "seed": sampling.seed,
            "stop": native_stops(request.stops) or None,
            "stream": True,
        }

    def read(self, event: dict[str, Any]) -> Delta:
        """A chunk of `text_completion`, or of Mistral's chat form."""
        usage = cast(dict[str, Any], event.get("usage") or {})
        details = cast(dict[str, Any], usage.get("prompt_tokens_details") or {})
        counted = usage.get("prompt_tokens")
        reused = details.get("cached_tokens", usage.get("prompt_cache_hit_tokens"))  # the latter is DeepSeek's
        choice = cast(dict[str, Any], (event.get("choices") or [{}])[0])
        said = choice.get("text") or cast(dict[str, Any], choice.get("delta") or {}).get("content") or ""
        finished = str(choice.get("finish_reason") or "")
        # vLLM and SGLang say what they stopped at: a string, a token's id, or null where the model ended.
        at = choice.get("stop_reason", choice.get("matched_stop"))
        says = "stop_reason" in choice or "matched_stop" in choice
        return Delta(
            text=str(said),
            tokens=_tokens(cast(dict[str, Any], choice.get("logprobs") or {})),
            finished=finished,
            stopped_at=(at if isinstance(at, str) else "") if says else None,
            prompt=counted,
            reused=reused,
            decoded=usage.get("completion_tokens"),
        )


def constrains(kind: Kind) -> bool:
    """Whether engines of this kind can be made to begin with a given text."""
    return kind in ("vllm", "sglang")


def beginning_with(held: str) -> str:
    """A regular expression for texts that begin with `held`, as xgrammar, llguidance and outlines all read it."""
    return _META.sub(r"\\\1", held) + r"(.|\n)*"


def _tokens(logprobs: dict[str, Any]) -> tuple[Token, ...]:
    texts = cast(list[str], logprobs.get("tokens") or [])
    values = cast(list[float | None], logprobs.get("token_logprobs") or [])
    tops = cast(list[dict[str, float] | None], logprobs.get("top_logprobs") or [None] * len(texts))
    return tuple(
        Token(text, value or 0.0, tuple((top or {}).items()))
        for text, value, top in zip(texts, values, tops, strict=False)
    )


def _without_none(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}
