"""What is the same for every engine that is asked over HTTP, as data."""

from __future__ import annotations

from typing import Any, Protocol

import attrs

from inference.wire import FimRequest

WINDOW = 8192
"""Tokens, where an engine does not say."""
TEXT_CHARS_PER_TOKEN = 3.0
"""Of code, where the engine tokenises: rather too few."""


class Unfit(Exception):
    """The engine is there, but can't be used as the settings say; the message says what to change."""


class Loading(Exception):
    """The engine is there, and its model not yet."""


class TooLong(Exception):
    """A prompt and its answer exceed the window."""

    def __init__(self, tokens: int, asked: int, window: int):
        super().__init__(
            f"the prompt has {tokens} tokens and asks for {asked} more; the engine's window holds {window}"
        )
        self.tokens, self.window = tokens, window


@attrs.frozen
class Found:
    """What an engine says of itself."""

    model: str
    window: int
    """Longest prompt + completion, in tokens."""


@attrs.frozen
class Ask:
    """A request in an engine's own form."""

    path: str
    body: dict[str, Any]
    held: str = ""
    """What the answer must begin with, as the body demands: it stands in the document already."""
    prompt: int = 0
    """Tokens, as far as they are counted here."""


@attrs.frozen
class Token:
    """A token as an engine reports it; `top` are the likeliest in its place: text and log-probability."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@attrs.frozen
class Delta:
    """One event of an engine's answer."""

    text: str = ""
    tokens: tuple[Token, ...] = ()
    """With log-probabilities, if the engine gives any."""
    finished: str = ""
    """`stop`, `length`, or another reason in the engine's words, with its last text."""
    stopped_at: str | None = ""
    """The native stop string that ended it; None: the engine does not say whether one did."""
    prompt: int | None = None
    """Tokens of the prompt, of which `reused` were in the engine's cache; where it says so."""
    reused: int | None = None
    decoded: int | None = None


class Dialect(Protocol):
    """How one kind of engine is spoken to."""

    constrains: bool
    """It can be made to begin its answer with a given text."""
    bills: bool
    """Questions ahead of need cost money or other people's time: prompts are not computed in advance."""

    @property
    def chars_per_token(self) -> float:
        """Measured over the prompts so far."""
        ...

    async def look(self) -> Found:
        """Asks the engine what it is. Raises `Unreachable`, `Rejected`, `Loading`, `Unfit`."""
        ...

    async def ask(self, request: FimRequest, *, heal: bool, likeliest: int) -> Ask:
        """The request in the engine's form; `likeliest`: tokens to report beside each one. Raises `TooLong`."""
        ...

    def read(self, event: dict[str, Any]) -> Delta:
        """One event of its stream."""
        ...
