"""The engine without a worker around it: loaded in this process, asked, and its answers collected with their times."""

from __future__ import annotations

import queue
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs

from benchmarks.cache_check import Answer
from inference.engine import Engine, Ticket
from inference.weights import Loaded, load
from inference.wire import End, Failure, FimRequest, Piece, Stops

SECONDS = 300.0
"""Longest time that an answer may take."""


class Failed(Exception):
    """The engine refused a request, or failed at it; the message says why."""


@attrs.define
class Reply:
    """One answer. Milliseconds from submitting it."""

    text: str = ""
    steps: list[tuple[tuple[str, float], ...]] = attrs.field(factory=list)
    """The likeliest tokens at each step, if they were asked for."""
    end: End = attrs.field(factory=lambda: End("cancelled"))
    first_ms: float = 0.0
    """To the first text that was certain."""
    ms: float = 0.0

    @property
    def answer(self) -> Answer:
        """For `benchmarks.cache_check`."""
        return Answer(self.text, self.steps, self.end)


class Asking:
    """A request that the engine has."""

    def __init__(self, engine: Engine, request: FimRequest):
        self._messages = queue.SimpleQueue[Piece | End | Failure]()
        self._began = time.perf_counter()
        self._reply = Reply()
        self.ticket: Ticket = engine.submit(request, self._messages.put)

    def first(self) -> bool:
        """Waits for the first text; False if the answer ended without any."""
        return self._take() and bool(self._reply.text)

    def wait(self) -> Reply:
        """Waits for the end. Raises `Failed`."""
        while self._reply.ms == 0.0:
            self._take()
        return self._reply

    def _take(self) -> bool:
        message = self._messages.get(timeout=SECONDS)
        now, reply = (time.perf_counter() - self._began) * 1000, self._reply
        if isinstance(message, Failure):
            raise Failed(message.message)
        if isinstance(message, End):
            reply.end, reply.ms = message, now
            return False
        reply.first_ms = reply.first_ms or now
        reply.text += message.text
        reply.steps += [message.top] if message.top else []
        return True


def ask(engine: Engine, request: FimRequest) -> Reply:
    """The answer to one request. Raises `Failed`."""
    return Asking(engine, request).wait()


def compute(engine: Engine, request: FimRequest) -> Reply:
    """Fills the cache with a request's prompt."""
    return ask(engine, attrs.evolve(request, stops=Stops(max_tokens=0)))


def load_starter() -> Loaded:
    """The embedded model as a worker loads it by default on a CPU.

    In a thread that ends, as there: OpenMP keeps threads for every thread that has computed, and once a process has
    more of them than processors they wait for each other asleep. A step of two threads then takes twice as long.
    """
    with ThreadPoolExecutor(1) as loader:
        return loader.submit(load, "starter", "cpu", "auto", lambda stage, done: None).result()


def start(loaded: Loaded, *, drafts: bool = True, model: Any = None) -> Engine:
    """An engine over a loaded model, or over a `model` that stands in for it."""
    return Engine(model or loaded.model, loaded.tokens, loaded.markers, loaded.no_infilling, drafts=drafts)
