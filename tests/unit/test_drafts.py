"""Drafts: what is guessed, for how long it pays, and that the answer is the same with and without."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.drafts import LONGEST, OVERLAP, Costs, Drafts, packed
from inference.engine import Engine
from inference.weights import Loaded, load
from inference.wire import End, Failure, FimRequest, Piece, Sampling, Stops

CODE = """class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def moved(self, dx, dy):
        return Point(self.x + dx, self.y + dy)

"""


def test_the_document_is_continued_as_it_went_on_before() -> None:
    draft = Drafts().propose("s", packed([1, 2, 3, 4, 5, 9, 2, 3]), 16)
    assert draft
    assert draft.ids == [4, 5, 9, 2, 3]
    assert draft.origin == ("document", 2)


def test_a_suggestion_goes_before_the_document_and_needs_less_agreement() -> None:
    drafts = Drafts()
    drafts.remember("s", [7, 7, 3, 8, 8, 8], generated=3)
    draft = drafts.propose("s", packed([1, 2, 3]), 16)
    assert draft
    assert draft.ids == [8, 8, 8]
    assert draft.origin == ("suggestion", 1)
    assert drafts.propose("another", packed([1, 2, 3]), 16) is None


def test_after_a_divergence_the_old_tail_is_tried_where_it_fits_again() -> None:
    drafts = Drafts()
    drafts.remember("s", [50, 10, 11, 12, 13, 14], generated=5)
    draft = drafts.propose("s", packed([50, 99, 12]), 16)
    assert draft
    assert draft.ids == [13, 14]


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 20))
def test_a_draft_is_what_followed_the_longest_agreement(ids: list[int], limit: int) -> None:
    draft = Drafts().propose("", packed(ids), limit)
    expected: list[int] = []
    for overlap in range(min(OVERLAP, len(ids)), 1, -1):
        ends = [i for i in range(overlap, len(ids)) if ids[i - overlap : i] == ids[-overlap:]]
        if ends:
            expected = ids[ends[-1] :][: min(limit, LONGEST)]
            break
    assert (draft.ids if draft else []) == expected


def test_ids_that_only_look_alike_as_bytes_are_no_match() -> None:
    assert Drafts().propose("", packed([0x0100, 0x0200, 5, 0x01000000, 0x02000000, 1, 2]), 16) is None


def test_drafts_are_long_where_rows_are_cheap_and_guesses_good() -> None:
    costs = Costs()
    for _ in range(200):
        for rows in range(1, LONGEST + 2):
            costs.saw(rows, 10.0 + 0.5 * (rows - 1))
    assert costs.best(0.95, 16) > costs.best(0.6, 16) > costs.best(0.2, 16)
    assert costs.best(0.95, 3) == 3
    assert costs.best(0.0, 16) == 0
    dear = Costs()
    for rows in range(1, LONGEST + 2):
        dear.saw(rows, 10.0 * rows)
    assert dear.best(0.9, 16) == 0


def test_rates_follow_what_was_accepted_and_recover() -> None:
    drafts = Drafts()
    origin = ("document", 3)
    for _ in range(50):
        drafts.learn(origin, 0, 1)
    low = drafts.rate(origin)
    for _ in range(50):
        drafts.learn(origin, 4, 0)
    assert low < 0.1
    assert drafts.rate(origin) > 0.9


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """In float32, where nothing but a draft could change an answer."""
    return load("starter", "cpu", "float32", lambda _stage, _share: None)


@pytest.fixture
def engines(loaded: Loaded) -> Iterator[tuple[Engine, Engine]]:
    loaded.model.forget()
    # Two engines over one model, used in turn.
    both = tuple(Engine(loaded.model, loaded.tokens, loaded.markers, drafts=drafts) for drafts in (True, False))
    yield both[0], both[1]
    for engine in both:
        engine.close()


def ask(engine: Engine, request: FimRequest) -> tuple[str, End]:
    messages: queue.Queue[Piece | End | Failure] = queue.Queue()
    engine.submit(request, messages.put)
    text = ""
    while isinstance(message := messages.get(timeout=60), Piece):
        text += message.text
    assert isinstance(message, End), message
    return text, message


def test_answers_are_the_same_in_fewer_forwards(engines: tuple[Engine, Engine]) -> None:
    """Typing a method that the class above makes likely, key by key."""
    drafting, plain = engines
    method = "\n    def scaled(self, factor):\n        return Point(self.x * factor, self.y * factor)"
    for length in range(5, len(method), 6):
        request = FimRequest(CODE, "\n\nprint(Point(1, 2))\n", method[:length], Stops(max_tokens=24), session="s")
        one, other = ask(drafting, request), ask(plain, request)
        assert one[0] == other[0]
        assert (one[1].reason, one[1].decoded) == (other[1].reason, other[1].decoded)
    assert drafting.counts["accepted"] > 0.3 * drafting.counts["drafted"] > 0
    assert drafting.counts["steps"] < 0.75 * plain.counts["steps"]
    assert plain.counts["drafted"] == 0


def test_sampled_answers_are_the_same_too(engines: tuple[Engine, Engine]) -> None:
    for seed in range(6):
        stops, sampling = Stops(max_tokens=20), Sampling(temperature=0.7, seed=seed)
        request = FimRequest(CODE, "\n", "\n    def sc", stops, session="s", sampling=sampling)
        assert ask(engines[0], request)[0] == ask(engines[1], request)[0]


def test_refused_drafts_leave_no_slot_behind(engines: tuple[Engine, Engine], loaded: Loaded) -> None:
    for typed in ("\n    def a", "\n    def moved", "\n    def b(self, dx"):
        ask(engines[0], FimRequest(CODE, "\n", typed, Stops(max_tokens=16), session="s"))
    assert engines[0].counts["drafted"] > engines[0].counts["accepted"]
    figures = loaded.model.figures()
    assert figures["slots_held"] + figures["slots_free"] == figures["slots"]
