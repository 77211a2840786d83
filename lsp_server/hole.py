"""The hole in the document: what of it becomes prefix, typed text and suffix of the prompt.

The hole is anchored: it begins at the end of the line above the cursor's, and what stands between there and the cursor
is sent as the first part of the middle. Typing then only appends to the prompt, so a keystroke costs the model one to
three tokens instead of the whole suffix. Invariant: prefix + typed + closers + suffix is a run of the document.
"""

from __future__ import annotations

from typing import Literal, Protocol

import attrs

from lsp_server.text import Edit, Position, advance

LONG_LINE = 1024
"""Columns from which on the anchor moves into the line: typed text stays short in a minified file."""


class Text(Protocol):
    """The part of a document that a hole is cut from."""

    version: int

    @property
    def lines(self) -> list[str]:
        """Lines without their breaks."""
        ...

    def text(self, start: Position, end: Position) -> str:
        """The text between two positions, with LF line breaks."""
        ...

    def auto_closed_after(self, position: Position) -> str:
        """Auto-closed brackets and quotes directly after `position` that the user has not touched."""
        ...


@attrs.frozen
class Budget:
    """Sizes in characters."""

    prefix: int
    suffix: int
    typed: int
    """Typed text from which on the anchor moves up once the cursor rests; at four times that it moves at once."""


@attrs.frozen
class Hole:
    """One request's cut of the document, as text with LF line breaks."""

    cursor: Position
    version: int
    prefix: str
    typed: str
    closers: str
    """Auto-closed brackets after the cursor, left out of the suffix: the answer is to write them itself."""
    suffix: str
    rest: str
    """What follows the closers on the cursor's line."""


@attrs.define
class Anchor:
    """Where a document's hole begins, kept from request to request and moved along by edits."""

    layout: Literal["anchored", "psm"] = "anchored"
    _start: Position | None = None  # of the prefix
    _place: Position | None = None  # the anchor itself
    _suffix: str = ""  # as it was cut when the anchor was set
    _to_end: bool = False  # whether that reached the document's end
    _version: int = -1

    @property
    def place(self) -> tuple[int, Position] | None:
        """The document version at which the anchor was set, and where it stands now."""
        return (self._version, self._place) if self._place else None

    def edit(self, edit: Edit) -> None:
        """Moves along with an edit of the document; one that crosses the anchor or the window's start ends it."""
        self._start = self._start and edit.shift(self._start)
        self._place = self._place and edit.shift(self._place)

    def release(self) -> None:
        """Forgets the place: the next hole is cut anew."""
        self._start = self._place = None

    def cut(self, document: Text, cursor: Position, budget: Budget, *, resting: bool = False) -> Hole:
        """The hole at `cursor`. Moves the anchor only if it must, or when the cursor rests and much was typed."""
        closers = document.auto_closed_after(cursor)
        after = Position(cursor.line, cursor.column + len(closers))
        suffix = self._kept_suffix(document, cursor, after, budget, resting)
        if suffix is None:
            self._place = cursor if self.layout == "psm" else _anchor_for(document.lines, cursor)
            self._start = self._window_start(document.lines, self._place, budget.prefix)
            self._suffix = suffix = _suffix_from(document, after, budget.suffix)
            self._to_end = advance(after, suffix) == _end(document.lines)
            self._version = document.version
        assert self._start is not None
        assert self._place is not None
        return Hole(
            cursor=cursor,
            version=document.version,
            prefix=document.text(self._start, self._place),
            typed=document.text(self._place, cursor),
            closers=closers,
            suffix=suffix,
            rest=document.lines[after.line][after.column :][: budget.suffix],
        )

    def _kept_suffix(
        self, document: Text, cursor: Position, after: Position, budget: Budget, resting: bool
    ) -> str | None:
        """The frozen suffix if the anchor still serves this cursor."""
        place, start = self._place, self._start
        if place is None or start is None or place > cursor or start > place:
            return None
        if self.layout == "psm" and place != cursor:
            return None
        if _distance(document.lines, start, place) > budget.prefix:  # a paste above the anchor
            return None
        most_typed = budget.typed if resting else 4 * budget.typed
        if _distance(document.lines, place, cursor) > most_typed and _anchor_for(document.lines, cursor) != place:
            return None
        end = advance(after, self._suffix)
        lines = document.lines
        if end.line >= len(lines) or end.column > len(lines[end.line]) or (self._to_end and end != _end(lines)):
            return None
        return self._suffix if document.text(after, end) == self._suffix else None

    def _window_start(self, lines: list[str], place: Position, most: int) -> Position:
        """The start of the prefix: where it was while that fits, else three quarters of the budget up."""
        start = self._start
        if start is not None and start <= place:
            length = _distance(lines, start, place)
            if length <= most and (length >= most // 2 or start == (0, 0)):
                return start
        return _up(lines, place, most, most * 3 // 4)


def _anchor_for(lines: list[str], cursor: Position) -> Position:
    if cursor.column >= LONG_LINE:
        half = LONG_LINE // 2
        return Position(cursor.line, (cursor.column // half - 1) * half)
    return Position(cursor.line - 1, len(lines[cursor.line - 1])) if cursor.line else Position(0, 0)


def _up(lines: list[str], place: Position, most: int, wanted: int) -> Position:
    """The line start from which at most `wanted` characters lead to `place`; the document's start within `most`."""
    length, line = place.column, place.line
    if length > most:  # one long line: a cut inside it, in strides too
        stride = max(1, most // 4)
        return Position(line, -(-(length - wanted) // stride) * stride)
    while line > 0 and length + len(lines[line - 1]) + 1 <= most:
        line -= 1
        length += len(lines[line]) + 1
    if line == 0:
        return Position(0, 0)
    while length > wanted and line < place.line:
        length -= len(lines[line]) + 1
        line += 1
    return Position(line, 0)


def _suffix_from(document: Text, after: Position, most: int) -> str:
    """Text from `after` to a line end within `most` characters; part of the line where that alone is longer."""
    lines = document.lines
    length = len(lines[after.line]) - after.column
    if length >= most:
        return document.text(after, Position(after.line, after.column + most))
    line = after.line
    while line + 1 < len(lines) and length + 1 + len(lines[line + 1]) <= most:
        line += 1
        length += 1 + len(lines[line])
    return document.text(after, Position(line, len(lines[line]) if line > after.line else after.column + length))


def _distance(lines: list[str], start: Position, end: Position) -> int:
    """Characters from `start` to `end`, a line break counting as one."""
    if start.line == end.line:
        return end.column - start.column
    between = sum(len(lines[i]) + 1 for i in range(start.line + 1, end.line))
    return len(lines[start.line]) - start.column + 1 + between + end.column


def _end(lines: list[str]) -> Position:
    return Position(len(lines) - 1, len(lines[-1]))
