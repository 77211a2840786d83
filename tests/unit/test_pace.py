"""When an automatic request is sent: as the user's rhythm and the worker's speed advise."""

from __future__ import annotations

from lsp_server.pace import ENOUGH, Pace


def typed(gap: float, took: float, keys: int = 2 * ENOUGH) -> Pace:
    """After a run of keys `gap` seconds apart, with answers that take `took`."""
    pace = Pace()
    for i in range(keys):
        pace.key(i * gap)
    for _ in range(3):
        pace.answered(took)
    return pace


def test_answers_that_come_between_two_keys_are_asked_for_at_once() -> None:
    assert typed(gap=0.16, took=0.06).delay(0.15) == 0


def test_answers_that_the_next_key_would_void_wait_until_it_is_overdue() -> None:
    assert 0.08 <= typed(gap=0.08, took=0.5).delay(0.15) <= 0.15


def test_no_wait_is_longer_than_allowed_and_none_can_be_asked_for() -> None:
    assert typed(gap=0.3, took=2.0).delay(0.15) == 0.15
    assert typed(gap=0.3, took=2.0).delay(0) == 0


def test_without_a_rhythm_nothing_waits() -> None:
    assert Pace().delay(0.15) == 0
    assert typed(gap=0.08, took=0.5, keys=3).delay(0.15) == 0
    assert typed(gap=5.0, took=0.5).delay(0.15) == 0, "pauses are no rhythm"
