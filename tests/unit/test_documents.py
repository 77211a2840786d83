"""The document mirror holds exactly what the editor holds."""

from __future__ import annotations

import json
import random
import re
import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_server.documents import Document, DocumentStore, Encoding, ImpossibleEdit
from lsp_server.text import Edit, Position

ENCODINGS: tuple[Encoding, ...] = ("utf-8", "utf-16", "utf-32")
URI = "file:///a.py"


def document(text: str) -> Document:
    return Document(URI, "python", 1, text)


def insert(target: Document, line: int, character: int, text: str) -> list[Edit]:
    return target.apply(line, character, line, character, text, "utf-16")


# --- an independent reference: one string, everything recomputed from scratch -------------------------------


def ref_split(text: str) -> tuple[list[str], list[str]]:
    parts = re.split(r"(\r\n|\n|\r)", text)
    return parts[0::2], [*parts[1::2], ""]


def ref_normalised(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def ref_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def ref_units(character: str, encoding: Encoding) -> int:
    if encoding == "utf-8":
        return ref_bytes(character)
    return 2 if encoding == "utf-16" and ord(character) > 0xFFFF else 1


def ref_column(line: str, wanted: int, encoding: Encoding) -> int:
    column = used = 0
    for character in line:
        used += ref_units(character, encoding)
        if used > wanted:
            break
        column += 1
    return column


def ref_offset(text: str, line: int, character: int, encoding: Encoding) -> int:
    lines, breaks = ref_split(text)
    before = sum(map(len, lines[:line])) + sum(map(len, breaks[:line]))
    return before + ref_column(lines[line], character, encoding)


def ref_apply(text: str, change: tuple[int, int, int, int, str], encoding: Encoding) -> str:
    start_line, start_character, end_line, end_character, inserted = change
    start = ref_offset(text, start_line, start_character, encoding)
    end = ref_offset(text, end_line, end_character, encoding)
    return text[:start] + inserted + text[end:]


def assert_equation(edit: Edit, old: str, new: str) -> None:
    """`old` and `new` are normalised; the edit must lead from one to the other, byte figures included."""

    def offset(text: str, position: Position) -> int:
        lines = text.split("\n")
        assert position.column <= len(lines[position.line])
        return sum(len(line) + 1 for line in lines[: position.line]) + position.column

    start, old_end, new_end = offset(old, edit.start), offset(old, edit.old_end), offset(new, edit.new_end)
    assert old[:start] + edit.inserted + old[old_end:] == new
    assert new[start:new_end] == edit.inserted
    assert edit.start_byte == ref_bytes(old[:start])
    assert edit.old_end_byte == ref_bytes(old[:old_end])
    assert edit.new_end_byte == ref_bytes(new[:new_end])
    assert edit.start_column_bytes == ref_bytes(old[:start].rpartition("\n")[2])
    assert edit.old_end_column_bytes == ref_bytes(old[:old_end].rpartition("\n")[2])
    assert edit.new_end_column_bytes == ref_bytes(new[:new_end].rpartition("\n")[2])


def assert_follows(edits: list[Edit], old: str, new: str) -> None:
    """At most one edit, and it accounts for the whole difference."""
    assert len(edits) <= 1
    if edits:
        assert_equation(edits[0], old, new)
    else:
        assert old == new


def assert_equal(mirror: Document, text: str) -> None:
    lines, breaks = ref_split(text)
    assert mirror.full_text() == text
    assert mirror.lines == lines
    assert mirror.breaks == breaks
    assert mirror.normalised() == ref_normalised(text)
    assert mirror.end == Position(len(lines) - 1, len(lines[-1]))


# --- random edits -------------------------------------------------------------------------------------------

PIECES = ["\n", "\r", "\r\n", "\f", "\u2028", "\x85", "a", "é", "漢", "😀", "e\u0301", "\ud83d", "\ude00"]
SEAM_PIECES = ["\r", "\n", "a"]  # half of the texts are made of these, where CR and LF meet often
texts = st.sampled_from((PIECES, SEAM_PIECES)).flatmap(
    lambda pieces: st.lists(st.sampled_from(pieces), max_size=12).map("".join)
)
short_texts = st.sampled_from(["", "\r", "\n"]) | st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
numbers = st.integers(0, 1000)


@dataclass(frozen=True)
class Scribble:
    """An edit whose numbers are folded into whatever document it meets, so that it is always possible."""

    start: tuple[int, int]
    end: tuple[int, int]
    text: str

    def change(self, text: str, encoding: Encoding) -> tuple[int, int, int, int, str]:
        lines, _ = ref_split(text)

        def fold(place: tuple[int, int]) -> tuple[int, int]:
            line = place[0] % len(lines)
            units = sum(ref_units(character, encoding) for character in lines[line])
            return line, place[1] % (units + 3)  # a little past the end too

        (start, end) = sorted((fold(self.start), fold(self.end)))
        return *start, *end, self.text


places = st.tuples(numbers, numbers)
scribbles = st.builds(Scribble, places, places, short_texts)
insertions = st.builds(lambda place, text: Scribble(place, place, text), places, short_texts)


@given(texts, st.sampled_from(ENCODINGS), st.lists(scribbles | insertions | texts, min_size=1, max_size=12))
def test_any_edits_in_any_encoding_give_the_text_the_editor_has(
    text: str, encoding: Encoding, steps: list[Scribble | str]
) -> None:
    mirror = document(text)
    for step in steps:
        old = text
        if isinstance(step, str):
            text = step
            edits = mirror.replace(step)
        else:
            change = step.change(text, encoding)
            text = ref_apply(text, change, encoding)
            edits = mirror.apply(*change, encoding)
        assert_equal(mirror, text)
        assert_follows(edits, ref_normalised(old), ref_normalised(text))


@given(texts, st.sampled_from(ENCODINGS), places)
def test_positions_and_characters_are_each_others_reverse(
    text: str, encoding: Encoding, place: tuple[int, int]
) -> None:
    mirror = document(text)
    lines, _ = ref_split(text)
    for line, content in enumerate(lines):
        for column in range(len(content) + 1):
            character = mirror.character(Position(line, column), encoding)
            assert character == sum(ref_units(each, encoding) for each in content[:column])
            assert mirror.position(line, character, encoding) == Position(line, column)
    line, character = place[0] % len(lines), place[1] % 20
    assert mirror.position(line, character, encoding).column == ref_column(lines[line], character, encoding)


@given(texts, places, places)
def test_the_text_between_two_positions_is_normalised(text: str, one: tuple[int, int], other: tuple[int, int]) -> None:
    lines, _ = ref_split(text)
    start, end = sorted(
        Position(line % len(lines), column % (len(lines[line % len(lines)]) + 1)) for line, column in (one, other)
    )
    normalised = ref_normalised(text)
    first, last = (sum(len(line) + 1 for line in lines[: at.line]) + at.column for at in (start, end))
    assert document(text).text(start, end) == normalised[first:last]


@dataclass
class Flagged:
    """A character of the reference, which carries its own mark through every edit."""

    character: str
    auto_closed: bool = False


BRACKETS = ["()", "[]", "{}", '""', "''", "``", "(", ")", "[", "]", '"', "'", "\n", "x", "(x)", "", "😀"]
CLOSERS = dict(zip("([{\"'`", ")]}\"'`", strict=True))


@dataclass(frozen=True)
class Keystroke:
    """Text at a place, or where the edit before it ended or began to type (`at` decides)."""

    at: int
    place: tuple[int, int]
    removed: int
    text: str


keystrokes = st.builds(
    Keystroke, st.integers(0, 3), places, st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from(BRACKETS)
)


@given(st.lists(st.sampled_from(BRACKETS), max_size=5).map("".join), st.lists(keystrokes, max_size=14))
def test_auto_closed_characters_are_those_the_editor_added(text: str, steps: list[Keystroke]) -> None:
    """The reference marks the characters themselves: a mark can neither drift nor outlive its character."""
    mirror = document(text)
    reference = [Flagged(character) for character in text]
    typed_at, typed = -1, ""
    for step in steps:
        start = step.place[0] % (len(reference) + 1)
        if typed_at >= 0 and step.at:
            start = (typed_at + len(typed), typed_at, typed_at + len(typed) // 2)[step.at - 1]
        end = min(start + step.removed, len(reference))
        if start == end and not step.text:
            continue
        added = [Flagged(character) for character in step.text]
        if len(step.text) == 2 and CLOSERS.get(step.text[0]) == step.text[1]:
            added[1].auto_closed = True
        elif start == end == typed_at + len(typed) and CLOSERS.get(typed) == step.text:
            added[0].auto_closed = True
        before = "".join(each.character for each in reference)
        first = before[:start].count("\n"), start - (before.rfind("\n", 0, start) + 1)
        last = before[:end].count("\n"), end - (before.rfind("\n", 0, end) + 1)
        reference[start:end] = added
        mirror.apply(*first, *last, step.text, "utf-32")
        typed_at, typed = start, step.text
        assert_marks(mirror, reference)


def assert_marks(mirror: Document, reference: list[Flagged]) -> None:
    line = column = 0
    for index, each in enumerate(reference):
        run = index
        while run < len(reference) and reference[run].auto_closed:
            run += 1
        expected = "".join(marked.character for marked in reference[index:run])
        assert mirror.auto_closed_after(Position(line, column)) == expected
        assert mirror.lines[line].startswith(expected, column)
        line, column = (line + 1, 0) if each.character == "\n" else (line, column + 1)
    assert mirror.auto_closed_after(Position(line, column)) == ""


# --- facts: lines and breaks --------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["\f", "\v", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_a_form_feed_is_not_a_line_break(character: str) -> None:
    mirror = document(f"one{character}two\nthree")
    assert mirror.lines == [f"one{character}two", "three"]
    insert(mirror, 1, 0, "#")
    assert mirror.full_text() == f"one{character}two\n#three"


def test_each_line_keeps_its_own_break() -> None:
    mirror = document("a\nb\r\nc\rd")
    assert mirror.lines == ["a", "b", "c", "d"]
    assert mirror.breaks == ["\n", "\r\n", "\r", ""]


def test_an_empty_document_is_one_empty_line() -> None:
    mirror = document("")
    assert (mirror.lines, mirror.breaks, mirror.end) == ([""], [""], Position(0, 0))


def test_the_commonest_line_break_is_the_documents_own() -> None:
    assert document("a\nb\r\nc\r\n").line_break == "\r\n"
    assert document("a\rb").line_break == "\r"
    assert document("no break").line_break == "\n"


def test_the_line_break_is_kept_while_lines_come_and_go() -> None:
    mirror = document("a\r\nb")
    insert(mirror, 0, 0, "\n\n\n")
    assert mirror.line_break == "\r\n"
    mirror.apply(0, 0, 4, 1, "", "utf-16")
    insert(mirror, 0, 0, "x")
    assert mirror.line_break == "\r\n"
    mirror.replace("a\r\nb")
    mirror.replace("a\nb")
    assert mirror.line_break == "\n"


def test_a_new_file_takes_the_line_break_first_typed_in_it() -> None:
    mirror = document("")
    insert(mirror, 0, 0, "import os\r\n")
    assert mirror.line_break == "\r\n"


SEAMS = {
    "a deletion joins a lone CR with an LF": ("a\rxy\nb", (1, 0, 1, 2, "")),
    "an LF typed after a lone CR joins it": ("a\rb", (1, 0, 1, 0, "\n")),
    "text that begins with LF joins a lone CR before it": ("a\rbc", (1, 0, 1, 1, "\nd")),
    "a CR typed before an LF joins it": ("a\nb", (0, 1, 0, 1, "\r")),
    "text that ends with CR joins an LF after it": ("ab\nc", (0, 1, 0, 2, "x\ny\r")),
    "both seams at once": ("a\rb\nc", (1, 0, 1, 1, "\n\r")),
    "a CR between CR and LF": ("a\rb\nc", (1, 0, 1, 1, "\r")),
    "a CR typed before a CRLF stays alone": ("a\r\nb", (0, 1, 0, 1, "\r")),
    "an LF typed before a CRLF stays alone": ("a\r\nb", (0, 1, 0, 1, "\n")),
    "an LF typed after an LF stays alone": ("a\nb", (1, 0, 1, 0, "\n")),
    "a deletion up to a CRLF leaves CR and CRLF": ("a\rb\r\nc", (1, 0, 1, 1, "")),
    "a CRLF replaced by its own halves": ("a\r\nb", (0, 1, 1, 0, "\r\n")),
}


@pytest.mark.parametrize("seam", SEAMS)
def test_seams_give_what_splitting_the_whole_text_gives(seam: str) -> None:
    text, change = SEAMS[seam]
    mirror = document(text)
    edits = mirror.apply(*change, "utf-16")
    new = ref_apply(text, change, "utf-16")
    assert_equal(mirror, new)
    assert_follows(edits, ref_normalised(text), ref_normalised(new))


# --- facts: positions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("line", ["ab", "é漢"])
def test_a_character_past_the_end_of_the_line_clamps_before_its_break(encoding: Encoding, line: str) -> None:
    mirror = document(f"{line}\r\nc")
    assert mirror.position(0, 99, encoding) == Position(0, 2)
    mirror.apply(0, 99, 0, 100, "!", encoding)
    assert mirror.full_text() == f"{line}!\r\nc"


@pytest.mark.parametrize(("encoding", "past"), [("utf-8", 5), ("utf-16", 3), ("utf-32", 2)])
def test_columns_past_an_emoji_count_in_the_clients_encoding(encoding: Encoding, past: int) -> None:
    mirror = document("a😀b")
    assert mirror.position(0, past, encoding) == Position(0, 2)
    assert mirror.character(Position(0, 2), encoding) == past


@pytest.mark.parametrize(("encoding", "inside"), [("utf-16", [2]), ("utf-8", [2, 3, 4])])
def test_a_position_inside_a_character_rounds_down_to_its_start(encoding: Encoding, inside: list[int]) -> None:
    mirror = document("a😀b")
    assert [mirror.position(0, character, encoding).column for character in inside] == [1] * len(inside)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_lone_surrogates_from_json_are_characters_like_any_other(encoding: Encoding) -> None:
    lone = json.loads(r'"\udc00 \ud83d"')
    mirror = document(lone)
    (edit,) = mirror.apply(0, 1, 0, 1, "\ud83d", "utf-32")
    assert mirror.full_text() == "\udc00\ud83d \ud83d"
    assert (edit.start_byte, edit.new_end_byte) == (3, 6)
    assert mirror.position(0, mirror.character(Position(0, 3), encoding), encoding) == Position(0, 3)


@pytest.mark.parametrize("place", [(2, 0), (99, 0), (-1, 0), (0, -1)])
def test_a_place_the_document_does_not_have_is_impossible(place: tuple[int, int]) -> None:
    mirror = document("one\ntwo")
    with pytest.raises(ImpossibleEdit, match=r"^The editor named line .*a\.py, which has 2 lines.*\.$"):
        mirror.position(*place, "utf-16")


@pytest.mark.parametrize("change", [(2, 0, 2, 0), (0, 0, 2, 0), (1, 0, 0, 0), (0, 9, 0, 8), (0, -1, 0, 0)])
def test_an_impossible_edit_leaves_the_document_as_it_was(change: tuple[int, int, int, int]) -> None:
    mirror = document("one\ntwo")
    with pytest.raises(ImpossibleEdit):
        mirror.apply(*change, "x", "utf-16")
    assert_equal(mirror, "one\ntwo")


def test_an_empty_change_is_no_edit() -> None:
    mirror = document("one")
    assert mirror.apply(0, 1, 0, 1, "", "utf-16") == []
    assert_equal(mirror, "one")


# --- facts: the store and synchronisation -------------------------------------------------------------------


@pytest.fixture
def store() -> DocumentStore:
    store = DocumentStore()
    store.open(URI, "python", 1, "one\ntwo")
    return store


def opened(store: DocumentStore) -> Document:
    found = store.get(URI)
    assert found is not None
    return found


def test_changes_of_one_notification_apply_in_order(store: DocumentStore) -> None:
    changed, edits = store.change(URI, 2, [(0, 3, 0, 3, "!"), (0, 4, 1, 0, " ")], "utf-16")
    assert changed is not None
    assert changed is opened(store)
    assert (changed.full_text(), changed.version, changed.synchronised) == ("one! two", 2, True)
    assert [edit.inserted for edit in edits] == ["!", " "]


def test_a_change_to_a_document_that_is_not_open_is_nothing(store: DocumentStore) -> None:
    assert store.change("file:///other.py", 2, ["x"], "utf-16") == (None, [])
    store.close(URI)
    assert store.get(URI) is None
    assert store.change(URI, 2, ["x"], "utf-16") == (None, [])
    store.close(URI)


def test_versions_may_jump(store: DocumentStore) -> None:
    store.change(URI, 40, [(0, 0, 0, 0, "x")], "utf-16")
    assert (opened(store).version, opened(store).synchronised) == (40, True)


def test_an_impossible_line_marks_the_document_unsynchronised_until_a_full_text(store: DocumentStore) -> None:
    store.change(URI, 2, [(9, 0, 9, 0, "lost")], "utf-16")
    assert not opened(store).synchronised
    assert "line 9" in opened(store).reason

    _, edits = store.change(URI, 3, [(0, 0, 0, 0, "ignored")], "utf-16")
    assert edits == []
    assert (opened(store).version, opened(store).synchronised) == (3, False)
    assert opened(store).full_text() == "one\ntwo"
    assert "line 9" in opened(store).reason

    store.change(URI, 4, ["new\ntext"], "utf-16")
    assert (opened(store).full_text(), opened(store).synchronised, opened(store).reason) == (
        "new\ntext",
        True,
        "",
    )
    store.change(URI, 5, [(0, 0, 0, 0, "a ")], "utf-16")
    assert opened(store).full_text() == "a new\ntext"


@pytest.mark.parametrize("version", [1, 0])
def test_a_version_that_does_not_increase_marks_the_document_unsynchronised(store: DocumentStore, version: int) -> None:
    _, edits = store.change(URI, version, [(0, 0, 0, 0, "x")], "utf-16")
    assert edits == []
    assert (opened(store).version, opened(store).synchronised) == (1, False)
    assert f"version {version} " in opened(store).reason
    assert opened(store).full_text() == "one\ntwo"


def test_the_first_reason_is_the_one_that_stays(store: DocumentStore) -> None:
    store.change(URI, 2, [(9, 0, 9, 0, "x")], "utf-16")
    reason = opened(store).reason
    store.change(URI, 2, [(8, 0, 8, 0, "x")], "utf-16")
    assert opened(store).reason == reason


def test_reopening_makes_a_document_synchronised_again(store: DocumentStore) -> None:
    store.change(URI, 2, [(9, 0, 9, 0, "x")], "utf-16")
    store.open(URI, "python", 1, "fresh")
    assert (opened(store).full_text(), opened(store).version) == ("fresh", 1)
    assert (opened(store).synchronised, opened(store).reason) == (True, "")


def test_a_full_text_among_the_changes_synchronises_from_there_on(store: DocumentStore) -> None:
    changes = [(9, 0, 9, 0, "lost"), (0, 0, 0, 0, "ignored"), "full", (0, 4, 0, 4, "!")]
    changed, edits = store.change(URI, 2, changes, "utf-16")
    assert changed is not None
    assert (changed.full_text(), changed.synchronised, changed.reason) == ("full!", True, "")
    assert [edit.inserted for edit in edits] == ["full", "!"]


def test_a_full_text_counts_whatever_its_version_and_versions_go_on_from_it(store: DocumentStore) -> None:
    store.change(URI, 9, [(0, 0, 0, 0, "x")], "utf-16")
    store.change(URI, 1, ["restarted"], "utf-16")
    assert (opened(store).version, opened(store).synchronised) == (1, True)
    store.change(URI, 2, [(0, 9, 0, 9, "!")], "utf-16")
    assert (opened(store).full_text(), opened(store).synchronised) == ("restarted!", True)


def test_edits_account_for_the_text_even_when_synchronisation_was_lost_between_them(
    store: DocumentStore,
) -> None:
    before = opened(store).normalised()
    changes = [(0, 0, 0, 0, "x"), (9, 0, 9, 0, "lost"), (0, 0, 0, 0, "ignored")]
    changed, edits = store.change(URI, 2, changes, "utf-16")
    assert changed is not None
    assert not changed.synchronised
    assert_follows(edits, before, changed.normalised())


# --- facts: auto-closed brackets ----------------------------------------------------------------------------


@pytest.mark.parametrize("pair", ["()", "[]", "{}", '""', "''", "``"])
def test_a_pair_typed_at_once_has_an_auto_closed_closer(pair: str) -> None:
    mirror = document("print")
    insert(mirror, 0, 5, pair)
    assert mirror.auto_closed_after(Position(0, 6)) == pair[1]
    assert mirror.auto_closed_after(Position(0, 5)) == ""
    assert mirror.auto_closed_after(Position(0, 7)) == ""


def test_an_opener_and_its_closer_may_come_as_two_changes() -> None:
    mirror = document("print")
    insert(mirror, 0, 5, "(")
    insert(mirror, 0, 6, ")")
    assert mirror.auto_closed_after(Position(0, 6)) == ")"


@pytest.mark.parametrize(("opener", "place", "closer"), [("(", 6, "]"), ("(", 5, ")"), ("x(", 7, ")")])
def test_a_closer_is_not_auto_closed_unless_it_directly_follows_its_opener(
    opener: str, place: int, closer: str
) -> None:
    mirror = document("print")
    insert(mirror, 0, 5, opener)
    insert(mirror, 0, place, closer)
    assert mirror.closers == []


def test_a_closer_typed_after_another_edit_is_the_users_own() -> None:
    mirror = document("print\n")
    insert(mirror, 0, 5, "(")
    insert(mirror, 1, 0, "x")
    insert(mirror, 0, 6, ")")
    assert mirror.closers == []


def test_a_closer_that_replaces_text_is_the_users_own() -> None:
    mirror = document("print x")
    insert(mirror, 0, 5, "(")
    mirror.apply(0, 6, 0, 7, ")", "utf-16")
    assert mirror.closers == []


def test_surrounding_a_selection_closes_nothing() -> None:
    mirror = document("value")
    mirror.apply(0, 0, 0, 5, "(value)", "utf-16")
    assert mirror.closers == []


def test_typing_between_the_brackets_moves_the_closer() -> None:
    mirror = document("")
    insert(mirror, 0, 0, "()")
    for column, character in enumerate("some", start=1):
        insert(mirror, 0, column, character)
    assert mirror.lines == ["(some)"]
    assert mirror.auto_closed_after(Position(0, 5)) == ")"
    assert mirror.auto_closed_after(Position(0, 1)) == ""


def test_a_line_break_between_the_brackets_moves_the_closer_to_its_line() -> None:
    mirror = document("")
    insert(mirror, 0, 0, "{}")
    insert(mirror, 0, 1, "\n    \n")
    assert mirror.auto_closed_after(Position(2, 0)) == "}"
    assert mirror.auto_closed_after(Position(1, 4)) == ""


def test_nested_closers_are_one_run() -> None:
    mirror = document("")
    insert(mirror, 0, 0, "()")
    insert(mirror, 0, 1, "[")
    insert(mirror, 0, 2, "]")
    insert(mirror, 0, 2, '""')
    assert mirror.lines == ['([""])']
    assert mirror.auto_closed_after(Position(0, 3)) == '"])'
    assert mirror.auto_closed_after(Position(0, 4)) == "])"


def test_the_run_ends_at_a_closer_the_user_typed() -> None:
    mirror = document(")")
    insert(mirror, 0, 0, "()")
    assert mirror.auto_closed_after(Position(0, 1)) == ")"


@pytest.mark.parametrize("change", [(0, 1, 0, 2, ""), (0, 0, 0, 2, ""), (0, 1, 0, 2, ")"), (0, 0, 1, 0, "()\n")])
def test_a_closer_that_an_edit_deletes_or_replaces_is_forgotten(
    change: tuple[int, int, int, int, str],
) -> None:
    mirror = document("\n")
    insert(mirror, 0, 0, "()")
    mirror.apply(*change, "utf-16")
    assert mirror.closers == []


def test_edits_above_move_a_closer_with_its_line() -> None:
    mirror = document("one\ntwo\n")
    insert(mirror, 2, 0, "f()")
    insert(mirror, 2, 2, "[]")
    insert(mirror, 0, 0, "import os\n\n")
    assert mirror.auto_closed_after(Position(4, 3)) == "]"
    mirror.apply(0, 0, 3, 0, "", "utf-16")
    assert mirror.auto_closed_after(Position(1, 3)) == "]"
    mirror.apply(0, 0, 1, 0, "", "utf-16")
    assert mirror.auto_closed_after(Position(0, 3)) == "]"


def test_a_full_text_forgets_the_closers() -> None:
    mirror = document("")
    insert(mirror, 0, 0, "(")
    mirror.replace("(")
    insert(mirror, 0, 1, ")")
    assert mirror.closers == []
    insert(mirror, 0, 1, "[]")
    mirror.replace("([])")
    assert mirror.auto_closed_after(Position(0, 2)) == ""


def test_only_the_newest_64_closers_are_kept() -> None:
    mirror = document("")
    for _ in range(70):
        insert(mirror, 0, 0, "()")
        insert(mirror, 0, 0, "\n")
    assert len(mirror.closers) == 64
    assert mirror.auto_closed_after(Position(1, 1)) == ")"
    assert mirror.auto_closed_after(Position(70, 1)) == ""


# --- cost ---------------------------------------------------------------------------------------------------


def test_an_edit_in_ten_thousand_lines_costs_far_less_than_a_millisecond() -> None:
    mirror = document("    return self.value + other.value  # é\n" * 10_000)
    places = random.Random(0)
    edits = [(places.randrange(10_000), places.randrange(30)) for _ in range(2_000)]
    began = time.perf_counter()
    for line, character in edits:
        mirror.apply(line, character, line, character, "x", "utf-16")
    mean = (time.perf_counter() - began) / len(edits)
    print(f"mean cost of an edit: {mean * 1e6:.0f} µs")
    assert mean < 1e-3
