"""`/v1/completions`: text, or with `suffix` a hole; and `/marked/v1/completions` for clients that write the markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import attrs

from inference.families import Family
from inference.requests import Chosen, TextRequest
from inference.routes.parameters import LARGEST, Fields, shown
from inference.routes.refusals import Refusal
from inference.routes.running import Run, Said, Token

MOST_PROMPTS = 64
DEFAULT_TOKENS = 16
"""As OpenAI's."""


def prompts(fields: Fields) -> list[str | tuple[int, ...]]:
    """`prompt`: a string, token ids, or a list of either. Raises `Refusal`."""
    value = fields.get("prompt")
    if isinstance(value, str):
        return [value]
    items = cast(list[Any], value) if isinstance(value, list) else []
    if items and all(_is_id(item) for item in items):
        return [tuple(cast(list[int], items))]
    found: list[Any] = [tuple(cast(list[Any], item)) if isinstance(item, list) else item for item in items]
    if not found or not all(_is_prompt(item) for item in found):
        wanted = "a string, a list of strings, token ids, or a list of lists of token ids"
        raise Refusal(f"`prompt` must be {wanted}, and not empty; not {shown(value)}", "prompt")
    if len(found) > MOST_PROMPTS:
        raise Refusal(f"`prompt` takes {MOST_PROMPTS} at most, not {len(found)}", "prompt")
    return cast(list[str | tuple[int, ...]], found)


def _is_id(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)


def _is_prompt(item: Any) -> bool:
    if not isinstance(item, tuple):
        return isinstance(item, str)
    ids = cast(tuple[Any, ...], item)
    return bool(ids) and all(map(_is_id, ids))


def requests(fields: Fields) -> tuple[list[TextRequest], bool]:
    """What a body asks of the engine, and whether the prompt is to be echoed. Raises `Refusal`."""
    fields.refuse_common()
    fields.refuse(best_of=(1, fields.get("n")))
    suffix, echo = fields.text("suffix"), fields.flag("echo")
    logprobs = fields.whole("logprobs", 0, 20)
    given = prompts(fields)
    if suffix is not None and not all(isinstance(prompt, str) for prompt in given):
        raise Refusal("with `suffix`, `prompt` must be text: the markers around it are put there here", "prompt")
    if suffix is not None and echo:
        raise Refusal("`echo` is not possible with `suffix`: leave one of them out", "echo")
    one = TextRequest(
        "",
        suffix,
        fields.whole("max_tokens", 0 if echo else 1, LARGEST, DEFAULT_TOKENS),
        fields.stop(),
        fields.whole("n", 1, 16, 1) or 1,
        fields.sampling(),
        logprobs,
        score_prompt=echo and logprobs is not None,
        reuse=not (echo and logprobs is not None),
    )
    return [attrs.evolve(one, prompt=prompt) for prompt in given], echo


def unmarked(fields: Fields, family: Family) -> tuple[list[TextRequest], bool]:
    """The same where each prompt is a hole that the client has put between its family's markers. Raises `Refusal`."""
    made, echo = requests(fields)
    if echo or fields.get("suffix") is not None:
        raise Refusal("`echo` and `suffix` make no sense with markers in the prompt", "prompt")
    return [_unmarked(request, family) for request in made], False


def _unmarked(request: TextRequest, family: Family) -> TextRequest:
    first, second = (family.prefix, family.suffix) if family.order == "psm" else (family.suffix, family.prefix)
    text = request.prompt
    body = text.removeprefix(family.bos) if isinstance(text, str) else ""
    counts = [body.count(marker) for marker in (first, second, family.middle) if marker]
    if any(count != 1 for count in counts) or not body.startswith(first) or not body.endswith(family.middle):
        wanted = f"{first} … {second} … {family.middle}".rstrip(" …")
        raise Refusal(
            f"here a prompt must be one hole of the family {family.name}, each marker once: {wanted}", "prompt"
        )
    one, other = body.removeprefix(first).removesuffix(family.middle).split(second)
    before, after = (one, other) if family.order == "psm" else (other, one)
    return attrs.evolve(request, prompt=before, suffix=after)


@attrs.define
class Completions:
    """The form of `/v1/completions`."""

    run: Run
    logprobs: bool
    echoes: list[str]
    """What is echoed of each request, if that was asked for."""
    object: str = "text_completion"
    chunk_object: str = "text_completion"
    _echoed: set[int] = attrs.field(factory=set[int])

    def whole(self, said: list[Said], reason: str, choice: int) -> dict[str, Any]:
        """See `Form`."""
        text = "".join(part.text for part in said)
        return self._choice(choice, text, [token for part in said for token in part.tokens], reason)

    def first(self, choice: int) -> None:
        """See `Form`."""

    def delta(self, said: Said) -> dict[str, Any]:
        """See `Form`."""
        return self._choice(said.choice, said.text, said.tokens, None)

    def last(self, choice: int, reason: str) -> dict[str, Any]:
        """See `Form`."""
        return self._choice(choice, "", (), reason)

    def _choice(self, choice: int, text: str, tokens: Sequence[Token], reason: str | None) -> dict[str, Any]:
        """A choice or a part of it; what is echoed stands before the first."""
        number = choice // self.run.requests[0].n
        echo = self.echoes[number] if self.echoes else ""
        shown = [attrs.evolve(token, at=token.at + len(echo)) for token in tokens]
        if choice not in self._echoed:
            self._echoed.add(choice)
            text = echo + text
            shown = (_of_prompt(self.run.prompts[number], echo) if echo and self.logprobs else []) + shown
        logprobs = _logprobs(shown) if self.logprobs else None
        return {"index": choice, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _logprobs(tokens: list[Token]) -> dict[str, Any]:
    top = [{_legacy(spelled): p for spelled, p in token.beside} for token in tokens]
    return {
        "tokens": [_legacy(token.spelled) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [None if token.logprob is None else best for token, best in zip(tokens, top, strict=True)],
        "text_offset": [token.at for token in tokens],
    }


def _of_prompt(scored: Sequence[Chosen], text: str) -> list[Token]:
    """A prompt's tokens; nothing foretells the first, unless the model begins a text with one of its own."""
    spelled = text.encode("utf-8", "replace")
    done = max(0, len(spelled) - sum(len(one.spelled) for one in scored))
    tokens = [Token("", spelled[:done], None, (), 0)] if done else []
    for one in scored:
        tokens.append(Token("", one.spelled, one.logprob, one.beside, len(spelled[:done].decode("utf-8", "ignore"))))
        done += len(one.spelled)
    return tokens


def _legacy(spelled: bytes) -> str:
    """As OpenAI names a token: its text, or its bytes where they are no text by themselves."""
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)
