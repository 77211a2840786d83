"""Where a completion is to end, read off the cursor's line and the nearest line of code above it.

Where the cursor stands at the beginning of a block: with the block. Else with the line, or with the statement if its
first line opens something. Inside a line, a string or a comment: with the line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import attrs

from inference.wire import Stops
from lsp_server.languages import Inside, Language
from lsp_server.text import Position

_LONG_LINE = 2_000  # columns from which on nobody opens a block
_LINES_ABOVE = 100  # most lines of blanks and comments between an opener and the cursor
_TO_FIRST_WORDS = re.compile(r"\s*\S[^\n]*")


class _Block(NamedTuple):
    indentation: int
    """Of the line that opens it."""
    closers: tuple[str, ...]
    middles: tuple[str, ...] = ()


def stops_for(
    lines: Sequence[str],
    position: Position,
    language: Language,
    inside: Inside,
    suffix: str,
    *,
    rest: str,
    max_tokens_line: int,
    max_tokens_block: int,
    max_lines: int,
    statements: bool = True,
) -> Stops:
    """The stops of a completion at `position`.

    `inside` is what the cursor stands in (`SyntaxTree.inside`). `suffix` is the prompt's text after the hole and
    `rest` its part on the cursor's line: both without the auto-closed brackets that are taken as not there.
    `statements`: a line that opens something does not end the completion; False for the line alone.
    """
    head = _suffix_head(suffix, rest)
    ends_line = inside == "code" and not rest.strip() and position.column < _LONG_LINE
    block = _block_at(lines, position, language) if ends_line else None
    if block is None:
        line = Stops(max_tokens=max_tokens_line, end_of_line=True, suffix_head=head)
        if not ends_line or not statements or language.by_indentation:
            return line
        return attrs.evolve(
            line,
            max_tokens=max_tokens_block,
            max_lines=max_lines,
            closers=language.closers,
            middles=language.middles,
            opens=language.opens,
            head=lines[position.line][: position.column],
        )
    if _closed_below(suffix, block):
        block = block._replace(closers=(), middles=())
    return Stops(
        max_tokens=max_tokens_block,
        max_lines=max_lines,
        dedent_below=block.indentation + 1,
        closers=block.closers,
        middles=block.middles,
        opens=language.opens if block.closers else "",
        suffix_head=head,
    )


def _closed_below(suffix: str, block: _Block) -> bool:
    """Whether the next line of code after the cursor is already the one that ends the block."""
    following = suffix.partition("\n")[2]
    line = next((line for line in following.split("\n", _LINES_ABOVE) if line.strip()), "")
    words = (*block.closers, *block.middles)
    return bool(words) and _indentation(line) == block.indentation and line.lstrip().startswith(words)


def _block_at(lines: Sequence[str], position: Position, language: Language) -> _Block | None:
    """The block that what is typed at the cursor, at its line's end, would be part of the beginning of."""
    before = lines[position.line][: position.column]
    if before.strip():
        return _opened_by(before, language)
    gap = False
    for row in range(position.line - 1, max(-1, position.line - 1 - _LINES_ABOVE), -1):
        above = lines[row]
        if not above.strip():
            gap = True
        elif language.split(above)[0].strip():  # a line with code: comments between it and the cursor don't count
            deeper = position.column > _indentation(above)
            if language.by_indentation:
                return _Block(_indentation(above), ()) if deeper else None
            # Directly below an opener the body is meant even if the editor has not indented yet.
            return _opened_by(above, language) if deeper or not gap else None
    return None


def _opened_by(text: str, language: Language) -> _Block | None:
    opener = language.block_after(language.split(text)[0])
    return _Block(_indentation(text), opener.closers, opener.middles) if opener else None


def _indentation(line: str) -> int:
    """The width of a line's indentation; a tab counts as one column, as in `Stops`."""
    return len(line) - len(line.lstrip(" \t"))


def _suffix_head(suffix: str, rest: str) -> str:
    """What the completion must not repeat: the rest of the line, else the next line that is not blank.

    The latter with the line breaks before it, so that it is found only as a line of its own.
    """
    if rest.strip():
        return rest.rstrip()
    end_of_line = suffix.find("\n")
    if end_of_line < 0:
        return ""
    following = _TO_FIRST_WORDS.match(suffix, end_of_line)
    return following.group().rstrip() if following else ""
