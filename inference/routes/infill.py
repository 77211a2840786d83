"""`/infill` as llama.cpp's server has it: llama.vim and llama.vscode ask there."""

from __future__ import annotations

from typing import Any, cast

from inference.requests import TextRequest
from inference.routes.parameters import LARGEST, Fields
from inference.routes.running import Ended, Run, Said

DEFAULT_TOKENS = 128


def request(fields: Fields) -> TextRequest:
    """`input_prefix`, then `prompt` (the cursor's line up to it), a hole, `input_suffix`.

    `input_extra` is left out: pieces of other files are nothing that this prompt has a place for. Raises `Refusal`.
    """
    fields.refuse(stream=(False,))
    # -1 is as many as it takes; 0 only warms the cache, which one token does too.
    most = fields.whole("n_predict", -1, LARGEST, DEFAULT_TOKENS)
    before = (fields.text("input_prefix") or "") + (fields.text("prompt") or "")
    sampling = fields.sampling(0.0, top_k=40)
    limit = None if most == -1 else max(1, most or 0)
    return TextRequest(before, fields.text("input_suffix") or "", limit, fields.stop(), sampling=sampling)


async def answer(run: Run, fields: Fields) -> dict[str, Any]:
    """llama.cpp's answer; with `response_fields`, those alone, a nested one by its path. Raises `Refusal`."""
    text, reason = "", ""
    async for event in run.events():
        if isinstance(event, Said):
            text += event.text
        else:
            assert isinstance(event, Ended)
            reason = event.reason
    usage = run.usage
    timings = {"prompt_n": usage.prompt - usage.cached, "predicted_n": usage.completion}
    full: dict[str, Any] = {
        "content": text,
        "stop": True,
        "stop_type": "limit" if reason == "length" else "eos",
        "tokens_cached": usage.cached,
        "tokens_evaluated": usage.prompt,
        "tokens_predicted": usage.completion,
        "truncated": False,
        "timings": timings,
    }
    wanted = fields.get("response_fields")
    if not isinstance(wanted, list):
        return full
    flat = full | {f"timings/{name}": value for name, value in timings.items()}
    names = [name for name in cast(list[Any], wanted) if isinstance(name, str)]
    return {name: flat[name] for name in names if name in flat}
