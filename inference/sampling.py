"""From one row of logits to one token."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.wire import Sampling


def choose(
    logits: Tensor, sampling: Sampling, allowed: Tensor | None, generator: torch.Generator | None
) -> tuple[int, float]:
    """The next token and its log-probability in nats, among the `allowed` ids (all of them when None).

    `logits`: float32 [vocab]. Greedy at temperature 0; the log-probability is always that of the unscaled model,
    renormalised over `allowed`.
    """
    row = logits if allowed is None else logits[allowed]
    logprobs = torch.log_softmax(row, dim=-1)
    if sampling.temperature <= 0:
        at = int(row.argmax())
    else:
        kept = _nucleus(torch.softmax(row / sampling.temperature, dim=-1), sampling)
        at = int(torch.multinomial(kept, 1, generator=generator))
    token = at if allowed is None else int(allowed[at])
    return token, float(logprobs[at])


def likeliest(logits: Tensor, count: int, allowed: Tensor | None) -> list[tuple[int, float]]:
    """The `count` likeliest of the `allowed` tokens with their log-probabilities, best first."""
    row = logits if allowed is None else logits[allowed]
    values, places = torch.log_softmax(row, dim=-1).topk(min(count, row.numel()))
    ids = places if allowed is None else allowed[places]
    return [(int(i), float(value)) for i, value in zip(ids, values, strict=True)]


def _nucleus(probabilities: Tensor, sampling: Sampling) -> Tensor:
    """`probabilities` with everything outside top-k and top-p set to zero (not renormalised)."""
    order = probabilities.argsort(descending=True)
    ranked = probabilities[order]
    if sampling.top_k > 0:
        ranked[sampling.top_k :] = 0
    if sampling.top_p < 1:
        before = ranked.cumsum(0) - ranked
        ranked[(before >= sampling.top_p) & (before > 0)] = 0
    return torch.zeros_like(probabilities).scatter_(0, order, ranked)
