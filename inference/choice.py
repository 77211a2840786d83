"""A request in the engine's hands, and each of its answers from prompt to end."""

from __future__ import annotations

import codecs
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from inference.drafts import Draft
from inference.requests import Chosen, Request
from inference.stops import Stopper, Until
from inference.wire import End, EndReason, Failure, Piece, Timing

if TYPE_CHECKING:
    import torch

    from inference.branches import Branches, Unsure

log = logging.getLogger(__name__)

Sink = Callable[[Piece | End | Failure], None]
"""Takes a request's pieces, then one `End` a choice, or one `Failure`. Called from the engine's thread."""


@attrs.define(eq=False)
class Ticket:
    """A submitted request. `cancelled` may be set by any thread; the engine looks at it between forwards."""

    request: Request
    sink: Sink
    submitted: float = attrs.field(factory=time.perf_counter)
    cancelled: bool = False
    held: bytes = b""
    """What the first tokens of every answer must spell out before its text begins."""

    def publish(self, message: Piece | End | Failure) -> None:
        """Hands a message to whoever asked."""
        try:
            self.sink(message)
        except Exception:  # a reader that went away must not stop the others
            log.exception("publishing to request %s failed", self.request.id)
            self.cancelled = True


@attrs.define(eq=False)
class Choice:
    """One of the n answers of a request."""

    ticket: Ticket
    index: int
    sequence: Any
    prompt: int  # tokens
    held: bytes  # what the next tokens must spell out before text begins
    stopper: Stopper | Until
    generator: torch.Generator | None
    decoder: codecs.IncrementalDecoder = attrs.field(factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))
    prefilled: int = 0
    decoded: int = 0
    started: float = attrs.field(factory=time.perf_counter)
    first_token: float = 0.0
    unsent: tuple[float, int] = (0.0, 0)  # log-probability and number of tokens whose text is not certain yet
    context: bytearray = attrs.field(factory=bytearray)  # the tokens so far, as drafts are looked up in them
    branches: Branches | None = None  # of an alternative: where else it may leave the greedy answer
    unsure: list[Unsure] = attrs.field(factory=list["Unsure"])  # of a greedy answer that alternatives branch off
    logprobs: list[float] = attrs.field(factory=list[float])  # of its tokens
    text: str = ""  # that was published, or will be
    first_line_tokens: int = 0
    kept: list[Piece] | None = None  # an alternative's pieces, until its text is known to be another's
    draft: Draft | None = None  # its tokens stand at the end of the sequence's, until the forward in hand

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for it: for the first answer, unless that is asked ahead, but not for alternatives."""
        return self.ticket.request.priority == "interactive" and self.branches is None

    @property
    def to_compute(self) -> int:
        """Tokens whose KV is not there yet."""
        return len(self.sequence.ids) - self.sequence.computed

    def say(self, text: str, top: tuple[tuple[str, float], ...] = ()) -> None:
        """Publishes text that is certain, with the log-probabilities since the last; an alternative keeps it."""
        self._publish(Piece(text, *self.unsent, self.index, top))

    def say_token(self, text: str, spelled: bytes, beside: tuple[tuple[bytes, float], ...]) -> None:
        """The same for a request that wants to see each token."""
        self._publish(Chosen(text, *self.unsent, self.index, spelled=spelled, beside=beside))

    def _publish(self, piece: Piece) -> None:
        self.unsent = (0.0, 0)
        self.text += piece.text
        if self.kept is None:
            self.ticket.publish(piece)
        else:
            self.kept.append(piece)

    def release(self) -> None:
        """Publishes what an alternative kept."""
        for piece in self.kept or ():
            self.ticket.publish(piece)
        self.kept = None

    def finish(self, reason: EndReason) -> None:
        """Says the rest of the text."""
        if rest := self.stopper.finish(reason):
            self.say(rest)

    def end(self, reason: EndReason) -> None:
        """Publishes the `End`; for choices that were never forked off, theirs too."""
        ticket, now = self.ticket, time.perf_counter()
        timing = Timing(
            queued=milliseconds(self.started - ticket.submitted),
            first_token=milliseconds(self.first_token - ticket.submitted) if self.first_token else 0.0,
            total=milliseconds(now - ticket.submitted),
        )
        reused = self.sequence.reused if self.index == 0 else self.prompt
        unborn = range(1, ticket.request.n) if self.decoded == 0 else range(0)
        if self.index == 0 and reason in ("superseded", "cancelled"):
            unborn = range(1, ticket.request.choices) if ticket.request.alternatives else unborn
        for index in (self.index, *unborn):
            ticket.publish(End(reason, self.prompt, reused, self.prefilled, self.decoded, timing, index))


class TooLong(Exception):
    """The prompt and the tokens asked for exceed the window."""

    def __init__(self, tokens: int, asked: int, window: int, chars_per_token: float):
        message = f"the prompt has {tokens} tokens and asks for {asked} more; the window holds {window}"
        super().__init__(message)
        self.failure = Failure("too_long", message, tokens, window, round(chars_per_token, 3))


def milliseconds(seconds: float) -> float:
    """For the wire: rounded to microseconds."""
    return round(seconds * 1000, 3)
