"""The hole: what of the document goes into the prompt, and that typing only ever appends to it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lsp_server.documents import Document, Encoding
from lsp_server.hole import Anchor, Budget, Hole
from lsp_server.text import Edit, Position

WIDE = Budget(prefix=10**9, suffix=10**9, typed=10**9)
NARROW = Budget(prefix=40, suffix=24, typed=16)
ENCODINGS: list[Encoding] = ["utf-8", "utf-16", "utf-32"]

CODE = """import os


def first(values):
    for value in values:
        if value:
            return value
    return None


def last(values):
    return first(reversed(values))
"""


class Typist:
    """A document with its anchor and a cursor, edited as an editor edits it."""

    def __init__(self, text: str, line: int, column: int):
        self.document = Document("file:///a.py", "python", 1, text)
        self.anchor = Anchor()
        self.cursor = Position(line, column)

    def replace(self, start: Position, end: Position, text: str) -> list[Edit]:
        edits = self.document.apply(*start, *end, text, "utf-32")
        self.document.version += 1
        for edit in edits:
            self.anchor.edit(edit)
            self.cursor = edit.new_end
        return edits

    def type(self, text: str) -> None:
        self.replace(self.cursor, self.cursor, text)

    def backspace(self) -> None:
        self.replace(Position(self.cursor.line, self.cursor.column - 1), self.cursor, "")

    def cut(self, budget: Budget = WIDE, *, resting: bool = False) -> Hole:
        return self.anchor.cut(self.document, self.cursor, budget, resting=resting)


def test_the_hole_begins_at_the_end_of_the_line_above() -> None:
    hole = Typist(CODE, 4, 7).cut()
    assert hole.prefix.endswith("def first(values):")
    assert hole.typed == "\n    for"
    assert hole.suffix.startswith(" value in values:\n")


def test_typing_and_backspace_change_nothing_but_the_typed_text() -> None:
    typist = Typist(CODE, 7, 15)
    before = typist.cut()
    for text in ("\n", "    ", "print(x", ")", "\n\n", "y"):
        typist.type(text)
        hole = typist.cut()
        assert (hole.prefix, hole.suffix) == (before.prefix, before.suffix)
        assert hole.typed.startswith(before.typed)
    typist.backspace()
    assert typist.cut().prefix == before.prefix


def test_an_edit_above_the_anchor_moves_it_and_an_edit_across_it_ends_it() -> None:
    typist = Typist(CODE, 7, 15)
    typist.cut()
    place = typist.anchor.place
    assert place
    here = typist.cursor
    typist.replace(Position(0, 0), Position(0, 0), "import sys\n")
    assert typist.anchor.place == (place[0], Position(place[1].line + 1, place[1].column))
    typist.cursor = Position(here.line + 1, here.column)
    assert typist.cut().prefix.startswith("import sys\nimport os")
    typist.replace(Position(6, 0), Position(8, 4), "")
    assert typist.anchor.place is None


def test_a_cursor_that_settles_elsewhere_gets_a_new_anchor() -> None:
    typist = Typist(CODE, 7, 15)
    old = typist.cut()
    typist.cursor = Position(11, 11)
    new = typist.cut()
    assert new.prefix.endswith("def last(values):")
    assert new.prefix != old.prefix


def test_whoever_looks_elsewhere_and_comes_back_finds_the_same_hole() -> None:
    lines = [f"x{i} = {i}" for i in range(200)]
    typist = Typist("\n".join(lines), 120, 4)
    budget = Budget(prefix=400, suffix=200, typed=40)
    typist.cut(budget)
    typist.type("0")
    before = typist.cut(budget)
    for line in (20, 180, 60):
        typist.cursor = Position(line, 2)
        typist.cut(budget)
    typist.cursor = before.cursor
    assert typist.cut(budget) == before
    copied = typist.anchor.copy()
    typist.replace(Position(0, 0), Position(0, 0), "\n")
    assert copied.place != typist.anchor.place, "a copy stays where it was"


def test_psm_puts_the_hole_at_the_cursor() -> None:
    typist = Typist(CODE, 7, 8)
    typist.anchor = Anchor("psm")
    for typed in ("a", "ab"):
        typist.type(typed[-1])
        hole = typist.cut()
        assert hole.typed == ""
        assert hole.prefix.endswith(f"return value\n    retu{typed}")


def test_much_typed_text_moves_the_anchor_up_only_at_rest() -> None:
    typist = Typist("a\nb\n", 1, 1)
    typist.cut(NARROW)
    typist.type("\ncccccccccc\ndddddddddd")
    assert typist.cut(NARROW).typed.startswith("\nb\n")
    assert typist.cut(NARROW, resting=True).typed == "\ndddddddddd"
    typist.type("\n" + "e" * 20 + "\n" + "f" * 20 + "\n" + "g" * 20)
    assert typist.cut(NARROW).typed == "\n" + "g" * 20, "four times as much moves it at once"


def test_the_window_is_cut_in_strides_not_per_keystroke() -> None:
    lines = [f"x{i} = {i}" for i in range(200)]
    typist = Typist("\n".join(lines), 100, 0)
    budget = Budget(prefix=400, suffix=200, typed=40)
    starts: list[str] = []
    for line in range(100, 200):
        typist.cursor = Position(line, 0)
        starts.append(typist.cut(budget).prefix.split("\n")[0])
    changes = sum(a != b for a, b in pairwise(starts))
    assert 2 <= changes <= 100 / (400 / 4 / 11) * 1.5, f"{changes} cuts in 100 lines"


def test_an_untouched_auto_closed_bracket_is_left_out_of_the_prompt() -> None:
    typist = Typist("def f(x):\n    \n\nf(1)\n", 1, 4)
    typist.type("print()")  # the name, then the pair as editors insert it
    typist.backspace()
    typist.backspace()
    typist.type("()")
    typist.cursor = Position(1, typist.cursor.column - 1)
    hole = typist.cut()
    assert hole.typed == "\n    print("
    assert hole.closers == ")"
    assert hole.suffix == "\n\nf(1)\n"
    assert hole.rest == ""
    before = hole
    typist.type("x")
    hole = typist.cut()
    assert (hole.typed, hole.closers, hole.suffix) == ("\n    print(x", ")", before.suffix)


def test_a_line_of_a_megabyte_costs_no_megabyte() -> None:
    typist = Typist("x" * 10**6, 0, 500_000)
    budget = Budget(prefix=3000, suffix=1500, typed=400)
    hole = typist.cut(budget)
    assert len(hole.prefix) <= 3000
    assert len(hole.suffix) <= 1500
    assert len(hole.typed) < 1024
    assert len(hole.rest) <= 1500
    typist.type("y")
    again = typist.cut(budget)
    assert (again.prefix, again.suffix, again.typed) == (hole.prefix, hole.suffix, hole.typed + "y")


ALPHABET = st.sampled_from(
    ["a", "b", " ", "(", ")", "()", "\n", "\r\n", "\r", "\f", "\u2028", "é", "漢", "😀", "\ud800"]
)
TEXT = st.lists(ALPHABET, max_size=40).map("".join)
BUDGETS = st.builds(Budget, prefix=st.integers(1, 60), suffix=st.integers(0, 40), typed=st.integers(1, 30)) | st.just(
    WIDE
)


@given(
    text=TEXT,
    edits=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), TEXT)),
    cursors=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=3),
    budget=BUDGETS,
    encoding=st.sampled_from(ENCODINGS),
    psm=st.booleans(),
    resting=st.booleans(),
)
def test_prefix_typed_closers_and_suffix_are_a_run_of_the_document(
    text: str,
    edits: list[tuple[int, int, int, int, str]],
    cursors: list[tuple[int, int]],
    budget: Budget,
    encoding: Encoding,
    psm: bool,
    resting: bool,
) -> None:
    document = Document("file:///a", "python", 1, text)
    anchor = Anchor("psm" if psm else "anchored")

    def within(line: int, character: int) -> tuple[int, int]:
        return line % len(document.lines), character

    for start_line, start, end_line, end, new in [*edits, (0, 0, 0, 0, "")]:
        first, last = sorted([within(start_line, start), within(end_line, end)])
        for edit in document.apply(*first, *last, new, encoding):
            anchor.edit(edit)
        for cursor in cursors:
            place = document.position(*within(*cursor), encoding)
            check(document, anchor.cut(document, place, budget, resting=resting), place, budget)


def check(document: Document, hole: Hole, cursor: Position, budget: Budget) -> None:
    whole, at = document.normalised(), offset(document, cursor)
    before, after = hole.prefix + hole.typed, hole.closers + hole.suffix
    assert whole[:at].endswith(before)
    assert whole[at:].startswith(after)
    assert "\r" not in before + after
    assert len(hole.prefix) <= budget.prefix
    assert len(hole.suffix) <= budget.suffix
    if budget is WIDE:
        assert before + after == whole


def offset(document: Document, place: Position) -> int:
    return sum(len(line) + 1 for line in document.lines[: place.line]) + place.column


@given(
    text=TEXT,
    line=st.integers(0, 30),
    column=st.integers(0, 30),
    keys=st.lists(st.sampled_from(["a", " ", "\n", "x = 1", "é", "😀", None]), max_size=30),
)
def test_keystrokes_at_the_end_of_typed_text_leave_prefix_and_suffix_alone(
    text: str, line: int, column: int, keys: list[str | None]
) -> None:
    typist = Typist(text, 0, 0)
    typist.cursor = typist.document.position(line % len(typist.document.lines), column, "utf-32")
    first = typist.cut()
    typed = 0
    for key in keys:
        if key is not None:
            typist.type(key)
            typed += len(key)
        elif typed and typist.cursor.column:
            typist.backspace()
            typed -= 1
        hole = typist.cut()
        assert (hole.prefix, hole.suffix) == (first.prefix, first.suffix)


def test_the_checks_above_notice_a_hole_that_lost_a_character() -> None:
    typist = Typist(CODE, 4, 8)
    hole = typist.cut()
    for broken in (
        Hole(hole.cursor, 1, hole.prefix, hole.typed[:-1], "", hole.suffix, hole.rest),
        Hole(hole.cursor, 1, hole.prefix, hole.typed, "", hole.suffix[1:], hole.rest),
    ):
        assert fails(lambda broken=broken: check(typist.document, broken, typist.cursor, WIDE))


def fails(what: Callable[[], None]) -> bool:
    try:
        what()
    except AssertionError:
        return True
    return False
