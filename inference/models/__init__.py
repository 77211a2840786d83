"""What an engine asks of a model; `transformers_model` serves any causal model of that library through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from torch import Tensor


class GivenUp(Exception):
    """A forward was broken off, as nobody wanted what it computes."""


class Sequence(Protocol):
    """A running choice: its tokens so far, and how many of them the model has computed."""

    ids: list[int]
    computed: int
    reused: int
    allowed: Tensor | None
    """Ids among which the next token must be, for a model that chooses it; None: all."""


class Best(Protocol):
    """Each output's likeliest token, chosen on the device."""

    allowed: list[Tensor | None]
    """Among which, for each output."""

    def at(self, output: int) -> tuple[int, float]:
        """A token and its log-probability in nats; waits until it is there."""
        ...


S = TypeVar("S", bound=Any)


class Model(Protocol[S]):
    """Tokens in, logits out, over a prefix cache that the model owns. One thread calls it.

    A sequence begins with the longest prefix that the cache holds, exact to the token; the engine appends to
    `sequence.ids` and asks for the next rows of several sequences in one `forward`. What a finished, cancelled or
    half-prefilled sequence has computed stays behind as cache.
    """

    window: int
    """Most tokens of a sequence."""
    chunk: int
    """Most prompt tokens of one forward while others wait."""
    longest_chunk: int
    """Most prompt tokens of one forward when nobody does: with others, what somebody who comes then waits for."""
    device: str
    dtype: str
    cuts: bool
    """Whether `cut` works, and with it drafts."""
    costs: list[float]
    """Milliseconds of a forward of 1, 2, 3 … tokens, if they are known; else empty."""
    best: Best | None
    """Of the last forward's outputs; None if the device chose none."""

    def begin(self, ids: list[int], *, reuse: bool) -> S:
        """A new sequence over `ids`. At least one token is left to compute, even on a full hit."""
        ...

    def fork(self, sequence: S) -> S:
        """A second continuation of the same tokens, sharing what is computed."""
        ...

    def forward(self, rows: list[tuple[S, int, int]], unwanted: Callable[[], bool] = lambda: False) -> Tensor:
        """Computes the next n tokens of each (sequence, n, outputs). A long one asks now and then if it is `unwanted`.

        Returns float32 logits after each sequence's last `outputs` of them, [sum of outputs, vocab]. Raises
        `torch.OutOfMemoryError`, `OutOfSlots` or `GivenUp` and then leaves the sequences as they were.
        """
        ...

    def ahead(self, sequences: list[S]) -> Best | None:
        """Starts a forward of one token for each output of the last one: the token that is chosen there.

        For as many sequences, in that order; the tokens are appended to their `ids` afterwards. Returns what the
        forward will choose, or None if it can't be had before those tokens are known: then nothing has happened.
        """
        ...

    def cut(self, sequence: S, length: int) -> None:
        """Takes back a sequence's tokens beyond the first `length`: drafts that were wrong."""
        ...

    def end(self, sequence: S, *, keep: bool) -> None:
        """The sequence will not be advanced again; its tokens may serve later ones if `keep`."""
        ...

    def shrink(self) -> bool:
        """Computes fewer prompt tokens a forward from now on, after one was out of memory; False if it can't."""
        ...

    def forget(self) -> None:
        """Drops every cached token that no running sequence needs (out of memory, or a test)."""
        ...

    def figures(self) -> dict[str, int]:
        """For `/metrics`: what the prefix cache holds, by name."""
        ...
