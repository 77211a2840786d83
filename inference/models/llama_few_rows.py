"""All layers of an int8 Llama or Qwen2 for a few rows on a CPU, in TorchScript; see `few_rows`."""

# No `from __future__ import annotations`: TorchScript reads the annotations of scripted methods.
from typing import List, Tuple  # noqa: UP035

import torch
from torch import Tensor

from inference.models.attention import inward_parts, rms_norm
from inference.models.few_rows import behind_attention, parts_of
from inference.models.grouped_attention import few_rows
from inference.models.int8_cpu import Packed, packed_product


class GroupedLayers(torch.nn.Module):
    """Layers of Llama."""

    def __init__(
        self,
        tensors: List[List[Tensor]],  # noqa: UP006
        packed: List[List[Packed]],  # noqa: UP006
        heads: Tuple[int, int],  # noqa: UP006
        head_dim: int,
        eps: float,
    ):
        """Of each layer `tensors`: norms before attention and before the feed, bias of inward; `packed`: inward,
        output, gate and up, down. `heads`: of queries, of keys and values."""
        super().__init__()
        self.tensors, self.packed = tensors, packed
        self.heads, self.groups = heads
        self.head_dim, self.scale, self.eps = head_dim, head_dim**-0.5, eps

    def forward(
        self,
        x: Tensor,
        rotations: Tensor,
        pools: Tensor,
        slots: Tensor,
        counts: List[int],  # noqa: UP006
        spans: List[List[Tensor]],  # noqa: UP006
        buffers: List[List[Tensor]],  # noqa: UP006
    ) -> Tensor:
        """See `few_rows.LatentLayers`."""
        width = self.groups * self.head_dim
        for number in range(len(self.packed)):
            attention_norm, feed_norm, bias = self.tensors[number]
            inward, output, gate_up, down = self.packed[number]
            pool = pools[number]
            seen = packed_product(rms_norm(x, attention_norm, self.eps), buffers[0], inward).add_(bias)
            _, turned, values = inward_parts(seen, rotations, self.heads + self.groups - 1, self.head_dim, width)
            pool.index_copy_(0, slots, torch.cat([turned[:, self.heads :].flatten(1), values], -1))
            outs: List[Tensor] = []  # noqa: UP006
            at = 0
            for count, span in zip(counts, spans):  # noqa: B905  TorchScript has no strict
                queries = turned[at : at + count, : self.heads]
                outs.append(few_rows(queries, parts_of(span, pool, number), self.groups, self.scale))
                at += count
            x = behind_attention(x, outs, feed_norm, output, gate_up, down, buffers, self.eps)
        return x
