"""Other answers to a request: each leaves the greedy one for the second choice at a token it was unsure of.

All of them share the prompt and the greedy answer up to there, which the prefix cache holds, so an alternative costs
the tokens after its branch. They are told apart by text: one that comes out like another gives way to the next branch.
"""

from __future__ import annotations

import attrs

from inference.choice import Choice


@attrs.frozen
class Unsure:
    """A token of the greedy answer: what was nearly taken instead of it."""

    at: int
    """Tokens of the answer before it."""
    second: int
    logprob: float
    gap: float
    """Nats that it was less likely than the token taken."""


class Branches:
    """Where the alternatives of one request leave its greedy answer, the least certain place first."""

    def __init__(self, greedy: Choice):
        self.ids = greedy.sequence.ids[greedy.prompt :]
        self.logprobs = greedy.logprobs
        self._texts = {greedy.text.rstrip()}
        # A block's later lines are another matter: alternatives differ where the user looks.
        first = greedy.first_line_tokens
        self._points = sorted((u for u in greedy.unsure if u.at < first), key=lambda u: -u.gap)

    def next(self) -> Unsure | None:
        """The next place to branch at; None if there is no more."""
        return self._points.pop() if self._points else None

    def is_new(self, text: str) -> bool:
        """Whether an alternative's text is worth showing beside the others; it is one of them from now on."""
        text = text.rstrip()
        new = bool(text.strip()) and text not in self._texts
        self._texts.add(text)
        return new
