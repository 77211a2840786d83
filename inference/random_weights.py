"""Random numbers in a model's shapes: its speed and memory on this machine, without its weights."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from inference.checkpoint import Int8, Unreadable, is_tied, quantise, takes_int8
from inference.models import llama_config


class RandomWeights:
    """Random numbers as a `Source`, in the shapes that a config asks for.

    The same seed and name give the same tensor, in whatever order they are read (on one kind of device).
    """

    def __init__(self, config: Any, device: str, dtype: torch.dtype, *, int8: bool = False, seed: int = 0):
        """`config`: see `shapes`."""
        self._shapes, self._device, self._dtype, self._int8, self._seed = shapes(config), device, dtype, int8, seed
        self._generator = torch.Generator(device)

    def has(self, name: str) -> bool:
        """See `Source`."""
        return name in self._shapes

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Source`."""
        if name not in self._shapes:
            raise Unreadable(f"a model of this config holds no tensor {name}")
        return self._shapes[name]

    def tensor(self, name: str) -> Tensor:
        """See `Source`. Deviation 1/√in for matrices, so that activations keep their size; norms lie around 1."""
        shape = self.shape(name)
        seed = hashlib.blake2b(f"{self._seed} {name}".encode(), digest_size=7).digest()
        self._generator.manual_seed(int.from_bytes(seed))
        made = torch.empty(shape, device=self._device, dtype=self._dtype)
        made.normal_(0.0, shape[-1] ** -0.5 if len(shape) == 2 else 0.02, generator=self._generator)
        return made.add_(1.0) if name.endswith("norm.weight") else made

    def matrix(self, name: str) -> Tensor | Int8:
        """See `Source`."""
        made = self.tensor(name)
        tied = is_tied(self._shapes)
        return quantise(made) if self._int8 and takes_int8(name, self.shape(name), tied=tied) else made

    def into(self, name: str, target: Tensor) -> None:
        """See `Source`."""
        target.copy_(self.tensor(name))


def shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Every tensor of a model by its published name.

    `config`: a `LlamaConfig`, or attributes as in DeepSeek-V2's `config.json`; linear layers have shape [out, in].
    """
    if isinstance(config, llama_config.LlamaConfig):
        return llama_config.shapes(config)
    c, hidden = config, int(config.hidden_size)
    experts, shared = int(c.n_routed_experts or 0), int(c.n_shared_experts or 0)
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c.vocab_size, hidden)}
    if not c.tie_word_embeddings:
        found["lm_head.weight"] = (c.vocab_size, hidden)
    found["model.norm.weight"] = (hidden,)

    def feed_forward(at: str, inner: int) -> None:
        found[f"{at}.gate_proj.weight"] = found[f"{at}.up_proj.weight"] = (inner, hidden)
        found[f"{at}.down_proj.weight"] = (hidden, inner)

    queries = c.num_attention_heads * (c.qk_nope_head_dim + c.qk_rope_head_dim)
    for layer in range(c.num_hidden_layers):
        at = f"model.layers.{layer}"
        found[f"{at}.input_layernorm.weight"] = found[f"{at}.post_attention_layernorm.weight"] = (hidden,)
        attention = f"{at}.self_attn"
        biased = {"kv_a_proj_with_mqa": c.kv_lora_rank + c.qk_rope_head_dim, "o_proj": hidden}
        if c.q_lora_rank:
            biased["q_a_proj"] = c.q_lora_rank
            found[f"{attention}.q_a_proj.weight"] = (c.q_lora_rank, hidden)
            found[f"{attention}.q_a_layernorm.weight"] = (c.q_lora_rank,)
            found[f"{attention}.q_b_proj.weight"] = (queries, c.q_lora_rank)
        else:
            found[f"{attention}.q_proj.weight"] = (queries, hidden)
        found[f"{attention}.kv_a_proj_with_mqa.weight"] = (c.kv_lora_rank + c.qk_rope_head_dim, hidden)
        found[f"{attention}.kv_a_layernorm.weight"] = (c.kv_lora_rank,)
        keys_and_values = c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim)
        found[f"{attention}.kv_b_proj.weight"] = (keys_and_values, c.kv_lora_rank)
        found[f"{attention}.o_proj.weight"] = (hidden, c.num_attention_heads * c.v_head_dim)
        if c.attention_bias:
            found.update({f"{attention}.{name}.bias": (size,) for name, size in biased.items()})
        if layer < c.first_k_dense_replace or not experts or layer % getattr(c, "moe_layer_freq", 1):
            feed_forward(f"{at}.mlp", c.intermediate_size)
            continue
        found[f"{at}.mlp.gate.weight"] = (experts, hidden)
        for expert in range(experts):
            feed_forward(f"{at}.mlp.experts.{expert}", c.moe_intermediate_size)
        if shared:
            feed_forward(f"{at}.mlp.shared_experts", c.moe_intermediate_size * shared)
    return found
