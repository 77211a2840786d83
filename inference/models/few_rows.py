"""All layers of a dense int8 model for a few rows on a CPU, as one call of TorchScript (see `scripted`).

The layers are a loop there, their weights lists: compiled one by one they would take a second at every start.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations of scripted methods.
from typing import List, Tuple  # noqa: UP035

import torch
from torch import Tensor

from inference.models.attention import among_latents, gated, inward_parts, rms_norm
from inference.models.int8_cpu import Packed, buffer, packed_product
from inference.models.rows import Rows
from inference.models.scripted import scripted, scripted_module


@scripted
def parts_of(span: List[Tensor], pool: Tensor, number: int) -> List[Tensor]:  # noqa: UP006
    """Of a sequence's `span` (see `FewRows`) what layer `number` keeps; `pool`: that layer's."""
    parts: List[Tensor] = []  # noqa: UP006
    for part in span:
        parts.append(part[number] if part.dim() == 3 else pool.index_select(0, part))  # noqa: PERF401
    return parts


@scripted
def behind_attention(
    x: Tensor,
    outs: List[Tensor],  # noqa: UP006
    feed_norm: Tensor,
    output: Packed,
    gate_up: Packed,
    down: Packed,
    buffers: List[List[Tensor]],  # noqa: UP006
    eps: float,
) -> Tensor:
    """The rest of a layer; `outs`: of each sequence's attention."""
    x = x + packed_product(outs[0] if len(outs) == 1 else torch.cat(outs), buffers[1], output)
    fed = gated(packed_product(rms_norm(x, feed_norm, eps), buffers[0], gate_up))
    return x + packed_product(fed, buffers[2], down)


class LatentLayers(torch.nn.Module):
    """Layers of DeepSeek-V2."""

    def __init__(
        self,
        tensors: List[List[Tensor]],  # noqa: UP006
        packed: List[List[Packed]],  # noqa: UP006
        sizes: Tuple[int, int, int],  # noqa: UP006
        scale: float,
        eps: Tuple[float, float],  # noqa: UP006
    ):
        """Of each layer `tensors`: norms before attention, of latents, before the feed, W_UK, W_UV; `packed`: inward,
        output, gate and up, down. `sizes`: heads, rotated values of one, values of a latent; `eps`: of latents' norms
        last.
        """
        super().__init__()
        self.tensors, self.packed = tensors, packed
        self.heads, self.rotated, self.latent = sizes
        self.scale, self.eps, self.latent_eps = scale, eps[0], eps[1]

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
        """Rows [n, hidden] of a few sequences → [n, hidden]; their latents go into the pools.

        `counts`: rows of each sequence; `spans`: where its latents stand, each a view [layers, t, values] of the pool
        or the numbers of t slots, int64; `buffers`: for matrices over hidden, heads' outputs and the gated.
        """
        for number in range(len(self.packed)):
            attention_norm, latent_norm, feed_norm, key_up, value_up = self.tensors[number]
            inward, output, gate_up, down = self.packed[number]
            pool = pools[number]
            seen = packed_product(rms_norm(x, attention_norm, self.eps), buffers[0], inward)
            unrotated, turned, latent = inward_parts(seen, rotations, self.heads, self.rotated, self.latent)
            latent = rms_norm(latent, latent_norm, self.latent_eps)
            pool.index_copy_(0, slots, torch.cat([latent, turned[:, self.heads]], -1))
            unrotated = unrotated.view(x.shape[0], self.heads, -1)
            low = torch.bmm(unrotated.transpose(0, 1), key_up)  # of all sequences at once, as their outputs are below
            mixed: List[Tensor] = []  # noqa: UP006
            at = 0
            for count, span in zip(counts, spans):  # noqa: B905  TorchScript has no strict
                parts = parts_of(span, pool, number)
                rotated = turned[at : at + count, : self.heads]
                mixed.append(among_latents(low[:, at : at + count], rotated, parts, self.scale))
                at += count
            out = torch.bmm(mixed[0] if len(mixed) == 1 else torch.cat(mixed, 1), value_up)
            outs = [out.transpose(0, 1).reshape(x.shape[0], -1)]
            x = behind_attention(x, outs, feed_norm, output, gate_up, down, buffers, self.eps)
        return x


class FewRows:
    """The layers of a model whose matrices all have the kernel for few rows."""

    def __init__(self, layers: torch.nn.Module, sizes: tuple[int, int, int]):
        """`layers`: with the `forward` of `LatentLayers`; `sizes`: of hidden, of all heads' outputs, of the gated."""
        self._run, self._sizes = scripted_module(layers), sizes

    def __call__(self, pool: Tensor, rows: Rows, x: Tensor, rotations: Tensor) -> Tensor:
        """Rows [n, hidden] through all layers → [outputs, hidden]; what is kept of them goes into the pool."""
        n = len(x)
        counts = [group.count for group in rows.groups]
        spans = [group.context.spans(pool) for group in rows.groups]
        x = self._run(x, rotations, pool, rows.slots, counts, spans, [buffer(n, size) for size in self._sizes])
        return x if len(rows.outputs) == n else x[rows.outputs]
