"""Indentation: a file's own unit, and an answer written in another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import gcd

from lsp_server.surroundings import Surroundings, leading

SAMPLE = 3
"""Indented lines from which on a file is taken to have a unit of its own."""


def unit_of(lines: Sequence[str]) -> str:
    """One level of indentation, a tab or some spaces; empty if the lines do not agree on one."""
    leads = [leading(line) for line in lines if line.strip()]
    indented = [lead for lead in leads if lead]
    tabs = sum("\t" in lead for lead in indented)
    if len(indented) < SAMPLE or 0 < tabs < len(indented):
        return ""
    if tabs:
        return "\t"
    steps = Counter(len(b) - len(a) for a, b in pairwise(leads) if len(b) > len(a))
    if not steps:
        return ""
    step, times = steps.most_common(1)[0]
    return " " * step if step in (2, 3, 4, 8) and times * 2 > steps.total() else ""


def from_the_cursor(text: str, around: Surroundings) -> str:
    """The answer without blanks at its beginning where the cursor stands as deep as its line can be meant to be.

    That is: on a line of its own, at least as deep as the line above, and deeper if that one opens a block.
    """
    lines = text.split("\n")
    extra = leading(lines[0])
    if around.before.strip() or not extra or not lines[0].strip() or around.inside != "code":
        return text
    above = around.line_above
    opens = bool(around.language.block_after(around.language.split(above)[0]))
    level = len(unit_of([*around.above, *around.below])) or 1
    if not above or len(around.before) < len(leading(above)) + opens * level:
        return text
    deep = around.before + extra
    further = [line for line in lines[1:] if line.strip()]
    if all(line.startswith(deep) for line in further):  # they stand too deep as well
        lines[1:] = [around.before + line[len(deep) :] if line.strip() else line for line in lines[1:]]
    return "\n".join([lines[0][len(extra) :], *lines[1:]])


def reindented(text: str, around: Surroundings) -> str:
    """The answer's further lines in the file's unit, where it is certain that they are in another one.

    Certain is: all of the file's lines near by agree, all of the answer's lines agree, and differ from them. Lines that
    only continue a bracket or a string may stand anywhere, so an answer whose lines are no whole levels stays.
    """
    lines = text.split("\n")
    further = [line for line in lines[1:] if line.strip()]
    unit = unit_of([*around.above, around.before, *around.below])
    if not further or not unit or around.inside == "string":
        return text
    leads = [leading(line) for line in further]
    own = _answers_unit(leads, unit, around, _opens(around, lines[0]))
    if not own or own == unit:
        return text
    levels = [len(lead) / len(own) for lead in leads]
    if own != "\t" and unit != "\t":  # what is not deeper than the cursor's line is the file's own
        base = len(leading(around.before))
        levels = [(base / len(unit)) + (len(lead) - base) / len(own) for lead in leads]
    if any(level != int(level) for level in levels):
        return text
    changed = iter(unit * int(level) for level in levels)
    out = [next(changed) + line.lstrip(" \t") if line.strip() else line for line in lines[1:]]
    return "\n".join([lines[0], *out])


def _answers_unit(leads: Sequence[str], unit: str, around: Surroundings, opens: bool) -> str:
    """The unit of an answer's lines, where it is another one than the file's; empty if that is not certain."""
    indented = [lead for lead in leads if lead]
    if not indented:
        return ""
    if unit == "\t":
        if any("\t" in lead for lead in indented):
            return ""
        # Directly below the cursor's line comes its own level or one more.
        level = len(leading(around.before)) + opens
        width = len(indented[0]) // level if level else gcd(*map(len, indented))
        return " " * width if width in (2, 3, 4, 8) and level * width in (0, len(indented[0])) else ""
    if all(set(lead) == {"\t"} for lead in indented):
        return "\t"
    if any("\t" in lead for lead in indented) or not opens:
        return ""
    base = len(leading(around.before))
    deeper = [len(lead) - base for lead in leads if len(lead) > base]
    width = gcd(*deeper) if deeper else 0
    first = len(leads[0]) - base
    return " " * width if width in (2, 4, 8) and width == first else ""


def _opens(around: Surroundings, first: str) -> bool:
    """Whether the cursor's line, ended so, opens a block: the line below it stands one level deeper."""
    return bool(around.language.block_after(around.language.split(around.before + first)[0]))
