"""`/v1/chat/completions`, and `/v1/fim/completions`, which answers a hole in the words of a chat (Mistral's form)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import attrs

from inference.conversation import BadConversation, conversation
from inference.requests import TextRequest
from inference.routes.parameters import LARGEST, Fields, shown
from inference.routes.refusals import Refusal
from inference.routes.running import Said, Token

if TYPE_CHECKING:
    from inference.tokenizer_config import TokenizerConfig

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MOST_MESSAGES = 2000


def messages(fields: Fields) -> list[dict[str, Any]]:
    """`messages` with their contents as text. Raises `Refusal`."""
    value = fields.get("messages")
    if not isinstance(value, list) or not value:
        raise Refusal(f"`messages` must be a list of messages, and not empty; not {shown(value)}", "messages")
    if len(cast(list[Any], value)) > MOST_MESSAGES:
        raise Refusal(f"`messages` takes {MOST_MESSAGES} at most", "messages")
    return [_message(item, f"messages[{i}]") for i, item in enumerate(cast(list[Any], value))]


def _message(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise Refusal(f"`{where}` must be an object with `role` and `content`, not {shown(item)}", where)
    fields = Fields(cast(dict[str, Any], item))
    role = ROLES.get(fields.text("role") or "")
    if role is None:
        raise Refusal(
            f"`{where}.role` must be one of {', '.join(ROLES)}, not {shown(fields.get('role'))}", f"{where}.role"
        )
    fields.refuse(tool_calls=([],), function_call=())
    return {"role": role, "content": _content(fields.get("content"), f"{where}.content")}


def _content(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    parts = cast(list[Any], value) if isinstance(value, list) else [None]
    texts = [cast(dict[str, Any], part).get("text") for part in parts if isinstance(part, dict)]
    if len(texts) != len(parts) or not all(isinstance(text, str) for text in texts):
        raise Refusal(f"`{where}` must be text, or a list of parts of type text; not {shown(value)}", where)
    return "".join(cast(list[str], texts))


def request(fields: Fields, config: TokenizerConfig, control: dict[str, int], model: str) -> TextRequest:
    """What a body asks of the engine. Raises `Refusal`."""
    fields.refuse_common()
    fields.refuse(tools=([],), functions=([],), tool_choice=("none", "auto"))
    if not config.template:
        raise Refusal(
            f"{model} has no chat template, as a base model: it goes on with text (`/v1/completions`) and fills holes. "
            "To chat, start the worker with an instruct model, such as DeepSeek-Coder-V2-Lite-Instruct",
            "model",
            code="no_chat_template",
        )
    top = fields.whole("top_logprobs", 0, 20, 0)
    if not fields.flag("logprobs") and top:
        raise Refusal("`top_logprobs` needs `logprobs` to be true", "top_logprobs")
    try:
        prompt = conversation(config.template, config.special, messages(fields), control)
    except BadConversation as error:
        raise Refusal(str(error), "messages") from error
    most = fields.whole("max_completion_tokens", 1, LARGEST, fields.whole("max_tokens", 1, LARGEST))
    return TextRequest(
        prompt,
        None,
        most,
        fields.stop(),
        fields.whole("n", 1, 16, 1) or 1,
        fields.sampling(),
        top if fields.flag("logprobs") else None,
    )


def hole(fields: Fields) -> TextRequest:
    """A body of `/v1/fim/completions`: `prompt` and `suffix`. Raises `Refusal`."""
    fields.refuse_common()
    prompt = fields.text("prompt")
    if prompt is None:
        raise Refusal("`prompt` must be the text before the hole", "prompt")
    most = fields.whole("max_completion_tokens", 1, LARGEST, fields.whole("max_tokens", 1, LARGEST, 64))
    return TextRequest(prompt, fields.text("suffix") or "", most, fields.stop(), sampling=fields.sampling(0.0))


@attrs.define
class Chat:
    """The form of `/v1/chat/completions`."""

    logprobs: bool = False
    object: str = "chat.completion"
    chunk_object: str = "chat.completion.chunk"

    def whole(self, said: list[Said], reason: str, choice: int) -> dict[str, Any]:
        """See `Form`."""
        text = "".join(part.text for part in said)
        message = {"role": "assistant", "content": text, "refusal": None}
        tokens = tuple(token for part in said for token in part.tokens)
        return {"index": choice, "message": message, "logprobs": self._logprobs(tokens), "finish_reason": reason}

    def first(self, choice: int) -> dict[str, Any]:
        """See `Form`."""
        return self._delta(choice, {"role": "assistant", "content": ""})

    def delta(self, said: Said) -> dict[str, Any]:
        """See `Form`."""
        return self._delta(said.choice, {"content": said.text}, said.tokens)

    def last(self, choice: int, reason: str) -> dict[str, Any]:
        """See `Form`."""
        return self._delta(choice, {}, reason=reason)

    def _delta(
        self, choice: int, delta: dict[str, Any], tokens: tuple[Token, ...] = (), reason: str | None = None
    ) -> dict[str, Any]:
        logprobs = self._logprobs(tokens) if tokens else None
        return {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, tokens: tuple[Token, ...]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = [
            _token(token.spelled, token.logprob) | {"top_logprobs": [_token(*best) for best in token.beside]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}


def _token(spelled: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": spelled.decode("utf-8", "replace"), "bytes": list(spelled), "logprob": logprob}
