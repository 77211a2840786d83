"""The syntax tree of a document: kept up to date while it is edited, asked whether a place is code.

Parsing holds the GIL, so it goes in slices as long as the caller allows; between them the server can answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Protocol

from tree_sitter import Parser, Point, Tree

from lsp_server.handed import handed
from lsp_server.languages import Inside, Language, grammar_of
from lsp_server.text import Edit, Position

MAX_BYTES = 1_000_000
"""A document with more UTF-8 bytes than this has no tree."""
MAX_LINE = 100_000
"""Nor has one with a line of more characters than this."""

_LINES_READ = 16  # at once: a third less time than one by one
_LONG_LINE = 1_000  # characters; of longer ones a single line is read at once
_BYTES_READ = 4_096

# Node types, over all grammars.
_STRINGS = frozenset(
    """
    string string_literal raw_string_literal raw_string verbatim_string_literal interpreted_string_literal
    interpolated_string_expression template_string template_literal_type encapsed_string string_value
    char_literal character_literal character rune_literal ansi_c_string translated_string system_lib_string
    heredoc heredoc_body nowdoc nowdoc_body shell_command_expression
    regex string_array symbol_array delimited_symbol bare_string
    double_quote_scalar single_quote_scalar block_scalar quoted_key quoted_attribute_value
    """.split()  # noqa: SIM905 - easier to read than a name a line
)
_INTERPOLATIONS = frozenset(
    """
    interpolation string_interpolation template_substitution template_type
    expansion simple_expansion arithmetic_expansion command_substitution process_substitution
    variable_name dynamic_variable_name member_access_expression subscript_expression member_call_expression
    """.split()  # noqa: SIM905 - the last line: PHP has expressions in its strings without a node around them
)


class HasLines(Protocol):
    """A document as the parser reads it: lines without their breaks, the latest text at every reading."""

    @property
    def lines(self) -> Sequence[str]: ...


class Reader:
    """A document as the parser asks for it.

    The tree that comes of it keeps it, as an object that Python doesn't look into for circles: it may hold on to
    nothing that holds the tree, or neither would ever be freed.
    """

    def __init__(self, document: HasLines):
        self.document = document
        self.at_once = _LINES_READ

    def __call__(self, _byte: int, point: Point) -> bytes:
        """The text from a place on, some lines of it; empty at the end."""
        lines = self.document.lines
        row, column = point
        end = row + self.at_once
        text = "\n".join(lines[row:end])
        if end < len(lines):
            text += "\n"
        return handed(text.encode("utf-8", "surrogatepass")[column : column + _BYTES_READ])


class SyntaxTree:
    """The tree of one document, which may be behind its text or missing altogether.

    Every edit of the document must be told to `edit`; `parse` then catches up. Until it has, `inside` answers
    from the tree as it was, moved along with the edits. Without a tree (no grammar, document too large, not
    parsed yet) and where the tree is in doubt, the line's own quotes and comment marks decide.
    """

    def __init__(self, language: Language, document: HasLines) -> None:
        grammar = grammar_of(language)
        self.language = language
        self.tree: Tree | None = None
        self._document, self._reader = document, Reader(document)
        self._parser = Parser(grammar) if grammar is not None else None
        self._stale = grammar is not None
        self._halted = False  # the parser keeps an unfinished parse
        self._bytes: int | None = None  # of the text with its last break, once counted

    @property
    def stale(self) -> bool:
        """Whether `parse` has something to do."""
        return self._stale

    def fork(self, document: HasLines) -> SyntaxTree:
        """A tree of its own for a copy of the document, as far up to date as this one."""
        other = SyntaxTree(self.language, document)
        other.tree = self.tree.copy() if self.tree is not None else None
        other._stale, other._bytes, other._reader.at_once = self._stale, self._bytes, self._reader.at_once
        return other

    def edit(self, edit: Edit) -> None:
        """Move the tree along with an edit of the document. Cheap: nothing is parsed."""
        if self._parser is None:
            return
        self._stale = True
        if self._bytes is not None:
            self._bytes += edit.new_end_byte - edit.old_end_byte
        if self._halted:
            self._parser.reset()
            self._halted = False
        if self.tree is not None:
            self.tree.edit(
                start_byte=edit.start_byte,
                old_end_byte=edit.old_end_byte,
                new_end_byte=edit.new_end_byte,
                start_point=(edit.start.line, edit.start_column_bytes),
                old_end_point=(edit.old_end.line, edit.old_end_column_bytes),
                new_end_point=(edit.new_end.line, edit.new_end_column_bytes),
            )

    def parse(self, budget_s: float = math.inf) -> bool:
        """Bring the tree up to date; False if the budget ran out first: call again to go on.

        Every call makes some progress, even with a budget of 0. An edit between two calls starts over.
        """
        if self._parser is None or not self._stale:
            return True
        if not self._halted and not self._fits():
            self.tree = None
            self._stale = False
            return True
        tree = self._advance(self._parser, time.perf_counter() + budget_s)
        if tree is None:
            return False
        self.tree = tree
        self._stale = False
        return True

    def inside(self, position: Position) -> Inside:
        """What the cursor stands in: right after a line comment still the comment, after a string code."""
        line = self._document.lines[position.line]
        if len(line) > MAX_LINE:
            return "code"  # to look at such a line would take longer than to complete in it
        if self.tree is not None:
            inside, doubtful = self._at(self.tree, position)
            if not doubtful or self._at(self.tree, Position(position.line, 0))[0] != "code":
                return inside
        return self.language.split(line[: position.column])[1]

    def begins_in_code(self, row: int) -> bool:
        """Whether the beginning of a line is in no string and no comment."""
        return self.tree is None or self._at(self.tree, Position(row, 0))[0] == "code"

    def _advance(self, parser: Parser, deadline: float) -> Tree | None:
        """Begin a parse or go on with the halted one; None if it is halted at the deadline."""
        self._halted = False

        def halt(_byte: int, _has_error: bool) -> bool:
            self._halted = time.perf_counter() >= deadline
            return self._halted

        try:
            if self.tree is None:  # `old_tree=None` raises TypeError
                return parser.parse(self._reader, progress_callback=halt)
            return parser.parse(self._reader, old_tree=self.tree, progress_callback=halt)
        except ValueError:  # what py-tree-sitter makes of a halted parse
            if not self._halted:
                raise
            return None
        finally:
            if not self._halted:
                parser.reset()  # after an error nothing may be left to go on with

    def _at(self, tree: Tree, position: Position) -> tuple[Inside, bool]:
        """What the tree says of a place; whether to doubt it: code where the tree has errors or changes."""
        row, column = position
        line = self._document.lines[row]
        cursor = (row, _utf8_size(line[:column]))
        # The node of the character before the cursor: it may end at the cursor, as a comment does.
        before = (row, _utf8_size(line[: column - 1])) if column else cursor
        statement = (row, _utf8_size(line[: len(line) - len(line.lstrip())]))
        inside: Inside = "code"
        interpolated = False
        around = tree.root_node  # in the end the smallest node from the line's first character to the cursor
        walk = tree.walk()
        while walk.goto_first_child_for_point(before) is not None:
            node = walk.node
            if node is None or node.start_point > before:
                break
            if node.start_point <= statement and cursor <= node.end_point:
                around = node
            if not node.is_named or not node.start_point < cursor <= node.end_point:
                continue
            if node.type.endswith("comment"):
                # At its own end only a comment goes on that has nothing but the line's end to close it.
                ends = cursor == node.end_point
                inside = self._comment_end(line, node.start_point, position) if ends else "comment"
            elif cursor < node.end_point and node.type in _STRINGS:
                inside = "string"
            elif cursor < node.end_point and node.type in _INTERPOLATIONS:
                inside, interpolated = "code", True
        doubtful = inside == "code" and not interpolated and (around.has_error or around.has_changes)
        return inside, doubtful

    def _comment_end(self, line: str, start: Point, end: Position) -> Inside:
        if start.row != end.line:
            return "code"
        first = len(line.encode("utf-8", "surrogatepass")[: start.column].decode("utf-8", "surrogatepass"))
        return self.language.split(line[first : end.column])[1]

    def _fits(self) -> bool:
        lines = self._document.lines
        if self._bytes is None:
            self._bytes = sum(map(_utf8_size, lines)) + len(lines)
        longest = max(map(len, lines), default=0)
        self._reader.at_once = _LINES_READ if longest < _LONG_LINE else 1
        return self._bytes <= MAX_BYTES and longest <= MAX_LINE


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
