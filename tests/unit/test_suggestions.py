"""The ring of suggestions that users turn through, and beginnings of them."""

from __future__ import annotations

import pytest

from lsp_server.documents import DocumentStore
from lsp_server.suggestions import Region, Rest, Suggestion, Suggestions
from lsp_server.text import Position

HERE = Position(0, 0)


def test_turning_back_leads_to_what_was_shown_before_though_others_have_come() -> None:
    document = DocumentStore().open("file:///a.py", "python", 1, "")
    suggestions = Suggestions()

    def make(text: str) -> Suggestion:
        return Suggestion(text, Region(HERE, HERE))

    def turn(back: bool = False) -> str:
        found = [suggestion for suggestion, _ in suggestions.all_at(document, HERE)]
        suggestions.rotate(found, back=back)
        shown = suggestions.at(document, HERE)
        assert shown
        return shown[1].text

    suggestions.add(make("first"))
    suggestions.add_other(make("second"))
    assert turn() == "second"
    suggestions.add_other(make("third"))
    assert turn(back=True) == "first"
    assert [turn(), turn(), turn()] == ["second", "third", "first"]
    assert [turn(back=True), turn(back=True)] == ["third", "second"]


@pytest.mark.parametrize(
    ("text", "after", "begun", "covers"),
    [
        ("x).y()", ")", "x", 0),
        ("x).y()", ")", "x)", 1),
        ("f(x).y)", ")", "f(x)", 0),
        ("x)\n    y = 1", ")", "x)", 1),
        ("a[0]])", "])", "a[0]", 0),
        ("0]) + 1", "])", "0]", 1),
        ("0]) + 1", "])", "0])", 2),
        ("x, y);", ");", "x, y);", 2),
        ("x + y", "", "x", 0),
    ],
)
def test_a_beginning_takes_the_closers_behind_the_cursor_that_it_types_over(
    text: str, after: str, begun: str, covers: int
) -> None:
    assert Rest(text, len(after)).beginning(len(begun), after) == Rest(begun, covers)
