"""DeepSeek-V2's shape, read from its `config.json`, and its rotary frequencies (YaRN included)."""

from __future__ import annotations

import math
from typing import Any, cast

import attrs
import torch
from torch import Tensor


class Unsupported(Exception):
    """A configuration that the native engine does not compute; the transformers library may."""


@attrs.frozen
class Yarn:
    """Rotary embeddings stretched to longer contexts (Peng et al. 2023, arXiv 2309.00071)."""

    factor: float
    original: int
    """Positions before the stretch."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    attention_factor: float | None = None
    truncate: bool = True

    def magnitude(self) -> float:
        """What rotated queries and keys are multiplied with."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return _mscale(self.factor, self.mscale) / _mscale(self.factor, self.mscale_all_dim)
        return _mscale(self.factor, 1.0)


@attrs.frozen
class Config:
    """Names as in `config.json`; sizes in numbers of values."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    kv_lora_rank: int
    q_lora_rank: int | None
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    yarn: Yarn | None = None
    tie_word_embeddings: bool = False
    moe_intermediate_size: int = 0
    n_routed_experts: int = 0
    n_shared_experts: int = 0
    num_experts_per_tok: int = 0
    first_k_dense_replace: int = 0
    routed_scaling_factor: float = 1.0
    topk_method: str = "greedy"
    n_group: int = 1
    topk_group: int = 1
    attention_bias: bool = False
    moe_layer_freq: int = 1

    @property
    def latent(self) -> int:
        """Values that a token's KV takes in one layer."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    def is_dense(self, layer: int) -> bool:
        """Whether a layer's feed-forward is one network rather than experts."""
        return layer < self.first_k_dense_replace or not self.n_routed_experts

    @property
    def softmax_scale(self) -> float:
        """Of attention scores; YaRN's mscale_all_dim enters squared, as in DeepSeek's own code."""
        scale = (self.qk_nope_head_dim + self.qk_rope_head_dim) ** -0.5
        if self.yarn and self.yarn.mscale_all_dim:
            scale *= _mscale(self.yarn.factor, self.yarn.mscale_all_dim) ** 2
        return scale

    def frequencies(self) -> tuple[Tensor, float]:
        """Radians a position of each rotated pair, float32 [rope / 2], and the magnitude of the rotation."""
        size = self.qk_rope_head_dim
        powers = self.rope_theta ** (torch.arange(0, size, 2, dtype=torch.float) / size)
        if self.yarn is None:
            return 1.0 / powers, 1.0
        yarn = self.yarn

        def pair(rotations: float) -> float:
            """The pair that turns so many times over the original positions."""
            turns = yarn.original / (rotations * 2 * math.pi)
            return size * math.log(turns) / (2 * math.log(self.rope_theta))

        low, high = pair(yarn.beta_fast), pair(yarn.beta_slow)
        if yarn.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, size - 1)
        ramp = (torch.arange(size // 2, dtype=torch.float32) - low) / ((high - low) or 0.001)
        kept = 1 - ramp.clamp(0, 1)
        return (1.0 / (yarn.factor * powers)) * (1 - kept) + (1.0 / powers) * kept, yarn.magnitude()


def config(fields: dict[str, Any]) -> Config:
    """From a parsed `config.json`. Raises `Unsupported`, naming what is not DeepSeek-V2 as published."""
    if fields.get("model_type") != "deepseek_v2":
        raise Unsupported(f"model_type {fields.get('model_type')!r}")
    expected: dict[str, Any] = {
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_act": "silu",
        "moe_layer_freq": 1,
        "norm_topk_prob": False,
        "scoring_func": "softmax",
        "quantization_config": None,
    }
    for name, value in expected.items():
        if fields.get(name, value) != value:
            raise Unsupported(f"{name} = {fields[name]!r}")
    known = {f.name for f in attrs.fields(Config)} - {"yarn"}
    given = {name: value for name, value in fields.items() if name in known and (value is not None or "lora" in name)}
    made = Config(**cast(dict[str, Any], {"q_lora_rank": None} | given))
    if made.topk_method not in ("greedy", "group_limited_greedy"):
        raise Unsupported(f"topk_method = {made.topk_method!r}")
    heads = fields.get("num_key_value_heads")
    if heads not in (None, made.num_attention_heads):
        raise Unsupported(f"num_key_value_heads = {heads!r}")
    # transformers 5 writes rope_parameters, everybody else rope_theta and rope_scaling.
    rope = cast(dict[str, Any], fields.get("rope_parameters") or fields.get("rope_scaling") or {})
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "yarn"):
        raise Unsupported(f"rotary embeddings of type {kind!r}")
    made = attrs.evolve(made, rope_theta=float(rope.get("rope_theta") or made.rope_theta))
    if made.num_hidden_layers > made.first_k_dense_replace and made.n_routed_experts and not made.num_experts_per_tok:
        raise Unsupported("experts without num_experts_per_tok")
    return attrs.evolve(made, yarn=_yarn(rope, made.max_position_embeddings)) if kind == "yarn" else made


def _yarn(rope: dict[str, Any], positions: int) -> Yarn:
    original = int(rope.get("original_max_position_embeddings") or positions)
    return Yarn(
        factor=float(rope.get("factor") or positions / original),
        original=original,
        beta_fast=float(rope.get("beta_fast") or 32),
        beta_slow=float(rope.get("beta_slow") or 1),
        mscale=float(rope.get("mscale") or 0),
        mscale_all_dim=float(rope.get("mscale_all_dim") or 0),
        attention_factor=rope.get("attention_factor"),
        truncate=bool(rope.get("truncate", True)),
    )


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
