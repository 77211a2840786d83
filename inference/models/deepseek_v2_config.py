"""DeepSeek-V2's shape, read from its `config.json`, rotary embeddings included."""

from __future__ import annotations

from typing import Any, cast

import attrs
from torch import Tensor

from inference.models import rope
from inference.models.rope import Unsupported, Yarn, mscale_of


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
            scale *= mscale_of(self.yarn.factor, self.yarn.mscale_all_dim) ** 2
        return scale

    @property
    def kv(self) -> int:
        """Values that a token takes of the pool in one layer."""
        return self.latent

    @property
    def made_besides(self) -> int:
        """Values of a layer that are kept besides the published tensors: W_UK and W_UV, to be absorbed."""
        return self.num_attention_heads * (self.qk_nope_head_dim + self.v_head_dim) * self.kv_lora_rank

    def frequencies(self) -> tuple[Tensor, float]:
        """See `rope.frequencies`."""
        return rope.frequencies(self.qk_rope_head_dim, self.rope_theta, self.yarn)


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
    theta, stretch = rope.read(fields, made.max_position_embeddings)
    if stretch is not None and not isinstance(stretch, Yarn):
        raise Unsupported(f"rotary embeddings of type {type(stretch).__name__.lower()!r}")
    made = attrs.evolve(made, rope_theta=theta or made.rope_theta, yarn=stretch)
    if made.num_hidden_layers > made.first_k_dense_replace and made.n_routed_experts and not made.num_experts_per_tok:
        raise Unsupported("experts without num_experts_per_tok")
    return made
