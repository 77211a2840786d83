"""The fields of a request, checked one by one: null means the default, and what is wrong is named."""

from __future__ import annotations

import json
from typing import Any, cast

from aiohttp import web

from inference.routes.refusals import Refusal
from inference.wire import Sampling

STOPS = 16
"""Stop strings at most; OpenAI takes four, code editors send more."""
LARGEST = 1_000_000


async def body(request: web.Request) -> Fields:
    """The request's JSON object. Raises `Refusal`."""
    try:
        value = json.loads(await request.text())
    except (ValueError, LookupError, RecursionError) as error:  # LookupError: a charset nobody knows
        raise Refusal(f"the request's body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refusal(f"the request's body must be a JSON object, not {type(value).__name__}")
    return Fields(cast(dict[str, Any], value))


class Fields:
    """A JSON object that is asked for what it should hold. Each method raises `Refusal` for another type."""

    def __init__(self, value: dict[str, Any]):
        self._value = value

    def get(self, name: str) -> Any:
        """The value as it came, None if there is none."""
        return self._value.get(name)

    def number(self, name: str, low: float, high: float, default: float) -> float:
        """A number between two others."""
        value = self._value.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise Refusal(f"`{name}` must be a number from {low:g} to {high:g}, not {shown(value)}", name)
        return float(value)

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int | None:
        """A whole number between two others."""
        value = self._value.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Refusal(f"`{name}` must be a whole number from {low} to {high}, not {shown(value)}", name)
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._value.get(name)
        if not isinstance(value, bool | None):
            raise Refusal(f"`{name}` must be true or false, not {shown(value)}", name)
        return bool(value)

    def text(self, name: str) -> str | None:
        """A string."""
        value = self._value.get(name)
        if not isinstance(value, str | None):
            raise Refusal(f"`{name}` must be a string, not {shown(value)}", name)
        return value

    def stop(self) -> tuple[str, ...]:
        """`stop`: a string or some."""
        value = self._value.get("stop")
        found = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(found, list) or not all(isinstance(one, str) for one in cast(list[Any], found)):
            raise Refusal(f"`stop` must be a string or a list of strings, not {shown(value)}", "stop")
        strings = tuple(one for one in cast(list[str], found) if one)
        if len(strings) > STOPS:
            raise Refusal(f"`stop` takes {STOPS} strings at most, not {len(strings)}", "stop")
        return strings

    def sampling(self, temperature: float = 1.0, *, top_k: int = 0, top_p: float = 1.0) -> Sampling:
        """`temperature`, `top_p`, `top_k`, `seed`."""
        seed = self.whole("seed", -(2**63), 2**63 - 1)
        return Sampling(
            temperature=self.number("temperature", 0, 2, temperature),
            top_p=max(0.0001, self.number("top_p", 0, 1, top_p)),
            top_k=max(0, self.whole("top_k", -1, LARGEST, top_k) or 0),
            seed=None if seed is None else seed % 2**62,
        )

    def streams(self) -> tuple[bool, bool]:
        """Whether the answer is streamed, and whether it ends with what it cost."""
        options = self._value.get("stream_options")
        if options is not None and not isinstance(options, dict):
            raise Refusal("`stream_options` must be an object", "stream_options")
        usage = Fields(cast(dict[str, Any], options or {})).flag("include_usage")
        return self.flag("stream"), usage

    def refuse(self, **without: tuple[Any, ...]) -> None:
        """Refuses fields whose values ask for what is not done here; `without`: values that ask for nothing."""
        for name, harmless in without.items():
            value = self._value.get(name)
            if value is not None and value not in harmless:
                raise Refusal(f"`{name}` is not supported here; leave it out", name, code="unsupported_parameter")

    def refuse_common(self) -> None:
        """What no route does."""
        self.refuse(
            presence_penalty=(0,), frequency_penalty=(0,), logit_bias=({},), response_format=({"type": "text"},)
        )


def shown(value: Any) -> str:
    """A value for an error message: never a document as a whole."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
