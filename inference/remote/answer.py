"""One answer of an engine: its text as pieces, less what was held back, up to where the request's stops end it."""

from __future__ import annotations

import math
import time

from inference.remote.dialect import Delta, Token
from inference.remote.prompts import native_stops
from inference.stops import Stopper
from inference.wire import End, EndReason, FimRequest, Piece, Timing


class Unconstrained(Exception):
    """The engine took no notice of the constraint: its text does not begin with what was held back."""


class Answer:
    """Takes an engine's deltas and gives the wire's pieces; `reason` says when it is over."""

    def __init__(self, request: FimRequest, held: str, prompt: int, index: int = 0):
        """`held`: what the text is to begin with, which stands in the document already; `prompt`: tokens."""
        self._request, self._index = request, index
        self._held, self._stopper = held, Stopper(request.stops)
        self._prompt, self._reused, self._decoded = prompt, 0, 0
        self._unsent = (0.0, 0)  # log-probability and tokens whose text is not certain yet
        self._began = time.perf_counter()
        self._first = 0.0
        self.text = ""
        self.reason: EndReason | None = None

    def add(self, delta: Delta) -> Piece | None:
        """What a delta makes certain. Raises `Unconstrained`."""
        self._prompt = self._prompt if delta.prompt is None else delta.prompt
        self._reused = self._reused if delta.reused is None else delta.reused
        self._decoded = delta.decoded or self._decoded + max(len(delta.tokens), bool(delta.text))
        if delta.text and not self._first:
            self._first = time.perf_counter()
        (logprob, count), held = self._unsent, self._held
        for token in delta.tokens:
            logprob += _among(token, held)
            held, count = held[len(token.text) :], count + 1
        self._unsent = logprob, count
        certain = self._stopper.feed(self._beyond_held(delta.text))
        if delta.finished and self._stopper.reason is None:
            certain += self._finish(delta)
        self.reason = self._stopper.reason
        return self._piece(certain)

    def end(self) -> End:
        """The last line of a choice."""
        now = time.perf_counter()
        timing = Timing(
            first_token=round((self._first - self._began) * 1000, 3) if self._first else 0.0,
            total=round((now - self._began) * 1000, 3),
        )
        fresh = max(0, self._prompt - self._reused)
        assert self.reason
        return End(self.reason, self._prompt, self._reused, fresh, self._decoded, timing, self._index)

    def _finish(self, delta: Delta) -> str:
        if delta.finished == "length":
            return self._stopper.finish("tokens")
        natives = native_stops(self._request.stops)
        stop = natives[0] if delta.stopped_at is None and natives else delta.stopped_at
        certain = self._stopper.feed(stop) if stop else ""
        return certain if self._stopper.reason else certain + self._stopper.finish("eos")

    def _beyond_held(self, text: str) -> str:
        held, common = self._held, min(len(self._held), len(text))
        if held[:common] != text[:common]:
            raise Unconstrained(f"the engine's text begins with {text[:40]!r} instead of {held[:40]!r}")
        self._held = held[common:]
        return text[common:]

    def _piece(self, certain: str) -> Piece | None:
        if not certain:
            return None
        piece = Piece(certain, *self._unsent, self._index)
        self._unsent = (0.0, 0)
        self.text += certain
        return piece


def _among(token: Token, held: str) -> float:
    """A token's log-probability; while something is held back, among those that agree with it, as far as known.

    Engines report probabilities as they were before the constraint, of which most may have gone to other words.
    """
    if not held:
        return token.logprob
    agreeing = {text: p for text, p in token.top if text and (text.startswith(held) or held.startswith(text))}
    agreeing[token.text] = token.logprob
    return token.logprob - math.log(sum(math.exp(p) for p in agreeing.values()) or 1.0)
