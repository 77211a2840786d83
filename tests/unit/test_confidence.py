"""What is shown unasked: as many lines as the model is sure of, more of it where most often nothing is missing."""

from __future__ import annotations

import asyncio
import math

import pytest

from lsp_server.confidence import SURE, sure_part, threshold_at
from lsp_server.settings import Settings
from tests.unit.completing import Desk, ScriptedModel

HALF = math.log(0.5)


def test_a_line_below_the_threshold_is_hidden() -> None:
    said = [("foo", HALF), ("(x)", HALF)]
    assert sure_part("foo(x)", said, 0.25) == "foo(x)"
    assert sure_part("foo(x)", said, 0.26) == ""
    assert sure_part("foo(x)", said, 0.0) == "foo(x)"


def test_a_doubtful_tail_is_cut_at_a_line_that_leaves_nothing_open() -> None:
    said = [("a = 1\n", 0.0), ("    b = (", 0.0), ("2,\n", 0.0), ("         3)\n", 0.0), ("    c", 2 * HALF)]
    text = "".join(piece for piece, _ in said)
    assert sure_part(text, said, 0.5) == "a = 1\n    b = (2,\n         3)"
    assert sure_part(text, [*said[:2], ("2,\n", 2 * HALF), *said[3:]], 0.5) == "a = 1"


def test_a_bracket_that_closes_another_does_not_make_up_for_one_left_open() -> None:
    said = [("production) {\n", 0.0), ("    stop()\n}", 2 * HALF)]
    assert sure_part("production) {\n    stop()\n}", said, 0.5) == ""
    said = [("production) {}\n", 0.0), ("stop()", 2 * HALF)]
    assert sure_part("production) {}\nstop()", said, 0.5) == "production) {}"


def test_of_what_is_typed_no_doubt_is_left() -> None:
    said = [("foo", 4 * HALF), ("(x)", 0.0)]
    assert sure_part("foo(x)", said, 0.5) == ""
    assert sure_part("(x)", said, 0.5, typed=3) == "(x)"


def test_a_token_in_part_typed_keeps_the_doubt_of_the_rest() -> None:
    said = [("name", 4 * HALF), ("(x)", 0.0)]
    assert sure_part("me(x)", said, 0.25, typed=2) == "me(x)"
    assert sure_part("ame(x)", said, 0.25, typed=1) == ""


@pytest.mark.parametrize(
    ("before", "after", "sure"),
    [
        ("    foo(x)", "", True),
        ("    foo(bar(x)", "", False),
        ("    foo();", "", True),
        ("    items[0]", "", True),
        ("    foo(", ")", False),
        ("    pri", "nt(x)", True),
        ("    pri", "", False),
        ("    ", "", False),
    ],
)
def test_more_is_wanted_behind_a_finished_statement_and_inside_a_word(before: str, after: str, sure: bool) -> None:
    assert threshold_at(before, after, 0.1) == (SURE if sure else 0.1)
    assert threshold_at(before, after, 0.0) == 0.0


def test_what_was_hidden_is_shown_without_the_model_once_its_doubtful_part_is_typed() -> None:
    text, whole = "x = \n", "x = value(one)"

    async def run() -> None:
        model = ScriptedModel(
            lambda before, _: whole[len(before) :] + "\n" if whole.startswith(before) else "\n", logprob=HALF
        )
        desk = Desk(model, text, settings=Settings(confidence=0.2))
        at = 4
        assert await desk.text_at(at) is None
        for char in "value(one":
            at = desk.type(char, at)
        assert await desk.text_at(at) == ")"
        assert model.questions == 1
        desk.close()

    asyncio.run(run())


def test_no_cut_is_made_inside_a_string_or_before_what_only_closes() -> None:
    for text in ('"""\n    Adds.\n    """', "f(x);\n}"):
        first, rest = text.split("\n", 1)
        said = [(first, -0.1), ("\n" + rest, -9.0)]
        assert sure_part(text, said, 0.05) == ""
        assert sure_part(text, [(first, -0.1), ("\n" + rest, -0.1)], 0.05) == text
