"""One layer of an int8 Llama or Qwen2 for a few rows on a CPU, in TorchScript; see `few_rows`."""

# No `from __future__ import annotations`: TorchScript reads the annotations of scripted methods.
from typing import List, Optional, Tuple  # noqa: UP035

import torch
from torch import Tensor

from inference.models.attention import gated, inward_parts, rms_norm
from inference.models.grouped_attention import few_rows


class LlamaLayerOfFew(torch.nn.Module):
    """See `few_rows.LayerOfFew`."""

    def __init__(
        self,
        norms: Tuple[Tensor, Tensor],  # noqa: UP006
        matrices: List[torch.nn.Module],  # noqa: UP006
        bias: Optional[Tensor],  # noqa: UP045
        heads: Tuple[int, int],  # noqa: UP006
        head_dim: int,
        eps: float,
    ):
        """`norms`: before attention, before the feed; `matrices`: inward, output, gate and up, down; `bias`: of the
        first; `heads`: of queries, of keys and values."""
        super().__init__()
        self.attention_norm, self.feed_norm = norms
        self.inward, self.output, self.gate_up, self.down = matrices
        self.bias = torch.zeros(1) if bias is None else bias
        self.heads, self.groups = heads
        self.head_dim, self.scale, self.eps = head_dim, head_dim**-0.5, eps

    def forward(
        self,
        x: Tensor,
        rotations: Tensor,
        pool: Tensor,
        slots: Tensor,
        counts: List[int],  # noqa: UP006
        spans: List[List[Tensor]],  # noqa: UP006
        buffers: List[List[Tensor]],  # noqa: UP006
        number: int,
    ) -> Tensor:
        """See `few_rows.LayerOfFew`."""
        seen = self.inward(rms_norm(x, self.attention_norm, self.eps), buffers[0]).add_(self.bias)
        width = self.groups * self.head_dim
        _, turned, values = inward_parts(seen, rotations, self.heads + self.groups - 1, self.head_dim, width)
        pool.index_copy_(0, slots, torch.cat([turned[:, self.heads :].flatten(1), values], -1))
        outs: List[Tensor] = []  # noqa: UP006
        at = 0
        for count, span in zip(counts, spans):  # noqa: B905  TorchScript has no strict
            parts: List[Tensor] = []  # noqa: UP006
            for part in span:
                parts.append(part[number] if part.dim() == 3 else pool.index_select(0, part))  # noqa: PERF401
            outs.append(few_rows(turned[at : at + count, : self.heads], parts, self.groups, self.scale))
            at += count
        x = x + self.output(outs[0] if len(outs) == 1 else torch.cat(outs), buffers[1])
        fed = gated(self.gate_up(rms_norm(x, self.feed_norm, self.eps), buffers[0]))
        return x + self.down(fed, buffers[2])
