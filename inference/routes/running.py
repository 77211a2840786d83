"""A request's parts in the engine's queue, and what comes back: pieces and ends, until the client leaves."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

import attrs

from inference.requests import Chosen, TextRequest
from inference.routes.refusals import Refusal, refusal
from inference.wire import End, EndReason, Failure, Piece

if TYPE_CHECKING:
    from inference.choice import Ticket
    from inference.engine import Engine

REASONS: dict[EndReason, str] = {"eos": "stop", "stop": "stop", "tokens": "length", "window": "length"}


@attrs.frozen
class Token:
    """One token of an answer as a client sees it."""

    text: str
    """What it added to the text; "" inside a character of several tokens."""
    spelled: bytes
    logprob: float | None
    beside: tuple[tuple[bytes, float], ...]
    at: int
    """Characters of the text before it."""


@attrs.frozen
class Said:
    """Text of one choice that is certain, with its tokens if they were asked for."""

    choice: int
    text: str
    tokens: tuple[Token, ...] = ()


@attrs.frozen
class Ended:
    """A choice's end in OpenAI's words."""

    choice: int
    reason: str


@attrs.define
class Usage:
    """What a request cost so far, in tokens."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def json(self) -> dict[str, object]:
        """OpenAI's form."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@attrs.define
class _Choice:
    """One choice's tokens, held until the text they are part of is certain."""

    said: int = 0
    text: int = 0
    held: list[Token] = attrs.field(factory=list[Token])
    decoder: codecs.IncrementalDecoder = attrs.field(factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))

    def take(self, piece: Piece) -> tuple[Token, ...]:
        """The tokens whose text is certain with this piece."""
        if isinstance(piece, Chosen) and piece.spelled:
            text = self.decoder.decode(piece.spelled)
            self.held.append(Token(text, piece.spelled, piece.logprob, piece.beside, self.text))
            self.text += len(text)
        self.said += len(piece.text)
        certain = [token for token in self.held if token.at < self.said or token.at + len(token.text) <= self.said]
        self.held = self.held[len(certain) :]
        return tuple(certain)


@attrs.define
class Run:
    """The requests of one call, side by side in the engine; the choices of each follow those of the one before."""

    engine: Engine
    requests: Sequence[TextRequest]
    usage: Usage = attrs.field(factory=Usage)
    prompts: list[list[Chosen]] = attrs.field(factory=list[list[Chosen]])
    """Of each request, with `score_prompt`: its prompt's tokens."""

    async def events(self) -> AsyncGenerator[Said | Ended, None]:
        """What is said, choice by choice; leaving it early cancels everything. Raises `Refusal`."""
        loop, inbox = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Piece | End | Failure]]()
        self.prompts = [[] for _ in self.requests]
        choices: dict[int, _Choice] = {}
        firsts = [sum(request.n for request in self.requests[:i]) for i in range(len(self.requests))]
        left = sum(request.n for request in self.requests)

        def submit(number: int, request: TextRequest) -> Ticket:
            def sink(message: Piece | End | Failure) -> None:
                loop.call_soon_threadsafe(inbox.put_nowait, (number, message))

            return self.engine.submit(request, sink)

        tickets = [submit(number, request) for number, request in enumerate(self.requests)]
        try:
            while left:
                number, message = await inbox.get()
                if isinstance(message, Failure):
                    raise refusal(message)
                at = firsts[number] + message.choice
                if isinstance(message, End):
                    left -= 1
                    self._count(message)
                    yield Ended(at, _reason(message))
                elif isinstance(message, Chosen) and message.of_prompt:
                    self.prompts[number].append(message)
                else:
                    tokens = choices.setdefault(at, _Choice()).take(message)
                    if message.text or tokens:
                        yield Said(at, message.text, tokens)
        finally:
            for ticket in tickets:
                ticket.cancelled = True

    def _count(self, end: End) -> None:
        self.usage.completion += end.decoded
        if end.choice == 0:
            self.usage.prompt += end.prompt
            self.usage.cached += end.reused


def _reason(end: End) -> str:
    if end.reason not in REASONS:
        raise Refusal("the worker stops, or gave the request up; ask again", None, 503)
    return REASONS[end.reason]
