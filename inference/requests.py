"""What the engine is asked besides filling a hole for the language server: text to go on from, ids, a conversation."""

from __future__ import annotations

import attrs

from inference.wire import FimRequest, Piece, Priority, Sampling, Stops


@attrs.frozen
class Conversation:
    """Messages as a model's template put them together, before they are tokens (see `inference.conversation`)."""

    text: str
    seam: str
    """A character that stands inside every control token's string that somebody wrote; it is left out of the ids."""


@attrs.frozen
class TextRequest:
    """A continuation of `prompt`, or with `suffix` what stands between the two; it ends before any of `until`.

    Beside a `FimRequest` in the same queue; what both have in common has the same names.
    """

    prompt: str | tuple[int, ...] | Conversation
    suffix: str | None = None
    max_tokens: int | None = None
    """None: as many as the window holds."""
    until: tuple[str, ...] = ()
    n: int = 1
    sampling: Sampling = attrs.field(factory=Sampling)
    logprobs: int | None = None
    """Publish each token as `Chosen`, with so many of the likeliest beside it."""
    score_prompt: bool = False
    """Publish the prompt's tokens too, before the first of the answer."""
    id: str = ""
    priority: Priority = "interactive"
    session: str = ""
    reuse: bool = True
    alternatives: int = 0

    @property
    def stops(self) -> Stops:
        """The limit alone: what ends such an answer is `until`."""
        return Stops(max_tokens=self.max_tokens or 0)

    @property
    def top_logprobs(self) -> int:
        """See `FimRequest`."""
        return self.logprobs or 0

    @property
    def choices(self) -> int:
        """How many `End`s the reply has."""
        return self.n


Request = FimRequest | TextRequest


def replaces(newer: Request, older: Request) -> bool:
    """Whether a session has `newer` in the place of `older`. Work asked ahead replaces nothing that somebody awaits."""
    ahead = newer.priority == "background" and older.priority == "interactive"
    return bool(newer.session) and newer.session == older.session and not ahead


def goes_on_from(newer: Request, older: Request) -> bool:
    """Whether at least half of what is computed for `older` is of use to `newer`."""
    if isinstance(newer, FimRequest) and isinstance(older, FimRequest):
        if newer.prefix == older.prefix and newer.suffix == older.suffix:
            return True
        shorter, longer = sorted((newer.prefix, older.prefix), key=len)
        return longer.startswith(shorter) and 2 * len(shorter) >= len(older.prefix) + len(older.suffix)
    both = [request.prompt for request in (newer, older) if isinstance(request, TextRequest)]
    return len(both) == 2 and isinstance(both[0], str) and isinstance(both[1], str) and both[0].startswith(both[1])


@attrs.frozen
class Chosen(Piece):
    """One token of a `TextRequest` with `logprobs`; `text` is what it made certain, `spelled` the token itself."""

    spelled: bytes = b""
    beside: tuple[tuple[bytes, float], ...] = ()
    of_prompt: bool = False
