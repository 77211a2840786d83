"""Which brackets and strings a piece of code leaves open, and which it closes that others opened."""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from lsp_server.languages import Inside, Language

PAIRS = {")": "(", "]": "[", "}": "{"}
CLOSER_OF = {opener: closer for closer, opener in PAIRS.items()}
QUOTES = "\"'`"
_LONG_QUOTES = ('"""', "'''")
_MARK = re.compile(r"""["'`#/\\@<=\-\[]|r(?=#")""")  # how the strings and comments of all languages begin
_BRACKET = re.compile(r"[()\[\]{}]")


@attrs.frozen
class Scan:
    """What a text, scanned from its start, has to do with the text around it. Places are offsets in it."""

    loose: tuple[tuple[int, str], ...]
    """Closing brackets that nothing in the text opens."""
    open: tuple[tuple[int, str], ...]
    """Opening brackets that nothing in the text closes."""
    string: int
    """Where a string begins that the text does not end; -1: there is none."""
    first_quote: int
    """Where the string ends that the text begins in; -1: it does not begin in one, or does not end it."""

    @property
    def whole(self) -> bool:
        """Whether the text ends all that it begins."""
        return not self.open and self.string < 0

    @property
    def closes(self) -> list[str]:
        """The loose closing brackets, in order."""
        return [bracket for _, bracket in self.loose]


def scan(text: str, language: Language, inside: Inside = "code", quote: str = "") -> Scan:
    """Scans code by the language's own strings and comments, over line ends.

    `inside`: what the text begins in; of a string, `quote` ends it.
    """
    at, first_quote = 0, -1
    if inside == "string":
        first_quote = _end_of_string(text, quote) if quote else -1
        if first_quote < 0:
            return Scan((), (), -1, -1)
        at = first_quote + len(quote)
    elif inside == "comment":
        at = text.find("\n")
        if at < 0:
            return Scan((), (), -1, -1)
    loose: list[tuple[int, str]] = []
    opened: list[tuple[int, str]] = []
    string = -1
    while at < len(text):
        token = _next_token(text, at, language)
        end = token.start() if token else len(text)
        for bracket in _BRACKET.finditer(text, at, end):
            _take(bracket.start(), bracket.group(), opened, loose)
        if token is None:
            break
        at = max(token.end(), end + 1)
        if token.lastgroup == "string" and (token.end() == len(text) or _long(token.group())):
            string = end
            break
        if token.lastgroup == "comment" and token.group().startswith("/*"):
            close = text.find("*/", end + 2)
            at = close + 2 if close >= 0 else len(text)
    return Scan(tuple(loose), tuple(opened), string, first_quote)


def quote_before(before: str, language: Language) -> str:
    """The quote of the string that the end of a line's beginning stands in; "" if it began further up."""
    quote = ""
    for token in language.scanner.finditer(before):
        if token.lastgroup == "string":
            start = token.group().lstrip("= \t@rRbBfFuU")
            quote = start[:3] if _long(start) else start[:1]
    return quote if quote[:1] in QUOTES else ""


def missing(before: Sequence[str], after: str, language: Language, *, complete: bool) -> list[str] | None:
    """The closing brackets that the text before a place wants and the text after it does not have, in order.

    `before`: the lines before the place, the last one cut at it. `complete`: nothing outside of both texts has to do
    with what is open in them. None: it has, so that nobody knows.
    """
    wanted = [CLOSER_OF[bracket] for _, bracket in reversed(scan("\n".join(before), language).open)]
    there = scan(after, language).closes
    lacking: list[str] = []
    at = 0
    for closer in wanted:
        if at < len(there) and there[at] == closer:
            at += 1
        else:
            lacking.append(closer)
    return lacking if complete else None


def _next_token(text: str, at: int, language: Language) -> re.Match[str] | None:
    """The first string or comment from a place on. It is looked for only where one may begin: several times faster."""
    while mark := _MARK.search(text, at):
        if token := language.scanner.match(text, mark.start()):
            return token
        at = mark.end()
    return None


def _take(place: int, bracket: str, opened: list[tuple[int, str]], loose: list[tuple[int, str]]) -> None:
    if bracket in CLOSER_OF:
        opened.append((place, bracket))
    elif opened and opened[-1][1] == PAIRS[bracket]:
        opened.pop()
    else:
        loose.append((place, bracket))


def _long(start: str) -> bool:
    return start.startswith(_LONG_QUOTES) or start.startswith("`")


def _end_of_string(text: str, quote: str) -> int:
    for found in re.finditer(r"\\.|" + re.escape(quote), text, re.DOTALL):
        if found.group() == quote:
            return found.start()
    return -1
