"""From the model's text to the edit: what it covers after the cursor, and what must not stand there twice."""

from __future__ import annotations

import attrs

PAIRS = {")": "(", "]": "[", "}": "{"}
QUOTES = "\"'`"
CLOSING = frozenset(")]};,: \t")
"""What the end of an answer may share with the rest of the line by habit rather than by meaning."""


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


def shape(text: str, closers: str, rest: str) -> Shaped | None:
    """The answer fit to its surroundings; None if nothing worth showing is left.

    `closers`: auto-closed brackets after the cursor that the prompt left out. `rest`: the line after them.
    """
    text = text.rstrip()
    if rest.strip():
        text = _without_repeated_end(text, closers, rest)
    if not text.strip():
        return None
    return Shaped(text, _covered(text, closers))


def unmatched(text: str) -> list[str]:
    """The closing brackets of `text` that nothing in it opens, and a quote that is left open, in order."""
    opened: list[str] = []
    loose: list[str] = []
    quote = ""
    skip = False
    for c in text:
        if skip:
            skip = False
        elif c == "\\":
            skip = True
        elif quote:
            quote = "" if c == quote else quote
        elif c in QUOTES:
            quote = c
        elif c in PAIRS.values():
            opened.append(c)
        elif c in PAIRS:
            if opened and opened[-1] == PAIRS[c]:
                opened.pop()
            else:
                loose.append(c)
    return loose + ([quote] if quote else [])


def _covered(text: str, closers: str) -> int:
    """How many of the auto-closed characters the answer writes itself, so that its edit must replace them."""
    count = 0
    text = text.split("\n", 1)[0] if "\n" in text and closers[:1] in QUOTES else text
    for loose in _closed_in_order(text, closers):
        if count < len(closers) and closers[count] == loose:
            count += 1
    return count


def _closed_in_order(text: str, closers: str) -> list[str]:
    if closers[:1] and closers[0] in QUOTES:
        # The cursor stands inside a string: its end is the first such quote, the rest is code.
        end = text.find(closers[0])
        return [] if end < 0 else [closers[0], *unmatched(text[end + 1 :])]
    return unmatched(text)


def _without_repeated_end(text: str, closers: str, rest: str) -> str:
    """Drops an end of the answer that already stands after the cursor, where it only closes what was open."""
    rest = rest.rstrip()
    for length in range(min(len(text), len(rest)), 0, -1):
        if text.endswith(rest[:length]):
            shorter = text[:-length]
            repeated = set(rest[:length]) <= CLOSING and not _needed(text, shorter, closers)
            return shorter.rstrip() if repeated else text
    return text


def _needed(text: str, shorter: str, closers: str) -> bool:
    """Whether the end that `shorter` lacks closes what the answer itself, or an auto-closed pair, opened."""
    closing = sum(c in PAIRS for c in text[len(shorter) :])
    loose = len(unmatched(shorter))
    return len(unmatched(text)) - loose < closing or loose < len(closers)
