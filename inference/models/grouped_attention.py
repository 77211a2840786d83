"""Attention whose heads share keys and values in groups (arXiv 2305.13245), over a pool.

Shapes: n rows, t tokens of the sequence, h heads of d values in k groups. A token's keys and values stand together as
[t, 2 * k * d].
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
def keys_and_values(part: Tensor, groups: int) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Views [k, t, d] of some tokens' keys and values."""
    both = part.view(part.shape[0], 2, groups, -1)
    return both[:, 0].transpose(0, 1), both[:, 1].transpose(0, 1)


@scripted
def one_row(queries: Tensor, parts: List[Tensor], groups: int, scale: float) -> Tensor:  # noqa: UP006
    """On a CPU: [1, h, d] among the tokens of a few tensors → [1, h * d], each read once, joined by their sums."""
    rows = queries.view(1, groups, -1, queries.shape[2])
    outs: List[Tensor] = []  # noqa: UP006
    sums: List[Tensor] = []  # noqa: UP006
    for part in parts:
        keys, values = keys_and_values(part, groups)
        out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            rows, keys[None], values[None], 0.0, False, scale=scale
        )
        outs.append(out)
        sums.append(total)
    if len(outs) == 1:
        return outs[0].reshape(1, -1)
    shares = torch.softmax(torch.stack(sums), 0)[..., None]  # [parts, 1, k, h / k, 1]
    return (torch.stack(outs) * shares).sum(0).to(queries.dtype).reshape(1, -1)


@scripted
def few_rows(queries: Tensor, parts: List[Tensor], groups: int, scale: float) -> Tensor:  # noqa: UP006
    """[n, h, d] among the tokens of a few tensors, the last n of them the rows' own → [n, h * d]."""
    n, d = queries.shape[0], queries.shape[2]
    if n == 1 and not queries.is_cuda:
        return one_row(queries, parts, groups, scale)
    rows = queries.view(n, groups, -1, d).transpose(0, 1).reshape(groups, -1, d) * scale  # [k, n * h / k, d]
    found: List[Tensor] = []  # noqa: UP006
    valued: List[Tensor] = []  # noqa: UP006
    for part in parts:
        keys, values = keys_and_values(part, groups)
        found.append(torch.bmm(rows, keys.transpose(1, 2)))
        valued.append(values)
    scores = found[0] if len(found) == 1 else torch.cat(found, -1)
    if n > 1:  # a row sees none of those behind it
        behind = torch.full([n, n], float("-inf"), dtype=scores.dtype, device=scores.device).triu_(1)
        scores.view(groups, n, -1, scores.shape[2])[..., scores.shape[2] - n :].add_(behind[:, None])
    shares = torch.softmax(scores, -1, dtype=torch.float32).to(queries.dtype)
    at = valued[0].shape[1]
    mixed = torch.bmm(shares[:, :, :at], valued[0])
    for values in valued[1:]:
        mixed = torch.baddbmm(mixed, shares[:, :, at : at + values.shape[1]], values)
        at += values.shape[1]
    return mixed.view(groups, n, -1, d).transpose(0, 1).reshape(n, -1)


def many_rows(queries: Tensor, parts: list[Tensor], groups: int, scale: float) -> Tensor:
    """The same, cheaper for many rows."""
    n, h, d = queries.shape
    keys, values = keys_and_values(parts[0] if len(parts) == 1 else torch.cat(parts), groups)
    t = keys.shape[1]
    rows = queries.view(n, groups, -1, d).permute(1, 2, 0, 3)  # [k, h / k, n, d]
    keys, values = (both[:, None].expand(-1, h // groups, -1, -1) for both in (keys, values))
    if queries.is_cuda:
        mask = None if n == t else torch.ones(n, t, dtype=torch.bool, device=queries.device).tril_(t - n)
        out = functional.scaled_dot_product_attention(
            rows, keys, values, attn_mask=mask, is_causal=mask is None, scale=scale
        )
    elif n == t:
        out = _flash(rows, keys, values, 0.0, True, scale=scale)[0]
    else:  # without a mask: those before, then each other
        before, their_sum = _flash(rows, keys[:, :, : t - n], values[:, :, : t - n], 0.0, False, scale=scale)
        own, own_sum = _flash(rows, keys[:, :, t - n :], values[:, :, t - n :], 0.0, True, scale=scale)
        out = own.lerp(before, torch.sigmoid(their_sum - own_sum)[..., None].to(own.dtype))
    return out.permute(2, 0, 1, 3).reshape(n, -1)
