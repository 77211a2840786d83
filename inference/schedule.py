"""Who is next: what one forward computes, of all that the engine has in hand."""

from __future__ import annotations

from typing import Any

from inference.choice import Choice
from inference.models import Model
from inference.requests import TextRequest

SCORED = 256
"""Most tokens of a forward whose prompt is scored: each has a row of logits over the whole vocabulary."""


def chosen(choices: list[Choice], model: Model[Any], *, waiting: bool) -> list[tuple[Choice, int]]:
    """What the next forward computes, drafts aside: (choice, tokens).

    Decode steps of all, then a chunk of the newest prompt, a smaller one while anyone waits; background work only when
    nothing else runs. `waiting`: there are requests that are not among `choices` yet.
    """
    wanted = [c for c in choices if c.urgent]
    if not wanted:  # background work, one request at a time
        newest = max((c.ticket for c in choices), key=lambda ticket: ticket.submitted, default=None)
        wanted = [c for c in choices if c.ticket is newest]
    rows = [(choice, 1) for choice in wanted if choice.to_compute == 1]
    prompts = [choice for choice in wanted if choice.to_compute > 1]
    if prompts:
        newest = prompts[-1]
        most = model.chunk if rows or len(choices) > 1 or waiting else model.longest_chunk
        most = min(most, SCORED) if is_scored(newest) else most
        parts = -(-newest.to_compute // most)  # alike in size, as each is what a cancellation waits for
        rows.append((newest, -(-newest.to_compute // parts)))
    return rows


def is_scored(choice: Choice) -> bool:
    """Whether what is computed for it now is a prompt whose tokens are asked for."""
    request = choice.ticket.request
    return isinstance(request, TextRequest) and request.score_prompt and choice.decoded == 0
