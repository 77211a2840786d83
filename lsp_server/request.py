"""What a question to the model is made of: who answers it, what is sent, and what it cost."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from typing import Protocol

import attrs

from inference.wire import End, FimRequest, Health, Piece, Priority, Sampling, Stops
from lsp_server.hole import Budget, Hole
from lsp_server.session import Session
from lsp_server.settings import Settings

TYPED_TOKENS = 128
"""Typed since the anchor before it moves up (at rest; at four times that at once)."""


class Backend(Protocol):
    """What answers: the worker, or an engine of others."""

    @property
    def ready(self) -> Health | None:
        """The engine's figures once it can answer."""
        ...

    def ensure(self) -> asyncio.Task[None]:
        """Brings the engine up, in the background."""
        ...

    def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        """Streams an answer; closing the iterator cancels it. Raises `Refused`, `Lost`."""
        ...


@attrs.define
class Trace:
    """What one request cost. Milliseconds; tokens as the worker counted them."""

    id: str
    uri: str
    version: int
    outcome: str = "empty"
    request: FimRequest | None = None
    end: End | None = None
    prepare_ms: float = 0.0
    first_ms: float = 0.0
    total_ms: float = 0.0
    text: str = ""
    source: str = "model"
    """`suggestion` (typed through), `cache`, `begun` (what has been said of an answer that is still to come), `running`
    or `ahead` (a question for an earlier request, or for the text that was suggested, is waited for) or `model`."""


def fim_request(
    session: Session, hole: Hole, stops: Stops, settings: Settings, priority: Priority, number: str = ""
) -> FimRequest:
    """What is sent to the worker."""
    return FimRequest(
        prefix=hole.prefix,
        suffix=hole.suffix,
        typed=hole.typed,
        stops=stops,
        sampling=Sampling(),
        priority=priority,
        id=number,
        session=f"{os.getpid()} {session.document.uri}",
        heal=settings.healing,
        reuse=settings.prefix_cache,
    )


def budget(session: Session, backend: Backend, settings: Settings) -> Budget:
    """The window in characters, from the measured characters a token."""
    health = backend.ready
    assert health
    chars = session.chars_per_token or health.chars_per_token
    room = health.window - settings.block_tokens - 4 * TYPED_TOKENS
    share = min(1.0, max(0.1, room / (settings.prefix_tokens + settings.suffix_tokens)))
    return Budget(
        prefix=int(settings.prefix_tokens * share * chars),
        suffix=int(settings.suffix_tokens * share * chars),
        typed=int(TYPED_TOKENS * chars),
    )


def milliseconds(began: float) -> float:
    """Since `began`, a `time.perf_counter`."""
    return round((time.perf_counter() - began) * 1000, 3)
