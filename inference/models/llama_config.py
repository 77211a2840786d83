"""The shape of Llama, Qwen2 and Mistral models, read from their `config.json`."""

from __future__ import annotations

from typing import Any, cast

import attrs
from torch import Tensor

from inference.models import rope
from inference.models.rope import Stretch, Unsupported


@attrs.frozen
class LlamaConfig:
    """Names as in `config.json`; sizes in numbers of values."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    stretch: Stretch | None = None
    tie_word_embeddings: bool = False
    input_bias: bool = False
    """Of queries, keys and values."""
    output_bias: bool = False
    mlp_bias: bool = False

    @property
    def kv(self) -> int:
        """Values that a token takes of the pool in one layer: its keys, then its values."""
        return 2 * self.num_key_value_heads * self.head_dim

    @property
    def made_besides(self) -> int:
        """Values of a layer that are kept besides the published tensors."""
        return 0

    def frequencies(self) -> tuple[Tensor, float]:
        """See `rope.frequencies`."""
        return rope.frequencies(self.head_dim, self.rope_theta, self.stretch)


def config(fields: dict[str, Any]) -> LlamaConfig:
    """From a parsed `config.json`. Raises `Unsupported`, naming what is neither Llama's, Qwen2's nor Mistral's."""
    kind = fields.get("model_type")
    if kind not in ("llama", "qwen2", "mistral"):
        raise Unsupported(f"model_type {kind!r}")
    expected: dict[str, Any] = {"hidden_act": "silu", "quantization_config": None, "partial_rotary_factor": 1.0}
    for name, value in expected.items():
        if fields.get(name, value) not in (value, None):
            raise Unsupported(f"{name} = {fields[name]!r}")
    _refuse_windows(fields, kind)
    heads, hidden = int(fields["num_attention_heads"]), int(fields["hidden_size"])
    positions = int(fields.get("max_position_embeddings") or 2048)
    theta, stretch = rope.read(fields, positions)
    head_dim = int(fields.get("head_dim") or hidden // heads)
    if head_dim % 2:
        raise Unsupported(f"heads of {head_dim} values, which are no pairs")
    bias = bool(fields.get("attention_bias", False))
    return LlamaConfig(
        vocab_size=int(fields["vocab_size"]),
        hidden_size=hidden,
        intermediate_size=int(fields["intermediate_size"]),
        num_hidden_layers=int(fields["num_hidden_layers"]),
        num_attention_heads=heads,
        num_key_value_heads=int(fields.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        max_position_embeddings=positions,
        rms_norm_eps=float(fields.get("rms_norm_eps") or 1e-6),
        rope_theta=theta or 10000.0,
        stretch=stretch,
        tie_word_embeddings=bool(fields.get("tie_word_embeddings", False)),
        input_bias=bias or kind == "qwen2",
        output_bias=bias and kind == "llama",
        mlp_bias=bool(fields.get("mlp_bias", False)) and kind == "llama",
    )


def _refuse_windows(fields: dict[str, Any], kind: str) -> None:
    """Raises `Unsupported` if a layer sees only the latest tokens."""
    kinds = cast(list[str], fields.get("layer_types") or [])
    if any(layer != "full_attention" for layer in kinds):
        raise Unsupported(f"layers with {next(layer for layer in kinds if layer != 'full_attention')}")
    slides = kind == "mistral" or bool(fields.get("use_sliding_window"))
    first = 0 if kind == "mistral" else int(fields.get("max_window_layers") or 0)
    window = fields.get("sliding_window", 4096 if kind == "mistral" else None)
    if window and slides and not kinds and first < int(fields["num_hidden_layers"]):
        raise Unsupported(f"sliding_window = {window!r}")


def shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of such a model by its published name; linear layers have shape [out, in]."""
    c, hidden = config, config.hidden_size
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c.vocab_size, hidden)}
    if not c.tie_word_embeddings:
        found["lm_head.weight"] = (c.vocab_size, hidden)
    found["model.norm.weight"] = (hidden,)
    heads, shared = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    for layer in range(c.num_hidden_layers):
        at = f"model.layers.{layer}"
        found[f"{at}.input_layernorm.weight"] = found[f"{at}.post_attention_layernorm.weight"] = (hidden,)

        def linear(name: str, outputs: int, inputs: int, bias: bool, at: str = at) -> None:
            found[f"{at}.{name}.weight"] = (outputs, inputs)
            if bias:
                found[f"{at}.{name}.bias"] = (outputs,)

        linear("self_attn.q_proj", heads, hidden, c.input_bias)
        linear("self_attn.k_proj", shared, hidden, c.input_bias)
        linear("self_attn.v_proj", shared, hidden, c.input_bias)
        linear("self_attn.o_proj", hidden, heads, c.output_bias)
        linear("mlp.gate_proj", c.intermediate_size, hidden, c.mlp_bias)
        linear("mlp.up_proj", c.intermediate_size, hidden, c.mlp_bias)
        linear("mlp.down_proj", hidden, c.intermediate_size, c.mlp_bias)
    return found
