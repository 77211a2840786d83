"""The transformers library on the same shape and device, for `benchmarks.gpu`."""

from __future__ import annotations

import signal
import time
from typing import Any, cast

import torch
from torch import nn

from benchmarks import report
from benchmarks.lite import LITE

CONTEXT = 4096
COMPILE_S = 300
"""Seconds that compiling a decode step may take before it is given up."""


def transformers_model() -> Any:
    """DeepSeek-Coder-V2-Lite's shape in bfloat16 on the GPU, random weights."""
    from transformers.models.deepseek_v2 import DeepseekV2Config, DeepseekV2ForCausalLM

    fields = {name: value for name, value in LITE.items() if name not in ("rope_scaling", "rope_theta", "model_type")}
    rope = {"rope_type" if name == "type" else name: value for name, value in LITE["rope_scaling"].items()}
    shape = DeepseekV2Config(
        **fields,
        rope_parameters=rope | {"rope_theta": float(LITE["rope_theta"])},
        topk_method="greedy",
        norm_topk_prob=False,
        tie_word_embeddings=False,
    )
    with torch.device("cuda"):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        model = cast(nn.Module, cast(Any, DeepseekV2ForCausalLM)(shape))
        torch.set_default_dtype(before)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0.0, parameter.shape[-1] ** -0.5)
    return model.eval()


def _seconds(run: Any) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def _prompt() -> Any:
    return torch.randint(100, 100_000, (1, CONTEXT), device="cuda")


def _generate(model: Any, tokens: int, **options: Any) -> float:
    """Seconds of a prompt and so many tokens."""
    more = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
    ids = _prompt()
    return _seconds(lambda: model.generate(ids, **more, **options))


@torch.inference_mode()
def figures(model: Any) -> dict[str, Any]:
    """Cold prompt, keystroke of two tokens over its cache, and `generate`."""
    ids = _prompt()

    def cold() -> Any:
        return model(input_ids=ids, use_cache=True, logits_to_keep=1)

    cold()
    found: dict[str, Any] = {"cold_4k_ms": round(min(_seconds(cold) for _ in range(3)) * 1000, 1)}
    cache = cold().past_key_values
    # The first keys find no plan for their attention, and wait a second for one; the figure is of those that find one.
    keys = [_seconds(lambda: model(input_ids=ids[:, :2], past_key_values=cache, use_cache=True)) for _ in range(16)]
    found["keystroke_ms"] = round(report.percentile(keys, 0.25) * 1000, 1)
    _generate(model, 2)
    one, many = (report.percentile([_generate(model, tokens) for _ in range(5)], 0.5) for tokens in (1, 33))
    found["generate_tokens_s"] = round(32 / (many - one), 1)
    return found


@torch.inference_mode()
def compiled(model: Any) -> float | str:
    """Tokens a second with a static cache, whose decode step `generate` compiles; or why there are none."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"not compiled within {COMPILE_S} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(COMPILE_S)
    try:
        _generate(model, 4, cache_implementation="static")
        _generate(model, 33, cache_implementation="static")
        one, many = (_generate(model, tokens, cache_implementation="static") for tokens in (1, 33))
        return round(32 / (many - one), 1)
    except Exception as error:  # noqa: BLE001  that it doesn't run is a finding too
        return f"does not run: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"
    finally:
        signal.alarm(0)
