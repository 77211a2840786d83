"""Where a completion ends: the request's stops, applied to the text as it is decoded.

Text that a stop may still cut off is held until it is certain, so that nothing sent is ever taken back.
"""

from __future__ import annotations

import re

from inference.wire import EndReason, Stops

SHORTEST_HEAD = 3
"""Characters (spaces aside) below which the rest of a line is too common to stop at: a lone `)` proves nothing."""


class Stopper:
    """One choice's text, from the first decoded piece to the end."""

    def __init__(self, stops: Stops):
        self._stops = stops
        head = stops.suffix_head.rstrip()
        self._repeated_line = head[head.rfind("\n") + 1 :] if head.startswith("\n") else ""
        rest = "" if head.startswith("\n") else head.strip()
        self._repeated_rest = rest if len(rest) >= SHORTEST_HEAD else ""
        self._closer = re.compile("|".join(map(_closer_pattern, stops.closers)) or r"(?!)")
        self._text = ""
        self._sent = 0
        self._line = 0  # where the line in hand begins in _text
        self._lines = 1  # the line in hand, counted from 1
        self._solid = 0  # end of the last non-blank text that no stop can cut any more
        self.reason: EndReason | None = None

    def feed(self, piece: str) -> str:
        """Adds decoded text; returns what became certain. After that, `reason` says whether a stop was met."""
        self._text += piece
        while self.reason is None and (end := self._text.find("\n", self._line)) >= 0:
            self._whole_line(end)
        if self.reason is None:
            self._open_line()
        return self._release()

    def finish(self, reason: EndReason) -> str:
        """Ends the text where the model or a limit ended it; returns what was held and may stay."""
        if self.reason is None:
            line = self._text[self._line :]
            if self._line and (not line.strip() or self._cut_before(line, whole=True)):
                self._cut(self._solid, reason)
            else:
                self._solid, self.reason = len(self._text), reason
        return self._release()

    def _whole_line(self, end: int) -> None:
        line = self._text[self._line : end]
        if self._line == 0:
            if self._rest_repeated(line):
                return
            if self._stops.end_of_line:
                return self._cut(end, "line")
        elif line.strip():
            if stop := self._cut_before(line, whole=True):
                return self._cut(self._solid, stop)
            if closer := self._block_end(line):
                return self._cut(self._line + closer.end(), "dedent")
        if line.strip() or self._line == 0:
            self._solid = end
        if self._stops.max_lines and self._lines >= self._stops.max_lines:
            return self._cut(self._solid, "lines")
        self._line, self._lines = end + 1, self._lines + 1
        return None

    def _open_line(self) -> None:
        line = self._text[self._line :]
        if self._line == 0:
            if not self._rest_repeated(line):
                self._solid = len(line) - self._possible_rest(line)
        elif not line.strip():
            return
        elif stop := self._cut_before(line, whole=False):
            self._cut(self._solid, stop)
        elif not self._undecided(line) and not self._block_end(line):
            self._solid = len(self._text)

    def _rest_repeated(self, line: str) -> bool:
        at = line.find(self._repeated_rest) if self._repeated_rest else -1
        if at >= 0:
            self._cut(len(line[:at].rstrip()), "suffix")
        return at >= 0

    def _possible_rest(self, line: str) -> int:
        """How much of the end of `line` may be the beginning of the rest that must not be repeated."""
        for length in range(min(len(line), len(self._repeated_rest) - 1), 0, -1):
            if line.endswith(self._repeated_rest[:length]):
                return length
        return 0

    def _cut_before(self, line: str, *, whole: bool) -> EndReason | None:
        """Why the completion ends before this non-blank new line, as far as it is known."""
        if whole and self._repeated_line and line.rstrip() == self._repeated_line:
            return "suffix"
        below = self._stops.dedent_below
        indent = _indent(line)
        if indent >= below or (not whole and self._undecided(line)):
            return None
        return None if self._block_end(line) else "dedent"

    def _block_end(self, line: str) -> re.Match[str] | None:
        """The closer of the block that the cursor opened, if the line begins with it, from the line's start."""
        indent = _indent(line)
        return self._closer.match(line, indent) if indent == self._stops.dedent_below - 1 else None

    def _undecided(self, line: str) -> bool:
        """Whether more text may still make this open line a repetition or a closer."""
        if self._repeated_line.startswith(line.rstrip()) and self._repeated_line:
            return True
        start = line.lstrip()
        return _indent(line) == self._stops.dedent_below - 1 and any(c.startswith(start) for c in self._stops.closers)

    def _cut(self, end: int, reason: EndReason) -> None:
        self._text, self._solid, self.reason = self._text[:end], end, reason

    def _release(self) -> str:
        out = self._text[self._sent : self._solid]
        self._sent = max(self._sent, self._solid)
        return out


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _closer_pattern(closer: str) -> str:
    """A closer and the punctuation that belongs to it: `});`; one that is a word ends where the word does."""
    return re.escape(closer) + (r"\b" if closer[-1:].isalnum() else "") + r"[)\]};,]*"
