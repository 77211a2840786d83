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


PLACES = 4
"""Anchors kept in one document."""


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
class Spot:
    """A place where holes begin: the start of the prefix, the anchor itself, and what stands behind the hole."""

    start: Position
    place: Position
    suffix: str
    """As it was cut when the anchor was set."""
    to_end: bool
    """Whether it reached the document's end."""
    version: int


@attrs.define
class Anchor:
    """Where a document's holes begin, kept from request to request and moved along by edits.

    The last few places are kept: who looks elsewhere and comes back finds the prompt that the model knows.
    """

    layout: Literal["anchored", "psm"] = "anchored"
    _spots: list[Spot] = attrs.field(factory=list[Spot])  # the one used last comes first

    @property
    def place(self) -> tuple[int, Position] | None:
        """The document version at which the anchor used last was set, and where it stands now."""
        return (self._spots[0].version, self._spots[0].place) if self._spots else None

    def copy(self) -> Anchor:
        """The same places, to be moved by the edits of another document."""
        return Anchor(self.layout, [attrs.evolve(spot) for spot in self._spots])

    def edit(self, edit: Edit) -> None:
        """Moves along with an edit of the document; one that crosses an anchor or its window's start ends it."""
        moved: list[Spot] = []
        for spot in self._spots:
            start, place = edit.shift(spot.start), edit.shift(spot.place)
            if start and place:
                spot.start, spot.place = start, place
                moved.append(spot)
        self._spots = moved

    def release(self) -> None:
        """Forgets all places: the next hole is cut anew."""
        self._spots.clear()

    def cut(self, document: Text, cursor: Position, budget: Budget, *, resting: bool = False) -> Hole:
        """The hole at `cursor`. Moves the anchor only if it must, or when the cursor rests and much was typed."""
        closers = document.auto_closed_after(cursor)
        after = Position(cursor.line, cursor.column + len(closers))
        spot = next((s for s in self._spots if self._serves(s, document, cursor, after, budget, resting)), None)
        if spot is None:
            spot = self._new_spot(document, cursor, after, budget)
        if spot is not (self._spots[0] if self._spots else None):
            self._spots = [spot, *(other for other in self._spots if other is not spot)][:PLACES]
        return Hole(
            cursor=cursor,
            version=document.version,
            prefix=document.text(spot.start, spot.place),
            typed=document.text(spot.place, cursor),
            closers=closers,
            suffix=spot.suffix,
            rest=document.lines[after.line][after.column :][: budget.suffix],
        )

    def _serves(
        self, spot: Spot, document: Text, cursor: Position, after: Position, budget: Budget, resting: bool
    ) -> bool:
        """Whether a hole at this cursor may begin there, with the suffix as it was cut."""
        place, start, lines = spot.place, spot.start, document.lines
        if place > cursor or start > place:
            return False
        if self.layout == "psm" and place != cursor:
            return False
        if _distance(lines, start, place) > budget.prefix:  # a paste above the anchor
            return False
        most_typed = budget.typed if resting else 4 * budget.typed
        if _distance(lines, place, cursor) > most_typed and _anchor_for(lines, cursor) != place:
            return False
        end = advance(after, spot.suffix)
        if end.line >= len(lines) or end.column > len(lines[end.line]) or (spot.to_end and end != _end(lines)):
            return False
        return document.text(after, end) == spot.suffix

    def _new_spot(self, document: Text, cursor: Position, after: Position, budget: Budget) -> Spot:
        place = cursor if self.layout == "psm" else _anchor_for(document.lines, cursor)
        suffix = _suffix_from(document, after, budget.suffix)
        to_end = advance(after, suffix) == _end(document.lines)
        return Spot(self._window_start(document.lines, place, budget.prefix), place, suffix, to_end, document.version)

    def _window_start(self, lines: list[str], place: Position, most: int) -> Position:
        """The start of the prefix: where one was while that fits, else three quarters of the budget up."""
        for spot in self._spots:
            if spot.start <= place:
                length = _distance(lines, spot.start, place)
                if length <= most and (length >= most // 2 or spot.start == (0, 0)):
                    return spot.start
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
