"""The mirror of what the editor holds: documents, changed one edit at a time.

Nothing here knows of LSP's types: positions come in as plain line and character numbers with their encoding.
An edit costs what it touches, never the whole document.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Literal

from lsp_server.text import Edit, Position

Encoding = Literal["utf-8", "utf-16", "utf-32"]

Change = str | tuple[int, int, int, int, str]
"""A full text, or (start line, start character, end line, end character, text)."""

_REOPEN = "reopen the file to bring the two together again"
_BREAK = re.compile(r"\r\n|\n|\r")
_LINES_SAMPLED = 100  # enough to tell a document's own line break
_MAX_CLOSERS = 64
_CLOSER_OF = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "`": "`"}
_PAIRS = {opener + closer for opener, closer in _CLOSER_OF.items()}


class ImpossibleEdit(ValueError):
    """A place the document does not have, so the editor's text and ours are no longer the same."""


class Document:
    """One open document, kept as lines.

    Only LF, CRLF and a lone CR end a line (LSP 3.17, "Text Documents"); a form feed or U+2028 is a character.
    `lines` have no breaks; `breaks[i]` is the break that ends line i, "" for the last line.
    `synchronised` is False once an edit could not be followed, and `reason` then says why in one sentence.
    `line_break` is the document's own, for text handed back to the editor.
    `closers` are the places of brackets and quotes that the editor closed by itself, oldest first.
    """

    def __init__(self, uri: str, language_id: str, version: int, text: str) -> None:
        self.uri = uri
        self.language_id = language_id
        self.version = version
        self.lines = [""]
        self.breaks = [""]
        self.synchronised = True
        self.reason = ""
        self.line_break = "\n"
        self.closers: list[Position] = []
        self._sizes = [1]  # UTF-8 bytes of each line and its normalised break
        self._anchor = (0, 0)  # a line and the byte where it begins
        self._previous: Edit | None = None
        self.replace(text)

    def copy(self) -> Document:
        """A document of its own with this text and version; costs a copy of the list of lines."""
        other = copy.copy(self)
        other.lines, other.breaks, other._sizes = list(self.lines), list(self.breaks), list(self._sizes)
        other.closers = list(self.closers)
        return other

    @property
    def end(self) -> Position:
        """The end of the document."""
        return Position(len(self.lines) - 1, len(self.lines[-1]))

    def position(self, line: int, character: int, encoding: Encoding) -> Position:
        """The place that an LSP position names.

        A character past the end of its line means the line's end, one inside a code point its start.
        Raises ImpossibleEdit for a line that the document does not have and for negative numbers.
        """
        if not 0 <= line < len(self.lines) or character < 0:
            raise ImpossibleEdit(
                f"The editor named line {line}, character {character} (counted from 0) of {self.uri}, "
                f"which has {len(self.lines)} lines here; {_REOPEN}."
            )
        return Position(line, _column(self.lines[line], character, encoding))

    def character(self, position: Position, encoding: Encoding) -> int:
        """The LSP character of a place in this document; its line needs no conversion."""
        line = self.lines[position.line]
        if encoding == "utf-32" or line.isascii():
            return min(position.column, len(line))
        return units(line[: position.column], encoding)

    def text(self, start: Position, end: Position) -> str:
        """The normalised text from `start` to `end`."""
        if start.line == end.line:
            return self.lines[start.line][start.column : end.column]
        first = self.lines[start.line][start.column :]
        last = self.lines[end.line][: end.column]
        return "\n".join([first, *self.lines[start.line + 1 : end.line], last])

    def full_text(self) -> str:
        """The whole text with its own line breaks."""
        return "".join(chain.from_iterable(zip(self.lines, self.breaks, strict=True)))

    def normalised(self) -> str:
        """The whole text with LF line breaks, as edits count it."""
        return "\n".join(self.lines)

    def apply(
        self,
        start_line: int,
        start_character: int,
        end_line: int,
        end_character: int,
        text: str,
        encoding: Encoding,
    ) -> list[Edit]:
        """Replace a range by `text`; no edit comes back if that changes nothing.

        Raises ImpossibleEdit, and leaves the document as it was, if the range cannot be one of this document.
        """
        if (start_line, start_character) > (end_line, end_character):
            raise ImpossibleEdit(
                f"The editor sent an edit of {self.uri} that ends at {end_line}:{end_character}, "
                f"before its start at {start_line}:{start_character}; {_REOPEN}."
            )
        start = self.position(start_line, start_character, encoding)
        end = self.position(end_line, end_character, encoding)
        if start == end and not text:
            return []
        return [self._splice(*self._widen(start, end, text))]

    def replace(self, text: str) -> list[Edit]:
        """Take a full text, which makes the document synchronised whatever happened before."""
        edit = self._splice(Position(0, 0), self.end, text)
        self.line_break = _commonest(self.breaks)
        self.closers.clear()
        self._previous = None
        self.synchronised, self.reason = True, ""
        return [edit]

    def desynchronise(self, reason: str) -> None:
        """Stop trusting the text until the next full one; the first reason is the one that stays."""
        if self.synchronised:
            self.synchronised, self.reason = False, reason

    def auto_closed_after(self, position: Position) -> str:
        """The run of brackets and quotes directly at `position` that the editor closed by itself."""
        column = position.column
        while (position.line, column) in self.closers:
            column += 1
        return self.lines[position.line][position.column : column]

    def _widen(self, start: Position, end: Position, text: str) -> tuple[Position, Position, str]:
        """Take in a CR before or an LF after the edit where it becomes half of a CRLF, one line break."""
        after_cr = start.column == 0 and start.line > 0 and self.breaks[start.line - 1] == "\r"
        before_lf = end.column == len(self.lines[end.line]) and self.breaks[end.line] == "\n"
        if after_cr and (text.startswith("\n") or (not text and before_lf)):
            start = Position(start.line - 1, len(self.lines[start.line - 1]))
            text = "\r" + text
        if before_lf and text.endswith("\r"):
            end = Position(end.line + 1, 0)
            text += "\n"
        return start, end, text

    def _splice(self, start: Position, old_end: Position, text: str) -> Edit:
        """Put `text` in place of what stands from `start` to `old_end`."""
        pieces, breaks = _split(text)
        edit = self._describe(start, old_end, pieces)
        sizes = [_utf8_size(piece) + 1 for piece in pieces]
        sizes[0] += edit.start_column_bytes
        sizes[-1] += self._sizes[old_end.line] - 1 - edit.old_end_column_bytes
        pieces[0] = self.lines[start.line][: start.column] + pieces[0]
        pieces[-1] += self.lines[old_end.line][old_end.column :]
        breaks.append(self.breaks[old_end.line])
        had_breaks = len(self.breaks) > 1
        replaced = slice(start.line, old_end.line + 1)
        self.lines[replaced], self.breaks[replaced], self._sizes[replaced] = pieces, breaks, sizes
        if not had_breaks and len(self.breaks) > 1:  # a new file shows its line break with the first one typed
            self.line_break = _commonest(self.breaks)
        self._follow_closers(edit)
        return edit

    def _describe(self, start: Position, old_end: Position, pieces: list[str]) -> Edit:
        """The edit that puts the lines `pieces` there, in normalised coordinates; nothing is changed yet."""
        line_byte = self._seek(start.line)
        start_bytes = _utf8_size_before(self.lines[start.line], start.column)
        old_end_bytes = _utf8_size_before(self.lines[old_end.line], old_end.column)
        inserted = "\n".join(pieces)
        column, column_bytes = (start.column, start_bytes) if len(pieces) == 1 else (0, 0)
        return Edit(
            start=start,
            old_end=old_end,
            new_end=Position(start.line + len(pieces) - 1, column + len(pieces[-1])),
            inserted=inserted,
            start_byte=line_byte + start_bytes,
            old_end_byte=line_byte + sum(self._sizes[start.line : old_end.line]) + old_end_bytes,
            new_end_byte=line_byte + start_bytes + _utf8_size(inserted),
            start_column_bytes=start_bytes,
            old_end_column_bytes=old_end_bytes,
            new_end_column_bytes=column_bytes + _utf8_size(pieces[-1]),
        )

    def _seek(self, line: int) -> int:
        """The byte where `line` begins, counted from the last place asked for: edits come close together."""
        known, byte = self._anchor
        if line < known:
            byte -= sum(self._sizes[line:known])
        else:
            byte += sum(self._sizes[known:line])
        self._anchor = (line, byte)
        return byte

    def _follow_closers(self, edit: Edit) -> None:
        """Move the recorded closers with an edit, forget those it replaced, record one that it brought."""
        closers: list[Position] = []
        for closer in self.closers:
            if closer == edit.old_end:  # typing right before a closer pushes it on, which `shift` would not
                closers.append(edit.new_end)
            elif closer != edit.start and (moved := edit.shift(closer)) is not None:
                closers.append(moved)
        line, column = edit.start
        if edit.inserted in _PAIRS:
            closers.append(Position(line, column + 1))
        elif self._closes_previous(edit):
            closers.append(edit.start)
        self.closers = closers[-_MAX_CLOSERS:]
        self._previous = edit

    def _closes_previous(self, edit: Edit) -> bool:
        """Whether the edit only adds the closer of an opener that the edit before it typed there."""
        previous = self._previous
        return (
            previous is not None
            and edit.start == edit.old_end == previous.new_end
            and _CLOSER_OF.get(previous.inserted) == edit.inserted
        )


class DocumentStore:
    """The open documents, by URI."""

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}

    def open(self, uri: str, language_id: str, version: int, text: str) -> Document:
        """Start a document; one that was open under the same URI is replaced."""
        document = self._documents[uri] = Document(uri, language_id, version, text)
        return document

    def get(self, uri: str) -> Document | None:
        """The open document of that URI."""
        return self._documents.get(uri)

    def close(self, uri: str) -> None:
        """Forget a document; an unknown one is no error."""
        self._documents.pop(uri, None)

    def change(
        self, uri: str, version: int, changes: Sequence[Change], encoding: Encoding
    ) -> tuple[Document | None, list[Edit]]:
        """Apply one notification's changes in order; (None, []) if the document is not open.

        The document is no longer synchronised after a version that does not increase or an impossible edit.
        Ranged changes are then ignored until a full text, which counts whatever its version: the connection
        keeps messages in order. The edits lead from the text before to the text now in every case.
        """
        document = self._documents.get(uri)
        if document is None:
            return None, []
        if version > document.version:
            document.version = version
        else:
            document.desynchronise(
                f"The editor sent version {version} of {uri} after version {document.version}; {_REOPEN}."
            )
        edits: list[Edit] = []
        for change in changes:
            if isinstance(change, str):
                edits += document.replace(change)
                document.version = version
            elif document.synchronised:
                try:
                    edits += document.apply(*change, encoding)
                except ImpossibleEdit as error:
                    document.desynchronise(str(error))
        return document, edits


def _split(text: str) -> tuple[list[str], list[str]]:
    """The lines of a text and the breaks between them, one fewer."""
    if "\r" in text:
        return _BREAK.split(text), _BREAK.findall(text)
    lines = text.split("\n")
    return lines, ["\n"] * (len(lines) - 1)


def _commonest(breaks: list[str]) -> str:
    """The line break that most of the first lines end with; LF if there is none."""
    counted = Counter(line_break for line_break in breaks[:_LINES_SAMPLED] if line_break)
    return counted.most_common(1)[0][0] if counted else "\n"


def _column(line: str, character: int, encoding: Encoding) -> int:
    """The column of an LSP character: the most code points that take no more than `character` units."""
    if encoding == "utf-32" or line.isascii():
        return min(character, len(line))
    low, high = 0, min(character, len(line))
    while low < high:  # halves what it measures each time, so a huge line is copied about once
        middle = (low + high + 1) // 2
        half = units(line[low:middle], encoding)
        if half <= character:
            low, character = middle, character - half
        else:
            high = middle - 1
    return low


def units(text: str, encoding: Encoding) -> int:
    """The length of a text in an encoding's units; a lone surrogate counts as the code point it is."""
    if encoding == "utf-8":
        return _utf8_size(text)
    if encoding == "utf-16":
        return len(text.encode("utf-16-le", "surrogatepass")) // 2
    return len(text)


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _utf8_size_before(line: str, column: int) -> int:
    return column if line.isascii() else _utf8_size(line[:column])
