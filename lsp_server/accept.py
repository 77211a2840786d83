"""Parts of a suggestion, and what became of it: accepted, partly, typed, dismissed or gone, told or inferred."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Literal

from lsp_server.hole import Text
from lsp_server.metrics import Metrics
from lsp_server.suggestions import Rest, Suggestion, common
from lsp_server.text import Edit

Part = Literal["all", "line", "word"]

SEEN = 0.25
"""Seconds that a suggestion must stand to count as shown, unless it is accepted."""
_WORD = re.compile(r"\s*(?:\w+|[^\w\s]+)")
_LINE = re.compile(r"\s*[^\n]+")


def part_of(rest: Rest, after: str, part: Part) -> Rest:
    """The next word or line of what is left, or all; `after` is what that covers."""
    pattern = {"word": _WORD, "line": _LINE}.get(part)
    match = pattern.match(rest.text) if pattern else None
    return rest.beginning(match.end() if match else len(rest.text), after)


class Watch:
    """Follows the suggestion that one document's user sees, and counts its end."""

    def __init__(self, metrics: Metrics, language: str, clock: Callable[[], float] = time.monotonic):
        self._metrics, self._language, self._clock = metrics, language, clock
        self._shown: Suggestion | None = None
        self._since = 0.0
        self._whole = 0  # characters of it that are shown
        self._done = 0  # characters of it that stand in the document
        self._accepted = 0  # of them, those that were not typed
        self._taking = 0  # characters that are about to be accepted by a command
        self._last: tuple[str, int] | None = None  # the last one that was seen to its end, and what was accepted of it

    def show(self, suggestion: Suggestion, left: int) -> None:
        """It was answered, with `left` characters to go."""
        if suggestion is not self._shown:
            self.end()
            self._shown, self._since, self._accepted = suggestion, self._clock(), 0
        self._whole = suggestion.visible or len(suggestion.text)
        self._done = self._whole - left

    def edited(self, edits: list[Edit], document: Text) -> None:
        """The document has changed, and the suggestion's region with it."""
        shown = self._shown
        if shown is None:
            return
        if not shown.region.alive:
            return self.end()
        text = document.text(shown.region.start, shown.region.end).removesuffix(shown.covered)
        done = common(text, shown.text)
        new = shown.text[self._done : done]
        if len(new) == self._taking or _inserted_at_once(new, edits):
            self._accepted += len(new)
        elif done < self._done:
            self._accepted = min(self._accepted, done)
        self._done, self._taking = done, 0
        if done == len(shown.text) or (done < len(text) and text[done:].strip(")]}\"'`>")):
            self.end()
        return None

    def taking(self, suggestion: Suggestion, length: int) -> None:
        """A command is about to insert so many characters of it."""
        self._taking = length if suggestion is self._shown else 0

    def told(self, number: str) -> None:
        """The client says that all of a suggestion was accepted."""
        if self._shown and self._shown.number == number:
            self._accepted = max(self._accepted, self._whole - self._done, 1)
            self._done = self._whole
            self.end()
        elif self._last and self._last == (number, 0):  # its edit did not look like it, as with one character
            self._metrics.count(self._language, "accepted")
            self._last = (number, 1)

    def dismiss(self) -> None:
        """The user sent it away."""
        if self._shown:
            self._metrics.count(self._language, "dismissed")
            self.end(seen=True)

    def end(self, *, seen: bool = False) -> None:
        """It is not there any more."""
        shown, self._shown = self._shown, None
        if shown is None:
            return
        count, language = self._metrics.count, self._language
        if seen or self._accepted or self._clock() - self._since >= SEEN:
            count(language, "shown")
        if self._accepted:
            count(language, "accepted" if self._done >= self._whole else "partly")
            count(language, "characters", self._accepted)
        self._last = (shown.number, self._accepted)


def _inserted_at_once(new: str, edits: list[Edit]) -> bool:
    """Whether text came as one piece, as no key brings it: more than a character, a pair or an indentation."""
    if len(new.strip()) < 2:
        return False
    return any(new in edit.inserted for edit in edits) and new not in ("()", "[]", "{}", '""', "''", "``")
