"""From the model's text to the edit: what it must not repeat, and what it covers after the cursor.

Pure functions from text and its surroundings to text; `closing` puts them in order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from lsp_server.brackets import CLOSER_OF, QUOTES
from lsp_server.surroundings import Surroundings, leading

CLOSING = frozenset(")]};,: \t")
"""What the end of an answer may share with the rest of the line by habit rather than by meaning."""
LONGEST_UNIT = 6
"""Lines of the longest passage whose repetition is noticed."""
_LETTER = re.compile(r"[^\W\d_]")
_POINTED = re.compile(r"(?<![-=])>")
_ROUND_AND_ROUND = re.compile(r"(.{3,40}?)\1{4,}")


@attrs.frozen
class Shaping:
    """What is done to the model's text before it is shown; each can be switched off, to measure what it brings."""

    closing: bool = True
    """Watch the stream's line ends with the syntax tree, and end it where the statement or block is complete."""
    rollback: bool = True
    """Fall back to the last place where the text around the answer is sound."""
    suffix: bool = True
    """Never repeat what follows the cursor: its line, a part of it, or the lines below."""
    brackets: bool = True
    """Brackets, quotes and `end` balanced against what follows the cursor."""
    indentation: bool = True
    """Indent as the file does, with tabs or spaces."""
    repetition: bool = True
    """Cut an answer that goes round in circles."""
    echo: bool = True
    """Never repeat the line above."""


ALL = Shaping()


@attrs.frozen
class Shaped:
    """Text to insert at the cursor (LF line breaks), and how many characters after the cursor it replaces."""

    text: str
    covers: int


def without_loops(text: str) -> str:
    """The text up to the end of the first passage that it says again and again.

    That is: a line three times, several lines twice (with letters in them), or a part of a line five times.
    """
    lines = text.split("\n")
    for start in range(len(lines)):
        for unit in range(1, min(LONGEST_UNIT, (len(lines) - start) // 2) + 1):
            times = 3 if unit == 1 else 2
            passage = lines[start : start + unit]
            if _says_something(passage) and lines[start : start + times * unit] == passage * times:
                return "\n".join(lines[: start + unit])
        for round_and_round in _ROUND_AND_ROUND.finditer(lines[start]):
            if _LETTER.search(round_and_round[1]):  # not an indentation, nor a ruler
                return "\n".join([*lines[:start], lines[start][: round_and_round.end(1)]])
    return text


def echoes(text: str, around: Surroundings) -> bool:
    """Whether the answer's first line only says again what the lines above it say."""
    if around.rest.strip():
        return False
    lines = (around.before + text).split("\n")
    last = around.line_above.rstrip()
    return bool(_LETTER.search(last)) and lines[0].rstrip() == last


def without_following(text: str, around: Surroundings) -> str:
    """The answer up to where it begins to say what stands below the cursor's line; empty if all of it stands there."""
    if around.rest.strip():
        return text
    following = [line.strip() for line in around.below if line.strip()]
    if not following:
        return text
    lines = (around.before + text).split("\n")
    for at, line in enumerate(lines):
        if line.strip() == following[0] and (_LETTER.search(line) or line.rstrip() == around.line_below.rstrip()):
            said = [line.strip() for line in lines[at:] if line.strip()]
            # In the middle it may be a line that is needed twice, unless all that follows stands there as well.
            if said == following[: len(said)] or at == 0:
                return "\n".join(lines[:at])[len(around.before) :].rstrip() if at else ""
    return text


def balanced(text: str, around: Surroundings) -> Shaped:
    """The answer with what it closes fit to what stands after the cursor.

    Auto-closed brackets that it closes are covered. What closes nothing is covered if it is the rest of the line
    that the answer repeats, or cut off.
    """
    text, excess = _without_repeated_end(_within_its_string(text, around), around), 0
    closers = len(around.closers)
    loose = _excess(text, around)
    if loose is not None:
        rest = around.rest.rstrip()
        if rest and set(rest) <= CLOSING | set(QUOTES) and _said(around.closers, text[:loose]) == closers:
            excess = _said(rest, text[loose:])
        if not excess:
            text = text[:loose].rstrip()
    covers = closers + excess if excess else covered(text, around)
    if covers < closers and "\n" in text and around.inside == "code":
        # What the editor closed belongs on a line of its own below a block, not behind its last line.
        text += "\n" + leading(around.before) + around.closers[covers:]
        covers = closers
    return Shaped(text, covers)


def without_rest(text: str, around: Surroundings) -> str:
    """The answer up to where it gives its own version of the bracket that follows the cursor."""
    bracket = around.rest[:1]
    if around.inside != "code" or not bracket or bracket not in CLOSER_OF:
        return text
    at = text.find(bracket)
    while at >= 0 and not around.scan(text[:at]).whole:
        at = text.find(bracket, at + 1)
    return text[:at] if at > 0 else text


def _within_its_string(text: str, around: Surroundings) -> str:
    """The answer up to the end of the string that it begins in, if that string is closed on the line already."""
    if around.inside != "string" or around.closers or not around.quote or around.quote not in around.rest:
        return text
    end = around.scan(text).first_quote
    return text[:end] if end >= 0 else text


def _says_something(lines: Sequence[str]) -> bool:
    letters = sum(len(_LETTER.findall(line)) for line in lines)
    return letters >= (1 if len(lines) == 1 else 8)


def _excess(text: str, around: Surroundings) -> int | None:
    """Where the answer closes a bracket that is closed after the cursor already; None: nowhere."""
    scanned = around.scan(text)
    if not scanned.loose or around.missing is None:
        return None
    # What it opens itself wants a closer after the cursor, and so leaves one for what it closes: `} else {`.
    lacking = [*around.missing, *(CLOSER_OF[bracket] for _, bracket in scanned.open)]
    for place, bracket in scanned.loose:
        if bracket not in lacking:
            return place
        lacking.remove(bracket)
    return None


def _said(there: str, text: str) -> int:
    """How much of the beginning of `there` comes in the text, in order."""
    count = 0
    letters = iter(text)
    for character in there:
        if character not in letters:
            break
        count += 1
    return count


def covered(text: str, around: Surroundings) -> int:
    """How many of the auto-closed characters the answer writes itself, so that its edit must replace them."""
    count = 0
    closers = around.closers
    for loose in _closed_in_order(text, around):
        if count < len(closers) and closers[count] == loose:
            count += 1
    return count


def _closed_in_order(text: str, around: Surroundings) -> list[str]:
    first = around.closers[:1]
    if first and first in QUOTES:
        # The cursor stands inside a string: its end is the first such quote on the line, the rest is code.
        line = text.split("\n", 1)[0]
        end = around.scan(line).first_quote if around.quote == first else line.find(first)
        if end < 0:
            return []
        inside = attrs.evolve(around, inside="code", closers="")
        return [first, *inside.scan(line[end + 1 :]).closes]
    scanned = around.scan(text)
    return scanned.closes + ([text[scanned.string]] if scanned.string >= 0 else [])


def _without_repeated_end(text: str, around: Surroundings) -> str:
    """Drops an end of the answer that already stands after the cursor, where it only closes what was open."""
    rest = around.rest.rstrip()
    if not rest:
        return text
    if rest[0] == ">" and text.endswith(">") and len(_POINTED.findall(text)) > text.count("<"):
        return text[:-1].rstrip()
    for length in range(min(len(text), len(rest)), 0, -1):
        if text.endswith(rest[:length]):
            shorter = text[:-length]
            repeated = set(rest[:length]) <= CLOSING and not _needed(text, shorter, around)
            return shorter.rstrip() if repeated else text
    return text


def _needed(text: str, shorter: str, around: Surroundings) -> bool:
    """Whether the end that `shorter` lacks closes what the answer itself, or an auto-closed pair, opened."""
    whole, part = around.scan(text), around.scan(shorter)
    if len(part.open) > len(whole.open):
        return True
    lacking = around.missing
    return lacking is not None and len(part.loose) < min(len(whole.loose), len(lacking))
