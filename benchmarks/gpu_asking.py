"""Questions to the engine of `benchmarks.gpu`, and when what came of them came."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator

from inference.engine import Engine
from inference.tokens import Tokens
from inference.wire import End, Failure, FimRequest, Piece, Stops


def prose(tokens: Tokens, length: int) -> list[str]:
    """A prefix and a suffix of about so many tokens together."""
    line = "    value = compute(first, second, third)\n"
    lines = length // len(tokens.encode(line)) // 2
    return [line * lines, line * lines]


def submit(engine: Engine, text: list[str], typed: str, most: int, session: str = "s") -> Iterator[tuple[float, End]]:
    """When the answer's end came, once it is read."""
    messages: queue.Queue[Piece | End | Failure] = queue.Queue()
    request = FimRequest(text[0], text[1], typed, Stops(max_tokens=most), session=session, heal=False)
    engine.submit(request, messages.put)

    def read() -> Iterator[tuple[float, End]]:
        while True:
            message = messages.get(timeout=120)
            if isinstance(message, Failure):
                raise RuntimeError(message.message)
            if isinstance(message, End):
                yield time.perf_counter(), message
                return

    return read()


def ask(engine: Engine, text: list[str], typed: str, most: int) -> list[tuple[float, End]]:
    """When the first piece and the end came."""
    messages: queue.Queue[tuple[float, Piece | End | Failure]] = queue.Queue()
    request = FimRequest(text[0], text[1], typed, Stops(max_tokens=most), session="s", heal=False)
    engine.submit(request, lambda message: messages.put((time.perf_counter(), message)))
    came: list[float] = []
    while True:
        at, message = messages.get(timeout=120)
        came.append(at)
        if isinstance(message, Failure):
            raise RuntimeError(message.message)
        if isinstance(message, End):
            return [(came[0], message), (at, message)]
