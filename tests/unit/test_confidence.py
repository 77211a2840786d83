"""What is shown unasked: as many lines as the model is sure of, more of it where most often nothing is missing."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_server.confidence import HEAD, SURE, sure_part, threshold_at
from lsp_server.settings import Settings
from tests.unit.completing import Desk, ScriptedModel

HALF = math.log(0.5)


def test_a_line_below_the_threshold_is_hidden() -> None:
    said = [("fo", HALF), ("o(x)", HALF)]
    assert sure_part("foo(x)", said, 0.25) == "foo(x)"
    assert sure_part("foo(x)", said, 0.26) == ""
    assert sure_part("foo(x)", said, 0.0) == "foo(x)"


def test_of_a_doubtful_line_the_sure_words_are_shown() -> None:
    said = [("re", -0.1), ("turn", -0.1), (" area", -0.3), ("(", -0.1), ("wide", -4.0), (")", -0.1)]
    assert sure_part("return area(wide)", said, 0.05) == "return area"
    assert sure_part("return area(wide)", [*said[:2], (" area", -0.7), *said[3:]], 0.05) == "return"
    assert sure_part("return area(wide)", said, 0.7) == "return"
    assert sure_part("turn area(wide)", said, 0.05, typed=2) == "turn area"


def test_a_head_is_surer_than_a_whole_line() -> None:
    said = [("area", math.log(HEAD) + 0.01), ("(x)", -3.0)]
    assert sure_part("area(x)", said, 0.05) == "area"
    said = [("area", math.log(HEAD) - 0.01), ("(x)", -3.0)]
    assert sure_part("area(x)", said, 0.05) == ""


@pytest.mark.parametrize(
    ("sure", "doubtful", "head"),
    [
        (["max", "(", "a", ","], " b)", "max"),
        (["max", "(", "a", ")", "."], "real", "max(a)"),
        (["x", ",", " y", ")"], " + 1", "x, y)"),
        (["say", " =", ' "', "un"], 'sure"', "say ="),
        (["say", "(", '"a"', ")"], ".b", 'say("a")'),
        (["the", " user", "'s", " own"], " words", "the user's own"),
        (["un"], "certain", ""),
        (["größe_"], "x", ""),
        (["    "], "x", ""),
    ],
)
def test_a_head_ends_behind_a_word_and_leaves_nothing_open(sure: list[str], doubtful: str, head: str) -> None:
    said = [*((text, -0.01) for text in sure), (doubtful, -9.0)]
    assert sure_part("".join(sure) + doubtful, said, 0.05) == head


def test_nothing_is_known_of_the_parts_of_a_line_that_was_put_right() -> None:
    assert sure_part("area = wide", [("  area", -0.01), (" = wide", -9.0)], 0.05) == ""


def test_a_doubtful_tail_is_cut_at_a_line_that_leaves_nothing_open() -> None:
    said = [("a = 1\n", 0.0), ("    b = (", 0.0), ("2,\n", 0.0), ("         3)\n", 0.0), ("    c", 2 * HALF)]
    text = "".join(piece for piece, _ in said)
    assert sure_part(text, said, 0.5) == "a = 1\n    b = (2,\n         3)"
    assert sure_part(text, [*said[:2], ("2,\n", 2 * HALF), *said[3:]], 0.5) == "a = 1"


def test_a_bracket_that_closes_another_does_not_make_up_for_one_left_open() -> None:
    said = [("production) {\n", 0.0), ("    stop()\n}", 2 * HALF)]
    assert sure_part("production) {\n    stop()\n}", said, 0.5) == "production)"
    said = [("production) {}\n", 0.0), ("stop()", 2 * HALF)]
    assert sure_part("production) {}\nstop()", said, 0.5) == "production) {}"


def test_of_what_is_typed_no_doubt_is_left() -> None:
    said = [("foo", 4 * HALF), ("(x)", 0.0)]
    assert sure_part("foo(x)", said, 0.5) == ""
    assert sure_part("(x)", said, 0.5, typed=3) == "(x)"


def test_a_token_in_part_typed_keeps_the_doubt_of_the_rest() -> None:
    said = [("name", 4 * HALF), ("(x)", 0.0)]
    assert sure_part("me(x)", said, 0.5, typed=2) == "me(x)"
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


def test_no_cut_is_made_inside_a_string() -> None:
    text = '"""\n    Adds.\n    """'
    assert sure_part(text, [('"""', -0.1), ("\n    Adds.\n    ", -9.0), ('"""', -0.1)], 0.05) == ""
    assert sure_part(text, [('"""', -0.1), ("\n    Adds.\n    ", -0.1), ('"""', -0.1)], 0.05) == text


def test_before_what_only_closes_no_cut_is_made_but_by_a_surer_line() -> None:
    said = [("f(x);", -0.1), ("\n}", -9.0)]
    assert sure_part("f(x);\n}", said, 0.05) == "f(x);"
    assert sure_part("f(x);\n}", [("f(x);", math.log(HEAD) - 0.1), ("\n}", -9.0)], 0.05) == ""


def test_typed_to_the_end_of_what_was_shown_the_next_sure_words_are_shown_without_the_model() -> None:
    text, whole = "x = \n", "x = value(one) + two"

    async def run() -> None:
        model = ScriptedModel(lambda before, _: whole[len(before) :] + "\n", doubts={"(": -4.0, "+": -4.0})
        desk = Desk(model, text)
        assert await desk.text_at(4) == "value"
        at = desk.type("value", 4)
        assert await desk.text_at(at) is None
        at = desk.type("(", at)
        assert await desk.text_at(at) == "one)"
        assert model.questions == 1
        desk.close()

    asyncio.run(run())


def test_what_is_shown_stays_where_more_is_wanted_behind_a_bracket() -> None:
    text, whole = "x = \n", "x = f(a) + b"

    async def run() -> None:
        model = ScriptedModel(lambda before, _: whole[len(before) :] + "\n", doubts={"+": -2.0})
        desk, at = Desk(model, text), 4
        for shown in ("f(a) + b", "(a) + b", "a) + b", ") + b", " + b", "+ b"):
            assert await desk.text_at(at) == shown
            at = desk.type(whole[at], at)
        desk.close()

    asyncio.run(run())


def test_the_closer_behind_the_cursor_is_not_doubled_by_a_part_that_has_it() -> None:
    async def run() -> None:
        whole = "x = f(a) + b"
        model = ScriptedModel(lambda before, _: whole[len(before) :] + "\n", doubts={"+": -4.0})
        desk = Desk(model, "x = f\n")
        at = desk.type("()", 5) - 1  # the editor closes the bracket
        found = await desk.ask(at)
        assert found
        assert (found.text, found.start.column, found.end.column) == ("a)", 6, 7)
        desk.close()

    asyncio.run(run())


@given(
    st.text("ab_ ().,+'\"[]", min_size=1, max_size=24).filter(lambda text: text == text.strip()),
    st.dictionaries(st.sampled_from("ab_().,+'\"[]"), st.floats(-4.0, 0.0)),
)
def test_while_it_is_typed_what_is_shown_fits_and_stays(line: str, doubts: dict[str, float]) -> None:
    async def run() -> None:
        model = ScriptedModel(lambda before, _: line[len(before) - 4 :] + "\n", doubts=doubts)
        desk, at, kept = Desk(model, "x = \n"), 4, ""
        for key in line:
            shown = await desk.text_at(at) or ""
            assert shown.startswith(kept)
            agrees = shown.startswith(key)
            kept = shown[1:].rstrip() if agrees else ""
            at = desk.type(key, at)
        desk.close()

    asyncio.run(run())
