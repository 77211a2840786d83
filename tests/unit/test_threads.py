"""Work handed out to threads: everything once, in order, alone; errors come out; blocks cover all rows."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from inference.models.attention import among_keys
from inference.models.paged_model import PagedModel
from inference.threads import Threads
from inference.weights import Loaded, load


@pytest.fixture(autouse=True)
def torchs_threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def helpers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "compute"]


def test_items_are_shared_by_threads_that_compute_alone() -> None:
    threads, met = Threads(3), threading.Barrier(3, timeout=20)

    def work(item: int) -> tuple[int, int, str, bool]:
        met.wait()  # three at once
        return item, torch.get_num_threads(), threading.current_thread().name, torch.is_inference_mode_enabled()

    with torch.inference_mode():
        made = threads.each(work, range(6))
    assert [item for item, *_ in made] == list(range(6))
    assert {alone for _, alone, *_ in made} == {1}
    assert len({name for _, _, name, _ in made}) == 2, "the caller computes too, beside two of one name"
    assert all(inference for *_, inference in made)


def test_a_single_item_gets_all_threads() -> None:
    threads = Threads(2)
    threads.each(lambda _: None, range(2))
    assert torch.get_num_threads() == 1
    assert threads.each(lambda _: torch.get_num_threads(), [0]) == [2]


def test_off_a_cpu_torchs_threads_stay_as_they_are() -> None:
    torch.set_num_threads(2)
    assert Threads(1).each(lambda item: (item, torch.get_num_threads()), range(3)) == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("failing", ["compute", "MainThread"])
def test_an_error_comes_out_once_all_have_ended(failing: str) -> None:
    threads, met, going = Threads(2), threading.Barrier(2, timeout=20), list[int]()

    def work(item: int) -> None:
        if item < 2:
            met.wait()
        if threading.current_thread().name == failing:
            raise ValueError(f"item {item}")
        time.sleep(0.05)
        going.append(item)

    with pytest.raises(ValueError, match="item"):
        threads.each(work, range(40))
    ended = len(going)
    time.sleep(0.1)
    assert len(going) == ended
    assert threads.each(lambda item: item, range(4)) == [0, 1, 2, 3], "and they go on working"


def test_helpers_end_with_their_owner() -> None:
    gc.collect()  # others of tests before
    before = len(helpers())
    threads = Threads(3)
    threads.each(lambda _: None, range(3))
    assert len(helpers()) == before + 2
    del threads
    gc.collect()
    assert len(helpers()) == before


@given(st.integers(1, 8), st.integers(1, 5000), st.integers(16, 400))
def test_blocks_cover_all_rows_and_are_alike(count: int, rows: int, most: int) -> None:
    threads = Threads(count)
    blocks = threads.blocks(rows, most)
    assert [b.stop - b.start for b in blocks] == sorted((b.stop - b.start for b in blocks), reverse=True)
    blocks.sort(key=lambda block: block.start)
    sizes = [block.stop - block.start for block in blocks]
    assert blocks[0].start == 0
    assert blocks[-1].stop == rows
    assert all(a.stop == b.start for a, b in itertools.pairwise(blocks))
    assert max(sizes) <= max(16, -(-most // 16) * 16)
    assert max(sizes[:-1], default=0) - min(sizes[:-1], default=0) <= 16
    assert len(blocks) % count == 0 or rows < 16 * count * -(-rows // (count * most))


@pytest.mark.parametrize(("n", "t"), [(1, 1), (63, 63), (64, 64), (200, 200), (200, 333), (1, 90), (64, 65)])
def test_a_heads_attention_by_blocks_is_that_of_all_at_once(n: int, t: int) -> None:
    torch.manual_seed(n + t)
    queries, keys, values = torch.randn(n, 24), torch.randn(t, 24), torch.randn(t, 16)
    mask = torch.ones(n, t, dtype=torch.bool).tril_(t - n)
    expected = functional.scaled_dot_product_attention(
        queries[None], keys[None], values[None], attn_mask=mask, scale=0.3
    )[0]
    assert torch.allclose(among_keys(queries, keys, values, 0.3), expected, atol=1e-5)


def test_a_model_that_nobody_holds_is_gone_at_once_with_its_weights() -> None:
    loaded: Loaded | None = load("starter", "cpu", "auto", lambda stage, done: None)
    sequence = loaded.model.begin(list(range(300, 500)), reuse=False)
    loaded.model.forward([(sequence, 200, 1)])
    assert isinstance(loaded.model, PagedModel)
    weights = weakref.ref(loaded.model.weights)
    gc.disable()  # a cycle would keep some gigabytes until the collector comes by
    try:
        del loaded, sequence
        assert weights() is None
    finally:
        gc.enable()
