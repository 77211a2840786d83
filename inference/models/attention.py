"""Multi-head latent attention (arXiv 2405.04434, section 2.1), and the small pieces around it.

Shapes: n rows, t tokens of the sequence, h heads, c values of a latent, r rotated and d unrotated values of a head,
v of its output. Keys and latents stand together as [t, c + r].
"""

# No `from __future__ import annotations`: TorchScript reads the annotations of scripted functions.
from typing import Any, List, Tuple  # noqa: UP035

import torch
from torch import Tensor
from torch.nn import functional

from inference.models.scripted import scripted

_flash: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""The kernel behind scaled_dot_product_attention on a CPU: it also gives the logarithms of the sums."""


@scripted
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Each row of `x` over its root mean square, times `weight`."""
    if x.dtype != torch.float32 or x.is_cuda:
        return functional.rms_norm(x, weight.shape, weight, eps)
    # torch's own rms_norm is slow at few rows on a CPU.
    length = torch.ops.aten.linalg_vector_norm(x, 2, [-1], True)
    return (x / (length.square_().mul_(1 / x.shape[-1]).add_(eps).sqrt_())).mul_(weight)


@scripted
def gated(both: Tensor) -> Tensor:
    """silu(gate) * up of [n, gate and up]."""
    gate, up = both.chunk(2, -1)
    return functional.silu(gate).mul_(up)


@scripted
def inward_parts(x: Tensor, rotations: Tensor, heads: int, r: int, c: int) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
    """[n, before | (heads + 1) * r | c] → before, the middle as [n, heads + 1, r] with each pair turned, the last c.

    `rotations`: complex [n, 1, r / 2].
    """
    n, middle = x.shape[0], (heads + 1) * r
    before = x[:, : x.shape[1] - middle - c]
    pairs = x[:, x.shape[1] - middle - c : x.shape[1] - c].float().reshape(n, heads + 1, r // 2, 2)
    turned = torch.view_as_real(torch.view_as_complex(pairs) * rotations).view(n, heads + 1, r)
    return before, turned.to(x.dtype), x[:, x.shape[1] - c :]


@scripted
def flash(queries: Tensor, parts: List[Tensor], scale: float) -> Tensor:  # noqa: UP006
    """Attention on a CPU of one row's queries [h, w] among latents that are keys and values, each read once.

    Long parts are taken as two halves for two threads; short ones and what is left over together, as a call costs more
    than they do. All are joined by the logarithms of their sums.
    """
    rows = queries.view(1, 1, queries.shape[0], -1)
    outs: List[Tensor] = []  # noqa: UP006
    sums: List[Tensor] = []  # noqa: UP006
    rest: List[Tensor] = []  # noqa: UP006
    for part in parts:
        half = part.shape[0] // 2 if part.shape[0] >= 64 else 0
        if half > 0:
            both = part[: 2 * half].view(1, 2, half, -1)
            out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                rows.expand(1, 2, -1, -1), both, both, 0.0, False, scale=scale
            )
            outs.append(out)
            sums.append(total)
        if part.shape[0] > 2 * half:
            rest.append(part[2 * half :])
    if len(rest) > 0:
        one = (rest[0] if len(rest) == 1 else torch.cat(rest))[None, None]
        out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(rows, one, one, 0.0, False, scale=scale)
        outs.append(out)
        sums.append(total)
    shares = torch.softmax(torch.cat(sums, 1), 1)[0, :, :, None]  # [parts, h, 1]
    return (torch.cat(outs, 1)[0] * shares).sum(0).to(queries.dtype)


@scripted
def among_latents(low: Tensor, rotated: Tensor, parts: List[Tensor], scale: float) -> Tensor:  # noqa: UP006
    """Attention of one sequence's rows: queries [h, n, c] and [n, h, r], the latents in a few tensors → [h, n, c]."""
    h, n, c = low.shape
    if n == 1 and not low.is_cuda:
        return flash(torch.cat([low[:, 0], rotated[0]], -1), parts, scale)[:, None, :c]
    queries = torch.cat([low, rotated.transpose(0, 1)], -1).view(h * n, -1).mul_(scale)
    if len(parts) == 1:
        scores = torch.mm(queries, parts[0].t())
    else:
        scores = torch.cat([torch.mm(queries, part.t()) for part in parts], -1)
    if n > 1:  # a row sees none of those behind it
        behind = torch.full([n, n], float("-inf"), dtype=scores.dtype, device=scores.device).triu_(1)
        scores.view(h, n, -1)[:, :, scores.shape[1] - n :].add_(behind)
    shares = torch.softmax(scores, -1, dtype=torch.float32).to(low.dtype)
    at = parts[0].shape[0]
    mixed = torch.mm(shares[:, :at], parts[0][:, :c])
    for part in parts[1:]:
        mixed.addmm_(shares[:, at : at + part.shape[0]], part[:, :c])
        at += part.shape[0]
    return mixed.view(h, n, c)


@scripted
def absorbed(queries: Tensor, key_up: Tensor, value_up: Tensor, parts: List[Tensor], scale: float) -> Tensor:  # noqa: UP006
    """Attention among latents, their expansion absorbed into queries and outputs.

    Queries [n, h, d + r], W_UK [h, d, c], W_UV [h, c, v], the latents in a few tensors → [n, h * v].
    """
    d = key_up.shape[1]
    low = torch.bmm(queries[:, :, :d].transpose(0, 1), key_up)  # [h, n, c]
    mixed = among_latents(low, queries[:, :, d:], parts, scale)
    return torch.bmm(mixed, value_up).transpose(0, 1).reshape(queries.shape[0], -1)


@scripted
def among_keys(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Attention on a CPU of one head's rows [n, d] among its keys [t, d] and values [t, v], the last n of them theirs →
    [n, v].

    Some rows at a time and as many keys as the last of them sees: their scores stay in the processor's cache.
    """
    n, t, rows = queries.shape[0], keys.shape[0], 64
    scaled = queries * scale
    out = torch.empty([n, values.shape[1]], dtype=queries.dtype)
    behind = torch.full([rows, rows], float("-inf"), dtype=queries.dtype).triu_(1)
    for at in range(0, n, rows):
        end = min(at + rows, n)
        seen = t - n + end
        scores = torch.mm(scaled[at:end], keys[:seen].t())
        scores[:, seen - (end - at) :].add_(behind[: end - at, : end - at])
        torch.mm(torch.softmax(scores, -1, dtype=torch.float32).to(values.dtype), values[:seen], out=out[at:end])
    return out


def expanded(queries: Tensor, expand: Tensor, parts: list[Tensor], v: int, scale: float) -> Tensor:
    """The same among keys and values expanded from the latents by [h * (d + v), c]: cheaper for many rows."""
    n, h, _ = queries.shape
    c, d = expand.shape[1], expand.shape[0] // h - v
    kv = parts[0] if len(parts) == 1 else torch.cat(parts)
    t = len(kv)
    both = functional.linear(kv[:, :c], expand).view(t, h, -1)
    keys = torch.cat([both[..., :d], kv[:, None, c:].expand(t, h, -1)], dim=-1).transpose(0, 1)[None]
    values = both[..., d:].transpose(0, 1)[None]
    if padding := keys.shape[-1] - v:  # the fast kernels want one width
        values = functional.pad(values, (0, padding))
    queries = queries.transpose(0, 1)[None]
    if n == t:
        out = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=scale)
    elif kv.is_cuda:
        mask = torch.ones(n, t, dtype=torch.bool, device=kv.device).tril_(t - n)
        out = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
    else:  # without a mask: those before, then each other
        before, their_sum = _flash(queries, keys[:, :, : t - n], values[:, :, : t - n], 0.0, False, scale=scale)
        own, own_sum = _flash(queries, keys[:, :, t - n :], values[:, :, t - n :], 0.0, True, scale=scale)
        out = own.lerp(before, torch.sigmoid(their_sum - own_sum)[..., None].to(own.dtype))
    return out[0, ..., :v].transpose(0, 1).reshape(n, -1)
