"""Whether the text around a cursor is sound with an answer in it: its syntax errors, counted by the grammar.

Only the lines around the cursor are parsed, from nothing: less than a millisecond, whatever the size of the document
and however broken it is. (An incremental parse of a large document takes as long, and a hundred times that where a
bracket is missing.)
"""

from __future__ import annotations

import time

from tree_sitter import Node, Parser, Tree

from lsp_server.handed import handed
from lsp_server.languages import Language, grammar_of
from lsp_server.window import Window

BUDGET = 0.004
"""Seconds of processor that one parse may take; the event loop waits for it."""
TOTAL = 0.008
"""Seconds of processor that all parses for one answer may take."""
_COUNTED = 500  # nodes looked at for errors
_BYTES_READ = 8_192
_OPENINGS = {"PHP": "<?php\n"}  # without which all would be text


class Soundness:
    """The lines around a cursor, to be parsed with an answer at the cursor."""

    def __init__(self, language: Language, around: Window, column: int) -> None:
        grammar = grammar_of(language)
        self._parser = Parser(grammar) if grammar is not None else None
        opening = _OPENINGS.get(language.name, "") * (around.first > 0)
        self._before = opening + "\n".join([*around.above, around.line[:column]])
        self._after = "\n".join([around.line[column:], *around.below])
        self._known: dict[tuple[str, int], int | None] = {}
        self._spent = 0.0

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
            return handed(data[byte : byte + _BYTES_READ])

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
