"""Answers are indented as the file is, where it is certain what that means."""

from __future__ import annotations

import pytest

from lsp_server.indentation import from_the_cursor, reindented, unit_of
from lsp_server.languages import language_of
from lsp_server.surroundings import Surroundings

TABS = "\tdef f(self):\n\t\tx = 1\n\t\ty = 2\n"
TWO = "  def f(self):\n    x = 1\n    y = 2\n"
FOUR = "    def f(self):\n        x = 1\n        y = 2\n"


def around(text: str) -> Surroundings:
    *above, before = text.split("\n")
    return Surroundings(language_of("python", ""), "code", above, before, "", "", [])


@pytest.mark.parametrize(
    ("text", "unit"),
    [(TABS, "\t"), (TWO, "  "), (FOUR, "    "), (TABS + TWO, ""), ("x\n\ty", ""), ("a\nb\nc", ""), ("", "")],
)
def test_a_file_s_unit(text: str, unit: str) -> None:
    assert unit_of(text.split("\n")) == unit


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        (TABS + "\tdef g(self):", "\n        if a:\n            b\n        c", "\n\t\tif a:\n\t\t\tb\n\t\tc"),
        (TABS + "\tdef g(self):", "\n    if a:\n      b\n    c", "\n\t\tif a:\n\t\t\tb\n\t\tc"),
        (TABS + "\t\t", "if a:\n            b\n        c", "if a:\n\t\t\tb\n\t\tc"),
        (TABS + "\tdef g(self):", "\n\t\tif a:\n\t\t\tb", "\n\t\tif a:\n\t\t\tb"),
        (FOUR + "    def g(self):", "\n\t\tif a:\n\t\t\tb", "\n        if a:\n            b"),
        (TWO + "  def g(self):", "\n      if a:\n          b\n      c", "\n    if a:\n      b\n    c"),
        (FOUR + "    def g(self):", "\n      if a:\n        b\n      c", "\n        if a:\n            b\n        c"),
        (TWO + "  x = f(", "a,\n        b)", "a,\n        b)"),
        (FOUR + "    def g(self):", "\n        f(a,\n          b)", "\n        f(a,\n          b)"),
        (TABS + TWO + "  def g(self):", "\n\t\tif a:", "\n\t\tif a:"),
        ("def g(self):", "\n\tif a:", "\n\tif a:"),
        (TABS + "\t\tx = [", "\n   1,\n  2]", "\n   1,\n  2]"),
    ],
)
def test_an_answer_in_another_unit_is_put_into_the_file_s(text: str, answer: str, expected: str) -> None:
    assert reindented(answer, around(text)) == expected


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("  a\n  ", "  b", "b"),
        ("if a:\n    ", "  b\n      c", "b\n    c"),
        ("if a:\n    ", "  b\n    c", "b\n    c"),
        ("if a:\n", "    b", "    b"),
        ("def f():\n    if a:\n        b\n    if c:\n      ", "  d", "  d"),
        ("  a\n", "  b", "  b"),
        ("a = ", " b", " b"),
        ("  a\n  ", "\n  b", "\n  b"),
        ("", "  b", "  b"),
    ],
)
def test_the_first_line_begins_at_the_cursor_that_stands_deep_enough(text: str, answer: str, expected: str) -> None:
    assert from_the_cursor(answer, around(text)) == expected
