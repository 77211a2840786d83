"""What was suggested, followed through the edits after it: text typed through a suggestion leaves its rest.

A suggestion replaces a region of the document. Edits inside the region are typing (or backspace, or accepting); an
edit anywhere else changes what the model would say, and ends it. So what is left of a suggestion always leads to the
very document that was suggested.
"""

from __future__ import annotations

import itertools
from collections import deque

import attrs

from lsp_server.hole import Hole, Text
from lsp_server.text import Edit, Position

CLOSING = ")]}\"'`"
"""What an editor may add after the cursor by itself."""
KEPT = 16
"""Suggestions followed in one document."""


Said = tuple[tuple[str, float], ...]

_numbers = itertools.count(1)


@attrs.define
class Region:
    """A stretch of the document, from `start` to `end`, that grows and shrinks by the edits inside it."""

    start: Position
    end: Position
    alive: bool = True
    """False once something outside was edited."""

    def edited(self, edit: Edit) -> None:
        """Follows one edit."""
        if self.start <= edit.start and edit.old_end <= self.end:
            self.end = edit.new_end if edit.old_end == self.end else edit.shift(self.end) or self.end
        else:
            self.alive = False

    def split(self, document: Text, cursor: Position) -> tuple[str, str] | None:
        """The region's text before and after `cursor`; None if the region is dead or the cursor outside."""
        if not self.alive or not self.start <= cursor <= self.end:
            return None
        return document.text(self.start, cursor), document.text(cursor, self.end)


@attrs.frozen
class Rest:
    """What is left of a suggestion: `text` (LF line breaks) replaces `covers` characters after the cursor."""

    text: str
    covers: int
    said: Said = attrs.field(default=(), eq=False)
    """The stream that it was made of: text, and the log-probability of its tokens."""
    ended: bool = attrs.field(default=False, eq=False)
    """Whether the model itself ended it there, so that it is known to have nothing to add."""

    def beginning(self, length: int, after: str) -> Rest:
        """Its first characters. Of `after`, the text that it covers, they take what the others no longer hold.

        They also take the brackets at its start that they close themselves.
        """
        begun, left = self.text[:length], self.text[length:]
        wanted = next((i for i in range(len(after)) if left and is_subsequence(after[i:], left)), len(after))
        closers = len(after) - len(after.lstrip(")]}"))
        return Rest(begun, max(wanted, min(loose(begun), closers)))


@attrs.define(eq=False)
class Suggestion:
    """`text` (LF line breaks) in place of `region`, of which `covered` stood after the cursor at first."""

    text: str
    region: Region
    covered: str = ""
    said: Said = ()
    ended: bool = False
    """Both as in `Rest`."""
    visible: int = 0
    """Characters of the text up to which it is shown: the model may be less sure of what follows."""
    looked_ahead: bool = False
    """Whether what comes after it was asked for."""
    asked_for: bool = False
    """The user has asked for it, however sure the model is."""
    dismissed: bool = False
    """Sent away by the user: not shown again unasked."""
    number: str = attrs.field(factory=lambda: str(next(_numbers)))
    """Its name towards the client."""

    def visible_of(self, rest: Rest) -> int:
        """How many characters of what is left of it are shown."""
        return max(0, self.visible - len(self.text) + len(rest.text))

    def rest(self, document: Text, cursor: Position) -> Rest | None:
        """What is left to insert at `cursor`; None if the document does not agree with it there.

        It covers what stands from there to the region's end: what is left of `covered`, and closers that the editor
        added since. Those must come in what is left, in order. Empty text: nothing else is left.
        """
        parts = self.region.split(document, cursor)
        if parts is None:
            return None
        typed, after = parts
        left = self.text[len(typed) :]
        if not left or not self.text.startswith(typed) or not is_subsequence(after, left):
            return None
        added = len(after) - len(self.covered)
        if not (after.endswith(self.covered) if added > 0 else self.covered.endswith(after)):
            return None
        if len(document.auto_closed_after(cursor)) < added:
            return None
        return Rest("" if left == after else left, len(after))


class Suggestions:
    """The suggestions of one document that its text still agrees with, or may again, the newest first."""

    def __init__(self) -> None:
        self._kept: deque[Suggestion] = deque(maxlen=KEPT)

    def add(self, suggestion: Suggestion) -> None:
        """The newest one comes first."""
        self._kept.appendleft(suggestion)

    def add_other(self, suggestion: Suggestion) -> None:
        """One that is not to be shown before those that are there."""
        if len(self._kept) == KEPT:
            self._kept.pop()
        self._kept.append(suggestion)

    def discard(self, suggestion: Suggestion) -> None:
        """Forgets one."""
        if suggestion in self._kept:
            self._kept.remove(suggestion)

    def edited(self, edits: list[Edit], document: Text) -> None:
        """Follows the document."""
        for suggestion in self._kept:
            for edit in edits:
                suggestion.region.edited(edit)
        self._kept = deque((s for s in self._kept if s.region.alive), KEPT)

    def at(self, document: Text, cursor: Position) -> tuple[Suggestion, Rest] | None:
        """The newest suggestion that leads to `cursor`, and what is left of it."""
        for suggestion in self._kept:
            if rest := suggestion.rest(document, cursor):
                return suggestion, rest
        return None

    def all_at(self, document: Text, cursor: Position) -> list[tuple[Suggestion, Rest]]:
        """Every suggestion that leads to `cursor` with a text of its own left, the newest first."""
        found: dict[str, tuple[Suggestion, Rest]] = {}
        for suggestion in self._kept:
            rest = suggestion.rest(document, cursor)
            if rest and rest.text:
                found.setdefault(rest.text, (suggestion, rest))
        return list(found.values())

    def rotate(self, those: list[Suggestion], *, back: bool = False) -> None:
        """Turns from the first of `those` (as `all_at` gave them) to the one made after it, or with `back` before it.

        They are in a ring by the time they were made, so that the way back stays when more of them come.
        """
        ring = sorted(those, key=lambda suggestion: int(suggestion.number))
        turned_to = ring[(ring.index(those[0]) + (-1 if back else 1)) % len(ring)]
        self._kept.remove(turned_to)
        self._kept.appendleft(turned_to)

    def clear(self) -> None:
        """Forgets all."""
        self._kept.clear()


def loose(text: str) -> int:
    """How many brackets a text closes that it has not opened."""
    loose = depth = 0
    for character in text:
        if character in "([{":
            depth += 1
        elif character in ")]}":
            loose, depth = (loose, depth - 1) if depth else (loose + 1, 0)
    return loose


def is_subsequence(part: str, whole: str) -> bool:
    """Whether the characters of `part` are in `whole`, in this order."""
    rest = iter(whole)
    return all(char in rest for char in part)


def common(a: str, b: str) -> int:
    """The length of the longest beginning of both."""
    most = min(len(a), len(b))
    return next((i for i in range(most) if a[i] != b[i]), most)


def replaced(hole: Hole, answer: Rest) -> str:
    """The text after the cursor that an answer replaces."""
    return (hole.closers + hole.rest)[: answer.covers]


def suggested(hole: Hole, answer: Rest) -> Suggestion:
    """An answer in a document as it was when the hole was cut."""
    line, column = hole.cursor
    region = Region(hole.cursor, Position(line, column + answer.covers))
    return Suggestion(answer.text, region, replaced(hole, answer), answer.said, answer.ended)
