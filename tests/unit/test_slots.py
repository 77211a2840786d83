"""A sequence's slots, read as views and gathers, are those that were put in, in order."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.models.slots import LONG, Slots

LAYER = torch.arange(2000.0)[:, None]

RUNS = st.lists(st.tuples(st.integers(0, 900), st.integers(1, 2 * LONG)), min_size=1, max_size=6)


@given(RUNS, st.lists(st.integers(0, 200), max_size=4))
def test_parts_are_the_slots_in_order(runs: list[tuple[int, int]], cuts: list[int]) -> None:
    expected: list[int] = []
    slots = Slots([], "cpu")
    for i, (first, length) in enumerate(runs):
        more = list(range(first, first + length))
        slots.extend(more)
        expected += more
        if i < len(cuts):
            kept = max(0, len(expected) - cuts[i])
            assert slots.cut(kept) == expected[kept:]
            expected = expected[:kept]
        assert slots.all == expected
        assert len(slots) == len(expected)
        parts = slots.parts(LAYER)
        assert [int(x) for part in parts for x in part[:, 0]] == expected


def test_a_long_run_is_read_where_it_stands() -> None:
    slots = Slots([*range(100, 100 + 3 * LONG), 5, 7, *range(1000, 1000 + LONG)], "cpu")
    parts = slots.parts(LAYER)
    assert [len(part) for part in parts] == [3 * LONG, 2, LONG]
    assert parts[0].data_ptr() == LAYER[100:].data_ptr()
