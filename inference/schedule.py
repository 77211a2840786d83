"""Who is next: what one forward computes, of all that the engine has in hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from inference.choice import Choice, Ticket
from inference.models import Model
from inference.requests import TextRequest, goes_on_from, replaces

SCORED = 256
"""Most tokens of a forward whose prompt is scored: each has a row of logits over the whole vocabulary."""

AHEAD = 3
"""Chunks, as they are while others wait, that are computed at once of what nobody waits for yet."""


def chosen(choices: list[Choice], model: Model[Any], *, waiting: bool) -> list[tuple[Choice, int]]:
    """What the next forward computes, drafts aside: (choice, tokens).

    Decode steps of all, then a chunk of the newest prompt, a smaller one while anyone waits or may soon; background
    work only when nothing else runs. `waiting`: there are requests that are not among `choices` yet.
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
        most = most if newest.urgent else min(most, AHEAD * model.chunk)
        most = min(most, SCORED) if is_scored(newest) else most
        parts = -(-newest.to_compute // most)  # alike in size, as others wait for each
        rows.append((newest, -(-newest.to_compute // parts)))
    return rows


def is_unwanted(choices: Iterable[Choice], waiting: Iterable[Ticket]) -> bool:
    """Whether a forward for these choices only keeps others waiting: all are cancelled or about to be replaced, and
    what it computes is of no use to who comes next. While nobody waits it is kept for whoever may."""
    awaited = [ticket.request for ticket in waiting if not ticket.cancelled]

    def in_vain(choice: Choice) -> bool:
        mine = choice.ticket.request
        gone = choice.ticket.cancelled or any(replaces(request, mine) for request in awaited)
        return gone and not any(goes_on_from(request, mine) for request in awaited)

    return bool(awaited) and all(in_vain(choice) for choice in choices)


def is_scored(choice: Choice) -> bool:
    """Whether what is computed for it now is a prompt whose tokens are asked for."""
    request = choice.ticket.request
    return isinstance(request, TextRequest) and request.score_prompt and choice.decoded == 0
