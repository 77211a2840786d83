"""Whether the model is sure enough of what it says for it to be shown unasked, and of how much of it.

The confidence of a text is the probability that the model gives to exactly its tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

SURE = 0.5
"""Confidence from which something is added to what looks complete: behind a finished statement, inside a word, and
to the first word of a doubtful line."""
HEAD = 0.2
"""Confidence from which the first word of a doubtful line is shown without the rest of it."""
_OPENING, _CLOSING = "([{", ")]}"
_QUOTES = "\"'`"
_GOES_ON = " \t.&@#$\\"
"""What no head ends with: something belongs behind it."""
_MULTILINE = ('"""', "'''", "`")
"""What strings over several lines begin and end with."""


def threshold_at(before: str, after: str, usual: float) -> float:
    """The confidence that is wanted at a place: more of it where most often nothing is missing.

    `before`, `after`: the cursor's line around it.
    """
    if usual <= 0:
        return 0.0
    inside_word = before[-1:].isidentifier() and after[:1].isidentifier()
    return max(usual, SURE) if inside_word or _is_finished(before, after) else usual


def sure_part(text: str, said: Sequence[tuple[str, float]], threshold: float, typed: int = 0) -> str:
    """The most of `text`, whole lines, that has the confidence wanted; else the sure words it begins with.

    `said`: the stream that it was made of, as (text, log-probability in nats), of which `typed` characters stand
    there already: what is left is given them. A text is cut where no bracket is
    left open and the next line is no deeper, so that no block is left without its body.
    """
    if threshold <= 0:
        return text
    said = _left(said, typed)
    lines = text.split("\n")
    for count in range(len(lines), 0, -1):
        part = "\n".join(lines[:count])
        if (count == len(lines) or _may_end(lines, count)) and _confidence(said, count, len(part)) >= threshold:
            return part
    return sure_head(text, said, threshold)


def sure_head(text: str, said: Sequence[tuple[str, float]], threshold: float, typed: int = 0) -> str:
    """The first word of a text, or what it needs to leave nothing open, and as much of its first line as is sure.

    Parameters as for `sure_part`. Where the line does not begin as the stream did (its indentation was put right),
    nothing is known of its parts.
    """
    line, threshold = text.partition("\n")[0], max(threshold, HEAD)
    said = _left(said, typed)
    head, at, total = 0, 0, 0.0
    opened: list[str] = []
    quote = ""
    for token, logprob in said:
        total += logprob
        if math.exp(total) < (max(threshold, SURE) if head else threshold):
            break
        for character in token:
            if line[at : at + 1] != character or line.startswith(_MULTILINE, at):
                return line[:head]
            if quote:
                quote = "" if character == quote else quote
            elif character in _QUOTES and not _is_apostrophe(line, at):
                quote = character
            elif character in _OPENING:
                opened.append(character)
            elif character in _CLOSING and opened and _CLOSING.index(character) != _OPENING.index(opened.pop()):
                return line[:head]
            at += 1
            if not (quote or opened or character in _GOES_ON or _is_inside_word(line, at)):
                head = at
    return line[:head]


def _left(said: Sequence[tuple[str, float]], typed: int) -> Sequence[tuple[str, float]]:
    """A stream without its first characters.

    Of a token in part typed, what is left keeps the square of its share of the doubt: in replays that is how often it
    is right. What else might have stood there mostly differs in the first characters.
    """
    while said and typed >= len(said[0][0]):
        typed -= len(said[0][0])
        said = said[1:]
    if said and typed:
        text_of_first, logprob = said[0]
        left = text_of_first[typed:]
        said = [(left, logprob * (len(left) / len(text_of_first)) ** 2), *said[1:]]
    return said


def _is_inside_word(line: str, at: int) -> bool:
    return _is_of_word(line[at - 1 : at]) and _is_of_word(line[at : at + 1])


def _is_apostrophe(line: str, at: int) -> bool:
    return line[at] == "'" and line[at - 1 : at].isalpha() and line[at + 1 : at + 2].isalpha()


def _is_of_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _confidence(said: Sequence[tuple[str, float]], lines: int, length: int) -> float:
    """Of the stream's first lines; of its last one as far as the text goes."""
    whole = "".join(text for text, _ in said)
    end = -1
    for _ in range(lines):
        end = whole.find("\n", end + 1)
        if end < 0:
            end = min(len(whole), max(length, 1))
            break
    total, at = 0.0, 0
    for text, logprob in said:
        if at >= end > 0:
            break
        total += logprob
        at += len(text)
    return math.exp(total)


def _may_end(lines: list[str], count: int) -> bool:
    part = "".join(lines[:count])
    last, following = lines[count - 1], lines[count]
    balanced = not _leaves_open(part)
    # The first line's own indentation stands before the cursor, so what follows it can't be compared with it.
    no_deeper = count == 1 or (_indent(following) <= _indent(last) and not last.endswith(":"))
    closed = all(part.count(mark) % 2 == 0 for mark in _MULTILINE)
    goes_on = following.strip() != "" and not following.strip(" \t)]};,")  # with what only closes
    return balanced and closed and last.strip() != "" and no_deeper and not goes_on


def _leaves_open(text: str) -> bool:
    """Whether a bracket is opened and not closed, in strings too; closing others makes up for none."""
    opened: list[str] = []
    for character in text:
        if character in _OPENING:
            opened.append(character)
        elif character in _CLOSING and opened and _CLOSING[_OPENING.index(opened[-1])] == character:
            opened.pop()
    return bool(opened)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _is_finished(before: str, after: str) -> bool:
    """Whether the line looks complete where the cursor stands: closed brackets or a semicolon, and nothing open."""
    line = before.rstrip()
    if after.strip() or not line:
        return False
    closed = sum(map(line.count, _OPENING)) == sum(map(line.count, _CLOSING))
    return line[-1] == ";" or (line[-1] in _CLOSING and closed)
