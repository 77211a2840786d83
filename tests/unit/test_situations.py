"""Cursor situations, language by place: the edit that a recorded answer of the starter's becomes (tests/situations)."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lsp_server.completion import Completion
from tests.situations import Situation, all_situations, complete

ROWS = all_situations()
IDS = [row.identifier for row in ROWS]


def edit(found: Completion | None) -> tuple[str | None, int]:
    return (found.text, found.end.column - found.start.column) if found else (None, 0)


def check(row: Situation, found: Completion | None) -> None:
    """What holds of every edit, whatever the model said."""
    if found is None:
        return
    text, covers = found.text, found.end.column - row.cursor.column
    if row.selected:
        assert found.start == row.selected.start, "it uses the range of the menu's entry"
        assert text.startswith(row.menu), "and begins with its text"
    else:
        assert found.start == row.cursor, "it begins at the cursor"
    assert found.end.line == row.cursor.line, "and stays on its line"
    line_after = row.after.partition("\n")[0]
    assert 0 <= covers <= len(line_after)
    letters = iter(text)
    assert all(c in letters for c in line_after[:covers]), "what it replaces comes in it, in this order"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text), "no control characters"
    assert text.strip()
    result = text + line_after[covers:]
    last = result.rpartition("\n")[2]
    assert last == last.rstrip() or line_after != line_after.rstrip(), "no blanks at the end"
    following = next((line for line in row.after.split("\n")[1:] if line.strip()), "")
    if "\n" in text and re.search(r"[^\W\d_]", following):
        assert text.rpartition("\n")[2].strip() != following.strip(), "it does not end with the line below"


def test_there_are_situations_of_many_languages_and_places() -> None:
    assert len(ROWS) >= 150
    assert len({row.language for row in ROWS}) >= 8
    assert max(Counter(IDS).values()) == 1
    assert all(row.said is not None for row in ROWS), "python -m tests.record_situations"


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_the_recorded_answer_becomes_this_edit(row: Situation) -> None:
    found = complete(row)
    assert edit(found) == (row.wanted, row.covers)
    check(row, found)


@pytest.mark.parametrize("size", [1, 3, 1_000])
def test_the_edit_does_not_depend_on_how_the_text_arrives(size: int) -> None:
    def chunks(text: str) -> list[str]:
        return [text[i : i + size] for i in range(0, len(text), size)]

    for row in ROWS:
        assert edit(complete(row, chunks=chunks)) == (row.wanted, row.covers), row.identifier


BITS = st.sampled_from(
    [
        *"()[]{}\"'`.,;: =\\\t",
        "\n",
        "\n  ",
        "\n    ",
        "\n}",
        "\n\n",
        "name",
        "if x",
        "return x",
        "end",
        "else",
        "é😀",
        '"""',
    ]
)


@settings(max_examples=500)
@given(
    row=st.sampled_from(ROWS),
    said=st.lists(BITS, max_size=20).map("".join),
    cut=st.booleans(),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=10),
)
@example(row=ROWS[0], said="", cut=False, sizes=[1])
def test_whatever_the_model_says_the_edit_fits(row: Situation, said: str, cut: bool, sizes: list[int]) -> None:
    def chunks(text: str) -> list[str]:
        pieces: list[str] = []
        while text:
            size = sizes[len(pieces) % len(sizes)]
            pieces.append(text[:size])
            text = text[size:]
        return pieces

    any_row = Situation(row.language, row.name, row.text, said, cut)
    found = complete(any_row, chunks=chunks)
    check(any_row, found)
    assert edit(complete(any_row)) == edit(found), "however it arrives"
