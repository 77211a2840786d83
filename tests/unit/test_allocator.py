"""Free memory goes back to the system once the engine has nothing to do."""

from __future__ import annotations

import ctypes
import sys
import time

import psutil
import pytest

from inference import allocator
from inference.allocator import Allocator
from inference.engine import Engine
from inference.weights import load
from inference.wire import FimRequest, Stops
from tests.unit.test_engine import Answer

glibc = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


def scattered() -> list[bytearray]:
    """100 MB of which a hundredth stays, all over."""
    return [bytearray(20_000) for _ in range(5000)][::100]


@pytest.mark.skipif(not glibc, reason="only glibc keeps what it can give back")
def test_an_engine_without_work_gives_back_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "EVERY", 0.0)
    process = psutil.Process()
    model = load("starter", "cpu", "auto", lambda _stage, _share: None)
    engine = Engine(model.model, model.tokens, model.markers)
    try:
        ctypes.CDLL(None).malloc_trim(0)
        before = process.memory_info().rss
        kept = scattered()
        assert process.memory_info().rss - before > 80e6, "else there is nothing to give back"
        Answer(engine, FimRequest("x = ", "\n", stops=Stops(max_tokens=4))).ends()
        until = time.monotonic() + 10
        while process.memory_info().rss - before > 40e6 and time.monotonic() < until:
            time.sleep(0.05)
        assert process.memory_info().rss - before < 40e6
        assert len(kept) == 50
    finally:
        engine.close()


def test_nothing_is_due_before_something_was_computed_nor_twice_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Allocator()
    assert tried.due() is None
    tried.used()
    if not glibc:
        assert tried.due() is None
        return
    due = tried.due()
    assert due is not None
    assert allocator.EVERY - 1 < due <= allocator.EVERY
    tried.give_back()
    assert tried.due() is not None, "not yet"
    monkeypatch.setattr(allocator, "EVERY", 0.0)
    tried.give_back()
    assert tried.due() is None
    tried.used()
    assert tried.due() is not None
