"""Where a completion ends: the request's stops, applied to the text as it is decoded.

Text that a stop may still cut off is held until it is certain, so that nothing sent is ever taken back.
"""

from __future__ import annotations

import re

from inference.wire import EndReason, Stops

SHORTEST_HEAD = 3
"""Characters (spaces aside) below which the rest of a line is too common to stop at: a lone `)` proves nothing."""
_OPENING, _CLOSING = re.compile(r"[(\[{]"), re.compile(r"[)\]}]")


class Stopper:
    """One choice's text, from the first decoded piece to the end."""

    def __init__(self, stops: Stops):
        self._stops = stops
        head = stops.suffix_head.rstrip()
        self._repeated_line = head[head.rfind("\n") + 1 :] if head.startswith("\n") else ""
        rest = "" if head.startswith("\n") else head.strip()
        self._repeated_rest = rest if len(rest) >= SHORTEST_HEAD else ""
        self._closer = re.compile("|".join(map(_closer_pattern, stops.closers)) or r"(?!)")
        self._middle = re.compile("|".join(map(_word_pattern, stops.middles)) or r"(?!)")
        self._opens = re.compile(stops.opens) if stops.opens else None
        self._below = stops.dedent_below
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
            elif self._line and (end := self._block_end(line)):
                self._cut(self._line + end, reason)
            else:
                self._solid, self.reason = len(self._text), reason
        return self._release()

    def _whole_line(self, end: int) -> None:
        line = self._text[self._line : end]
        if self._line == 0:
            if self._rest_repeated(line):
                return
            if self._stops.end_of_line:
                if not self._opens or not self._goes_on(self._stops.head + line, line):
                    return self._cut(end, "line")
                self._below = self._below or _indent(self._stops.head + line) + 1
        elif line.strip():
            if stop := self._cut_before(line, whole=True):
                return self._cut(self._solid, stop)
            if kept := self._block_end(line):
                return self._cut(self._line + kept, "dedent")
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
        elif not self._undecided(line):
            self._solid = len(self._text)

    def _goes_on(self, line: str, added: str) -> bool:
        """Whether a whole line opens something; `added` is the part of it whose brackets count."""
        left_open = len(_OPENING.findall(added)) > len(_CLOSING.findall(added))
        return left_open or bool(self._opens and self._opens.search(line.rstrip()))

    def _rest_repeated(self, line: str) -> bool:
        at = line.find(self._repeated_rest) if self._repeated_rest else -1
        while at >= 0 and len(_OPENING.findall(line, 0, at)) > len(_CLOSING.findall(line, 0, at)):
            at = line.find(self._repeated_rest, at + 1)  # inside brackets of the completion's own it is something else
        if at >= 0:
            self._cut(at, "suffix")
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
        if _indent(line) >= self._below or (not whole and self._undecided(line)):
            return None
        return None if self._at_block(line) else "dedent"

    def _at_block(self, line: str) -> bool:
        """Whether the line belongs to the head of the block: it ends it, or goes on with it."""
        indent = _indent(line)
        ours = indent == self._below - 1
        return ours and bool(self._closer.match(line, indent) or self._middle.match(line, indent))

    def _block_end(self, line: str) -> int:
        """How much of the line still belongs to the block that it closes; 0 if it closes none."""
        indent = _indent(line)
        closer = self._closer.match(line, indent) if indent == self._below - 1 else None
        if closer is None or self._middle.match(line, indent):
            return 0
        after = line[closer.end() :]
        if not self._goes_on(line, after):
            return len(line.rstrip())
        return 0 if closer.group()[0] in ")]" else closer.end()  # `) {` is still the head, `} else {` another block

    def _undecided(self, line: str) -> bool:
        """Whether more text may still make this open line a repetition or a closer."""
        if self._repeated_line.startswith(line.rstrip()) and self._repeated_line:
            return True
        indent = _indent(line)
        if indent != self._below - 1:
            return False
        start = line[indent:]
        words = (*self._stops.closers, *self._stops.middles)
        return self._at_block(line) or any(word.startswith(start) for word in words)

    def _cut(self, end: int, reason: EndReason) -> None:
        self._text, self._solid, self.reason = self._text[:end], end, reason

    def _release(self) -> str:
        out = self._text[self._sent : self._solid]
        self._sent = max(self._sent, self._solid)
        return out


class Until:
    """One choice's text where strings alone end it: the same interface as `Stopper`."""

    def __init__(self, strings: tuple[str, ...]):
        self._strings = strings
        self._held = ""
        self.reason: EndReason | None = None

    def feed(self, piece: str) -> str:
        """Adds decoded text; returns what became certain. After that, `reason` says whether a string was met."""
        text = self._held + piece
        if found := [at for string in self._strings if (at := text.find(string)) >= 0]:
            self.reason, self._held = "stop", ""
            return text[: min(found)]
        begun = max((_begun(text, string) for string in self._strings), default=0)
        self._held = text[len(text) - begun :]
        return text[: len(text) - begun]

    def finish(self, reason: EndReason) -> str:
        """Ends the text where the model or a limit ended it; returns what was held."""
        held, self._held, self.reason = self._held, "", self.reason or reason
        return held


def _begun(text: str, string: str) -> int:
    """How many of the last characters of `text` may be the beginning of `string`."""
    return next((n for n in range(min(len(text), len(string) - 1), 0, -1) if text.endswith(string[:n])), 0)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _word_pattern(word: str) -> str:
    """A word as a whole; punctuation as it is."""
    return re.escape(word) + (r"\b" if word[-1:].isalnum() else "")


def _closer_pattern(closer: str) -> str:
    """A closer and the punctuation that belongs to it: `});`; one that is a word ends where the word does."""
    return _word_pattern(closer) + r"[)\]};,]*"
