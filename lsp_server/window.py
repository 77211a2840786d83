"""The lines around a cursor that say where it stands, so that nobody needs the whole document for an answer.

All lines near by, up to where constructs of the outermost level begin and end; if those are far away, the heads and
ends of the blocks around instead of what lies between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

NEAR = 30
"""Lines taken on both sides in any case."""
FAR = 200
"""Lines at most, until a blank one is found behind which something as far out begins as any line on the way."""
SEARCHED = 1_000
"""Lines beyond those that are looked at for the heads and ends of the blocks around."""
_CLOSING = (")", "]", "}", "end", "else", "elif", "except", "finally", "fi", "done", "esac")
_OPENING = ("{", "(", "[", ":")
_HEAD = 6  # lines at most of the head of a block


@attrs.frozen
class Window:
    """Lines without their breaks: those above the cursor's, that line, and those below."""

    above: Sequence[str]
    line: str
    below: Sequence[str]
    from_start: bool
    """Whether nothing before `above` is still open in it."""
    to_end: bool
    """Whether nothing after `below` closes what is open in it."""
    first: int
    """The line of the document from which on `above` has all of them."""


def window(lines: Sequence[str], row: int, in_code: Callable[[int], bool]) -> Window:
    """The window around line `row`. `in_code`: whether a line begins in no string and no comment."""
    first, last = _first(lines, row, in_code), _last(lines, row, in_code)
    heads, from_start = _heads(lines, first)
    ends, to_end = _ends(lines, last)
    return Window([*heads, *lines[first:row]], lines[row], [*lines[row + 1 : last], *ends], from_start, to_end, first)


def _first(lines: Sequence[str], row: int, in_code: Callable[[int], bool]) -> int:
    outermost = _depth(lines[row])
    for first in range(row - 1, max(0, row - FAR), -1):
        if lines[first].strip():
            depth = _depth(lines[first])
            if row - first >= NEAR and depth <= outermost and not lines[first - 1].strip() and in_code(first):
                return first
            outermost = min(outermost, depth)
    return max(0, row - FAR)


def _last(lines: Sequence[str], row: int, in_code: Callable[[int], bool]) -> int:
    """One past the last line of the window."""
    outermost = _depth(lines[row])
    for last in range(row + 1, min(len(lines), row + FAR)):
        if line := lines[last].strip():
            depth = _depth(lines[last])
            begins = depth <= outermost and not lines[last - 1].strip() and not line.startswith(_CLOSING)
            if last - row > NEAR and begins and in_code(last):
                return last
            outermost = min(outermost, depth)
    return min(len(lines), row + FAR)


def _heads(lines: Sequence[str], first: int) -> tuple[list[str], bool]:
    """The heads of the blocks around the window's first line, and whether the outermost one is among them."""
    outermost = _depth(lines[first])
    found: list[str] = []
    row = first
    stop = max(0, first - SEARCHED)
    while row > stop and outermost > 0:
        row -= 1
        line = lines[row]
        if not line.strip() or _depth(line) >= outermost:
            continue
        outermost = _depth(line)
        begin = row
        if line.lstrip().startswith("{"):
            while begin > max(stop, row - _HEAD) and lines[begin - 1].strip():
                begin -= 1
        found[:0] = [*lines[begin:row], *_head(lines[row : min(first, row + _HEAD)])]
        row = begin
    return found, outermost == 0 or row == 0


def _head(lines: Sequence[str]) -> Sequence[str]:
    """The first of these lines up to the one that ends as the head of a block does; the first one if none does."""
    for count, line in enumerate(lines, 1):
        if not line.strip():
            break
        if line.rstrip().endswith(_OPENING):
            return lines[:count]
    return lines[:1]


def _ends(lines: Sequence[str], last: int) -> tuple[list[str], bool]:
    """The ends of the blocks around the window's end, and whether the outermost one is among them."""
    if last == len(lines):
        return [], True
    outermost = _depth(lines[last])
    found: list[str] = []
    row = last
    for row in range(last, min(len(lines), last + SEARCHED)):
        line = lines[row]
        if outermost == 0:
            break
        if line.strip() and _depth(line) < outermost:
            outermost = _depth(line)
            if line.lstrip().startswith(_CLOSING):
                found.append(line)
    return found, outermost == 0 or row == len(lines) - 1


def _depth(line: str) -> int:
    """The width of a line's indentation; of a blank one, more than any."""
    return len(line) - len(line.lstrip(" \t")) if line.strip() else 1_000
