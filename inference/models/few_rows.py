"""All layers of a dense int8 model for a few rows on a CPU, as one call of TorchScript (see `scripted`)."""

# No `from __future__ import annotations`: TorchScript reads the annotations of scripted methods.
from typing import List  # noqa: UP035

import torch
from torch import Tensor

from inference.models.attention import absorbed, gated, inward_parts, rms_norm
from inference.models.scripted import scripted_module


class LayerOfFew(torch.nn.Module):
    """One layer. Matrices are modules that take rows and a buffer (`matrices.buffer`)."""

    def __init__(
        self,
        norms: tuple[Tensor, Tensor, Tensor],
        matrices: list[torch.nn.Module],
        ups: tuple[Tensor, Tensor],
        sizes: tuple[int, int, int],
        scale: float,
        eps: tuple[float, float],
    ):
        """`norms`: before attention, of latents, before the feed; `matrices`: inward, output, gate and up, down;
        `ups`: W_UK and W_UV; `sizes`: heads, rotated values of one, values of a latent; `eps`: of latents' norms last.
        """
        super().__init__()
        self.attention_norm, self.latent_norm, self.feed_norm = norms
        self.inward, self.output, self.gate_up, self.down = matrices
        self.key_up, self.value_up = ups
        self.heads, self.rotated, self.latent = sizes
        self.scale, self.eps, self.latent_eps = scale, eps[0], eps[1]

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
        """See `FewRows`; of its pool the layer's part, of its arguments those that vary."""
        seen = self.inward(rms_norm(x, self.attention_norm, self.eps), buffers[0])
        unrotated, turned, latent = inward_parts(seen, rotations, self.heads, self.rotated, self.latent)
        latent = rms_norm(latent, self.latent_norm, self.latent_eps)
        pool.index_copy_(0, slots, torch.cat([latent, turned[:, self.heads]], -1))
        unrotated = unrotated.view(x.shape[0], self.heads, -1)
        outs: List[Tensor] = []  # noqa: UP006
        at = 0
        for count, span in zip(counts, spans):  # noqa: B905  TorchScript has no strict
            parts: List[Tensor] = []  # noqa: UP006
            for part in span:
                parts.append(part[number] if part.dim() == 3 else pool.index_select(0, part))  # noqa: PERF401
            queries, rotated = unrotated[at : at + count], turned[at : at + count, : self.heads]
            outs.append(absorbed(queries, rotated, self.key_up, self.value_up, parts, self.scale))
            at += count
        x = x + self.output(outs[0] if len(outs) == 1 else torch.cat(outs), buffers[1])
        fed = gated(self.gate_up(rms_norm(x, self.feed_norm, self.eps), buffers[0]))
        return x + self.down(fed, buffers[2])


class _Layers(torch.nn.Module):
    def __init__(self, layers: list[torch.nn.Module]):
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(
        self,
        x: Tensor,
        rotations: Tensor,
        pool: Tensor,
        slots: Tensor,
        counts: List[int],  # noqa: UP006
        spans: List[List[Tensor]],  # noqa: UP006
        buffers: List[List[Tensor]],  # noqa: UP006
    ) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(x, rotations, pool[number], slots, counts, spans, buffers, number)
        return x


class FewRows:
    """The layers of a model whose matrices all have the kernel for few rows."""

    def __init__(self, layers: list[torch.nn.Module]):
        """`layers`: with the `forward` of `LayerOfFew`."""
        self._run = scripted_module(_Layers(layers))

    def __call__(
        self,
        x: Tensor,
        rotations: Tensor,
        pool: Tensor,
        slots: Tensor,
        counts: list[int],
        spans: list[list[Tensor]],
        buffers: list[list[Tensor]],
    ) -> Tensor:
        """Rows [n, hidden] of a few sequences through all layers, their latents into the pool.

        `counts`: rows of each sequence; `spans`: where its latents stand, each a view [layers, t, values] of the pool
        or the numbers of t slots, int64; `buffers`: for matrices over hidden, heads' outputs and the gated.
        """
        return self._run(x, rotations, pool, slots, counts, spans, buffers)
