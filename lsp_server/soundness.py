"""Whether the text around a cursor is sound with an answer in it: its syntax errors, counted by the grammar.

Only the lines around the cursor are parsed, from nothing: less than a millisecond, whatever the size of the document
and however broken it is. (An incremental parse of a large document takes as long, and a hundred times that where a
bracket is missing.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tree_sitter import Node, Parser, Tree

from lsp_server.languages import Language, grammar_of
from lsp_server.text import Position

NEAR = 40
"""Lines taken on both sides in any case."""
FAR = 250
"""Lines at most, until one is found where a construct of the outermost level begins."""
SEARCHED = 1_000
"""Lines beyond those that are looked at for the heads and ends of the blocks around."""
BUDGET = 0.004
"""Seconds of processor that one parse may take; the event loop waits for it."""
TOTAL = 0.008
"""Seconds of processor that all parses for one answer may take."""
_COUNTED = 500  # nodes looked at for errors
_BYTES_READ = 8_192
_OPENINGS = {"PHP": "<?php\n"}  # without which all would be text
_CLOSING = (")", "]", "}", "end", "else", "elif", "except", "finally", "fi", "done", "esac", "#", "//", "--")


class Soundness:
    """The lines around a cursor, as they were when this was made, to be parsed with an answer at the cursor."""

    def __init__(
        self, language: Language, lines: Sequence[str], cursor: Position, in_code: Callable[[int], bool]
    ) -> None:
        """`in_code`: whether the beginning of a line of the document is neither in a string nor in a comment."""
        grammar = grammar_of(language)
        self._parser = Parser(grammar) if grammar is not None else None
        self._before = self._after = ""
        self._known: dict[tuple[str, int], int | None] = {}
        self._spent = 0.0
        if self._parser is not None:
            first, last = _first(lines, cursor.line, in_code), _last(lines, cursor.line)
            line = lines[cursor.line]
            above = [*_outside(lines, first, -1), *lines[first : cursor.line], line[: cursor.column]]
            self._before = _OPENINGS.get(language.name, "") * (first > 0) + "\n".join(above)
            self._after = "\n".join([line[cursor.column :], *lines[cursor.line + 1 : last], *_outside(lines, last, 1)])

    def errors(self, text: str = "", covers: int = 0) -> int | None:
        """Syntax errors with `text` in place of `covers` characters; None: no grammar, or it would take too long."""
        if self._parser is None:
            return None
        if (text, covers) not in self._known:
            began = time.thread_time()
            within = min(BUDGET, TOTAL - self._spent)
            tree = self._parse(self._parser, self._before + text + self._after[covers:] + "\n", began + within)
            self._known[text, covers] = _errors(tree) if tree else None
            self._spent += time.thread_time() - began
        return self._known[text, covers]

    def _parse(self, parser: Parser, text: str, deadline: float) -> Tree | None:
        data = text.encode("utf-8", "surrogatepass")
        halted = False

        def read(byte: int, _: object) -> bytes:
            return data[byte : byte + _BYTES_READ]

        def halt(_byte: int, _has_error: bool) -> bool:
            nonlocal halted
            halted = time.thread_time() >= deadline
            return halted

        try:
            return parser.parse(read, progress_callback=halt)
        except ValueError:  # what py-tree-sitter makes of a halted parse
            if not halted:
                raise
            return None
        finally:
            parser.reset()


def _errors(tree: Tree) -> int:
    """ERROR and MISSING nodes of a tree."""
    count = 0
    nodes: list[Node] = [tree.root_node]
    for _ in range(_COUNTED):
        if not nodes:
            break
        node = nodes.pop()
        count += node.is_error or node.is_missing
        if node.has_error:
            nodes += node.children
    return count


def _first(lines: Sequence[str], row: int, in_code: Callable[[int], bool]) -> int:
    """The first line of the window: where a construct of the outermost level begins."""
    near = max(0, row - NEAR)
    for first in range(near, max(0, row - FAR), -1):
        if _outermost(lines[first]) and in_code(first):
            return first
    return max(0, row - FAR) if row > FAR else 0


def _last(lines: Sequence[str], row: int) -> int:
    """One past the last line of the window."""
    for last in range(row + NEAR, min(len(lines), row + FAR)):
        if _outermost(lines[last]):
            return last
    return min(len(lines), row + FAR)


def _outermost(line: str) -> bool:
    return line[:1] not in ("", " ", "\t") and not line.startswith(_CLOSING)


def _outside(lines: Sequence[str], row: int, step: int) -> list[str]:
    """The lines beyond `row` that are indented less and less: the heads, or the ends, of the blocks around."""
    start = row - 1 if step < 0 else row
    edge = lines[row] if row < len(lines) and step < 0 else (lines[row - 1] if row else "")
    least = _indentation(edge) if edge.strip() else 1_000
    found: list[str] = []
    stop = max(-1, start - SEARCHED) if step < 0 else min(len(lines), start + SEARCHED)
    for at in range(start, stop, step):
        if least == 0:
            break
        line = lines[at]
        if line.strip() and _indentation(line) < least:
            least = _indentation(line)
            found.append(line)
    return found[::-1] if step < 0 else found


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))
