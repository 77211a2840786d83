"""What a block of many rows goes through on a CPU, each as one call of TorchScript (see `scripted`).

Two threads in Python at once would wait for each other's interpreter.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations of scripted functions.
from typing import List  # noqa: UP035

import torch
from torch import Tensor

from inference.models.attention import gated, inward_parts, rms_norm
from inference.models.int8_cpu import many_product
from inference.models.scripted import scripted


@scripted
def enter(
    x: Tensor,
    norms: List[Tensor],  # noqa: UP006
    inward: List[Tensor],  # noqa: UP006
    rotations: Tensor,
    slots: Tensor,
    pool: Tensor,
    queries: Tensor,
    latent: int,
    eps: List[float],  # noqa: UP006
) -> None:
    """Rows [n, hidden] as queries [n, h, d + r] and as latents into a layer's `pool` [slots, c + r].

    `norms`, `eps`: before attention and of latents; `inward`: see `many_product`; `latent`: c.
    """
    n, h, r = queries.shape[0], queries.shape[1], pool.shape[1] - latent
    d = queries.shape[2] - r
    seen = many_product(rms_norm(x, norms[0], eps[0]), inward)
    unrotated, turned, low = inward_parts(seen, rotations, h, r, latent)
    pool.index_copy_(0, slots, torch.cat([rms_norm(low, norms[1], eps[1]), turned[:, h]], -1))
    queries[:, :, :d].copy_(unrotated.view(n, h, d))
    queries[:, :, d:].copy_(turned[:, :h])


@scripted
def feed(x: Tensor, attended: Tensor, norm: Tensor, matrices: List[List[Tensor]], eps: float) -> None:  # noqa: UP006
    """Rows of `x` [n, hidden] through what follows a layer's attention, in place.

    `matrices`: output, gate and up, down, see `many_product`.
    """
    x.add_(many_product(attended, matrices[0]))
    fed = gated(many_product(rms_norm(x, norm, eps), matrices[1]))
    x.add_(many_product(fed, matrices[2]))
