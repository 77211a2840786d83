"""Coordinates inside a document, shared by the mirror, the trees and the hole."""

from __future__ import annotations

from typing import NamedTuple

import attrs


class Position(NamedTuple):
    """A place in a document: line and column, both from 0, the column in code points."""

    line: int
    column: int


def advance(start: Position, text: str) -> Position:
    """Where `text` (LF line breaks) ends if it begins at `start`."""
    breaks = text.count("\n")
    if not breaks:
        return Position(start.line, start.column + len(text))
    return Position(start.line + breaks, len(text) - text.rfind("\n") - 1)


@attrs.frozen(slots=True)
class Edit:
    """One replacement, in the normalised text (lines joined by LF, so every line break is one character).

    `old_text[:start] + inserted + old_text[old_end:]` is the new text; `inserted` runs from `start` to `new_end` in it.
    Byte figures are of the text's UTF-8 form, as tree-sitter wants them; `*_column_bytes` count from the line's start.
    """

    start: Position
    old_end: Position
    new_end: Position
    inserted: str
    start_byte: int
    old_end_byte: int
    new_end_byte: int
    start_column_bytes: int
    old_end_column_bytes: int
    new_end_column_bytes: int

    def shift(self, position: Position) -> Position | None:
        """Where `position` stands after the edit; None if the edit replaced the text around it.

        A position exactly at `start` stays before what was inserted.
        """
        if position <= self.start:
            return position
        if position < self.old_end:
            return None
        if position.line == self.old_end.line:
            return Position(self.new_end.line, position.column - self.old_end.column + self.new_end.column)
        return Position(position.line - self.old_end.line + self.new_end.line, position.column)
