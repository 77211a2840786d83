"""Llama (arXiv 2302.13971, 2307.09288), Qwen2 and Mistral over a pool of keys and values: rows of several sequences.

Shapes in comments: n rows, h heads of d values in k groups.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from inference.checkpoint import Int8, Source
from inference.models.attention import among_keys, inward_parts, rms_norm
from inference.models.feed_forward import FeedForward, feed_forward
from inference.models.few_rows import FewRows
from inference.models.grouped_attention import few_rows, keys_and_values, many_rows
from inference.models.layered import Layered
from inference.models.llama_config import LlamaConfig
from inference.models.llama_few_rows import GroupedLayers
from inference.models.matrices import Biased, Matrix, biased, join, matrix, packed_of, take
from inference.models.rows import Rows

MANY_ROWS = {"cpu": 24, "cuda": 64}
"""From so many rows of a sequence the kernels that see blocks of scores at a time are the faster ones."""


@attrs.frozen
class Layer:
    """One layer's weights. `inward` gives [queries h * d | keys k * d | values k * d], rotated pairs side by side."""

    attention_norm: Tensor
    inward: Matrix
    output: Matrix
    feed_norm: Tensor
    feed: FeedForward


class Llama(Layered):
    """The weights, and the forward. Thread-safe only for one caller at a time."""

    def __init__(self, config: LlamaConfig, source: Source, device: str, window: int):
        """Reads all weights from `source`. `window`: positions to be used, at most the config's."""
        super().__init__(device)
        self.config = config
        self._source = source
        self._embedding = source.matrix("model.embed_tokens.weight")
        # A tied model whose file has the head all the same: as int8 only that one is (see `takes_int8`).
        tied = config.tie_word_embeddings and not source.has("lm_head.weight")
        self.head = matrix(self._embedding if tied else source.matrix("lm_head.weight"), self._kind)
        self.layers = [self._layer(i) for i in range(config.num_hidden_layers)]
        self.norm = source.tensor("model.norm.weight")
        self.dtype = self.norm.dtype
        self.scale = config.head_dim**-0.5
        frequencies, magnitude = config.frequencies()
        angles = torch.arange(window, dtype=torch.float32)[:, None] * frequencies
        self.rotations = torch.polar(torch.full_like(angles, magnitude), angles).to(device)  # [window, d / 2]
        self._many_rows = MANY_ROWS.get(self._kind, 64)
        del self._source
        self._few = self._for_few_rows()

    def _layer(self, i: int) -> Layer:
        c, source = self.config, self._source
        name = f"model.layers.{i}."
        return Layer(
            attention_norm=source.tensor(name + "input_layernorm.weight"),
            inward=self._inward(name + "self_attn."),
            output=biased(
                matrix(source.matrix(name + "self_attn.o_proj.weight"), self._kind),
                source,
                [name + "self_attn.o_proj.bias"] if c.output_bias else [],
            ),
            feed_norm=source.tensor(name + "post_attention_layernorm.weight"),
            feed=feed_forward(source, name + "mlp.", self._kind),
        )

    def _inward(self, name: str) -> Matrix:
        """Queries, keys and values as one matrix; the two halves of a head that turn together are its pairs."""
        c = self.config
        parts: list[Tensor | Int8] = []
        biases: list[Tensor] = []
        for part, heads in (("q", c.num_attention_heads), ("k", c.num_key_value_heads), ("v", 0)):
            weight = self._source.matrix(f"{name}{part}_proj.weight")
            order = _paired(heads, c.head_dim) if heads else None
            parts.append(weight if order is None else take(weight, order))
            if c.input_bias:
                bias = self._source.tensor(f"{name}{part}_proj.bias")
                biases.append(bias if order is None else bias[order])
        made = matrix(join(parts), self._kind)
        return Biased(made, torch.cat(biases)) if biases else made

    def _for_few_rows(self) -> FewRows | None:
        """The layers as one call, where all are int8 on a CPU and have no biases but the usual ones."""
        c = self.config
        if c.output_bias or c.mlp_bias:
            return None
        tensors: list[list[Tensor]] = []
        packed: list[list[Any]] = []
        for layer in self.layers:
            few = packed_of([layer.inward, layer.output, layer.feed.gate_up, layer.feed.down])
            if few is None:
                return None
            packed.append(few)
            bias = layer.inward.bias if isinstance(layer.inward, Biased) else torch.zeros(1)
            tensors.append([layer.attention_norm, layer.feed_norm, bias])
        heads = (c.num_attention_heads, c.num_key_value_heads)
        widths = (c.hidden_size, c.num_attention_heads * c.head_dim, c.intermediate_size)
        layers = GroupedLayers(tensors, packed, heads, c.head_dim, c.rms_norm_eps)
        return FewRows(layers, widths)

    def _attention(
        self, layer: Layer, x: Tensor, pool: Tensor, rows: Rows, rotations: Tensor, *, outputs_only: bool
    ) -> Tensor:
        c, n = self.config, len(x)
        h, k, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        queries = x.new_empty(n, h, d)

        def enter(mine: slice) -> None:
            seen = layer.inward(rms_norm(x[mine], layer.attention_norm, c.rms_norm_eps))
            _, turned, values = inward_parts(seen, rotations[mine], h + k - 1, d, k * d)
            kept = torch.cat([turned[:, h:].flatten(1), values], dim=-1)
            pool.index_copy_(0, rows.slots[mine], kept.to(pool.dtype))
            queries[mine] = turned[:, :h]

        in_blocks = self._blocks(n)
        self.threads.each(enter, in_blocks)
        groups = rows.groups
        if outputs_only:
            groups, queries = rows.last_only(), queries[rows.outputs]
        outputs: list[Tensor] = []
        for group in groups:
            mine, parts = queries[group.start : group.start + group.count], group.context.parts(pool)
            if group.count < self._many_rows:
                outputs.append(few_rows(mine, parts, k, self.scale))
            elif len(in_blocks) == 1:
                outputs.append(many_rows(mine, parts, k, self.scale))
            else:
                outputs.append(self._head_by_head(mine, parts))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _head_by_head(self, queries: Tensor, parts: list[Tensor]) -> Tensor:
        """`grouped_attention.many_rows`, each head by itself."""
        n, h, _ = queries.shape
        k = self.config.num_key_value_heads
        keys, values = keys_and_values(parts[0] if len(parts) == 1 else torch.cat(parts), k)
        out = torch.empty_like(queries)

        def attend(head: int) -> None:
            group = head * k // h
            out[:, head] = among_keys(queries[:, head], keys[group], values[group], self.scale)

        self.threads.each(attend, range(h))
        return out.view(n, -1)


def _paired(heads: int, d: int) -> Tensor:
    """Order of a matrix's outputs that puts each head's value i beside its value i + d / 2, with which it turns."""
    return torch.arange(heads * d).view(heads, 2, d // 2).transpose(1, 2).flatten()
