"""One engine, asked in our form and answering in it, whatever it speaks itself."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator

import attrs

from inference.remote.answer import Answer, Unconstrained
from inference.remote.dialect import Dialect, Found
from inference.remote.http import Http, Unreachable
from inference.remote.prompts import cleaned
from inference.wire import End, FimRequest, Piece, Sampling

log = logging.getLogger(__name__)

LIKELIEST = 10
"""Tokens reported beside each one while something is held back: see `answer`."""
OTHERS = Sampling(temperature=0.8, top_p=0.95)
"""How alternatives to the greedy answer are found; the seed counts up."""


class Client:
    """Requests of one engine. Any number may be under way at once."""

    def __init__(self, http: Http, dialect: Dialect):
        self._http, self._dialect = http, dialect

    @property
    def chars_per_token(self) -> float:
        """Measured over the prompts so far."""
        return self._dialect.chars_per_token

    async def look(self) -> Found:
        """What the engine is. Raises `Unreachable`, `Rejected`, `Loading`, `Unfit`."""
        return await self._dialect.look()

    async def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        """Streams the answer; closing the iterator cancels it. Raises `Unreachable`, `Rejected`, `TooLong`."""
        if request.stops.max_tokens == 0 and self._dialect.bills:
            for index in range(request.choices):
                yield End("tokens", choice=index)
            return
        said: list[str] = []
        for index in range(request.choices):
            alternative = index >= request.n
            if alternative and self._dialect.bills:
                yield End("repeated", choice=index)
                continue
            asked = _choice(request, index)
            pieces: list[Piece] = []
            async with contextlib.aclosing(self._one(asked, index)) as messages:
                async for message in messages:
                    if isinstance(message, Piece):
                        pieces.append(message)
                        if not alternative:
                            yield message
                        continue
                    text = "".join(piece.text for piece in pieces)
                    if alternative and text in said:
                        yield attrs.evolve(message, reason="repeated")
                        continue
                    for piece in pieces if alternative else ():
                        yield piece
                    yield message
                    said.append(text)

    async def close(self) -> None:
        """Lets go of the engine."""
        await self._http.close()

    async def _one(self, request: FimRequest, index: int) -> AsyncGenerator[Piece | End, None]:
        heal = request.heal and self._dialect.constrains
        try:
            async with contextlib.aclosing(self._stream(request, index, heal)) as messages:
                async for message in messages:
                    yield message
        except Unconstrained as error:
            # Nothing was passed on yet. It would do the same next time.
            log.warning("%s: %s; asking without holding anything back from now on", self._http.base, error)
            self._dialect.constrains = False
            async with contextlib.aclosing(self._stream(request, index, False)) as messages:
                async for message in messages:
                    yield message

    async def _stream(self, request: FimRequest, index: int, heal: bool) -> AsyncGenerator[Piece | End, None]:
        dialect, request = self._dialect, cleaned(request)
        likeliest = max(1, request.top_logprobs, LIKELIEST * heal)
        ask = await dialect.ask(request, heal=heal, likeliest=likeliest)
        answer = Answer(request, ask.held, ask.prompt, index)
        async with contextlib.aclosing(self._http.events(ask.path, ask.body)) as events:
            async for event in events:
                if (piece := answer.add(dialect.read(event))) and request.stops.max_tokens:
                    yield piece
                if answer.reason and answer.reason not in ("eos", "tokens"):
                    break  # the rest of the stream would be thrown away; after those two its figures follow
        if answer.reason is None:
            raise Unreachable("it ended in the middle of an answer")
        yield answer.end()


def _choice(request: FimRequest, index: int) -> FimRequest:
    """One of a request's choices, as a request of its own."""
    sampling = request.sampling
    if index >= request.n:
        sampling = attrs.evolve(OTHERS, seed=index)
    elif sampling.seed is not None:
        sampling = attrs.evolve(sampling, seed=sampling.seed + index)
    return attrs.evolve(request, n=1, alternatives=0, sampling=sampling)
