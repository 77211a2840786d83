"""How somebody types a text: the edits and cursor moves that fill the holes cut into a real file.

Seeded, so the same file, seed and answers give the same script; all its edits together give the file again. What is
shown as ghost text decides only whether a suggestion is accepted (it must be exactly the text to come).
"""

from __future__ import annotations

import random
import re
from collections.abc import Generator
from typing import Literal

import attrs

from lsp_server.suggestions import common

Kind = Literal[
    "arrive", "insert", "pair", "over", "newline", "typo", "backspace", "accept", "read", "rest", "look", "back"
]
Region = tuple[int, int]
"""Start and end in the original text, in characters."""

CLOSER_OF = {"(": ")", "[": "]", "{": "}"}
COMMENTS = ("#", "//", "--", "*", "/*", '"""', "'''")
_INDENTED = re.compile(r"^(\t| +)(?=[^\s*])", re.MULTILINE)
_LAST_OF_BLOCK = re.compile(r"(return|pass|break|continue|raise)\b")
GAP = 0.06
"""Seconds between an answer and the next key."""
READING = 0.5
"""Seconds that it takes to read a suggestion before it is accepted; users look longer (arXiv 2210.14306)."""
# Chances at a key.
TYPO, QUICK, REST, REST_AFTER_NEWLINE, LOOK, ACCEPT = 0.03, 0.06, 0.03, 0.25, 0.02, 0.5
# Shares of the holes; the rest are whole lines.
INNER, TAIL, TWO_LINES = 0.3, 0.3, 0.2


@attrs.frozen
class Answer:
    """Ghost text: `text` would replace the document from `start` to `end`."""

    start: int
    end: int
    text: str


@attrs.frozen
class Step:
    """One thing that the user does. Offsets are in characters, in the text before the step (`cursor`: after it)."""

    kind: Kind
    cursor: int
    edit: tuple[int, int, str] | None = None
    """Start, end, and the text put there."""
    asks: bool = True
    """A completion is asked for; otherwise the cursor only rests there."""
    waits: bool = True
    """The next key comes after the answer; otherwise at once, so that this request is superseded."""
    pause: float = GAP
    """Seconds before the next step."""


class Script:
    """The typing of one file, about `keystrokes` requests long."""

    def __init__(
        self,
        text: str,
        seed: str,
        keystrokes: int,
        *,
        before: int = 3000,
        after: int = 3000,
        accept: float = ACCEPT,
        wander: bool = True,
        lines: int = 0,
        language: str = "",
    ):
        """`before`, `after`: characters wanted on both sides of every hole, as far as the file has them.

        `accept`: how often a suggestion that is right is accepted. Without `wander` nobody rests or looks elsewhere.
        With `lines` every hole is so many whole lines: somebody writes on for a while, and the editor indents each
        line as it sees fit for `language`, which the user then puts right.
        """
        self.original, self._accept, self._wanders = text, accept, wander
        self._lines, self._language = lines, language
        self._chance = random.Random(seed)
        self.regions = sorted(self._choose(keystrokes, before, after))
        self.text = self.holed = self._without(self.regions)

    def steps(self) -> Generator[Step, Answer | None, None]:
        """Yields each step; wants the answer that was shown sent back (None for nothing)."""
        waiting = list(self.regions)
        self._chance.shuffle(waiting)
        while waiting:
            start, end = waiting.pop()
            place = start - sum(e - s for s, e in waiting if e <= start)
            yield from self._fill(place, self.original[start:end])

    def _choose(self, keystrokes: int, before: int, after: int) -> list[Region]:
        """Holes that take about as many keystrokes to fill."""
        lines = self.original.split("\n")
        starts = [0]
        for line in lines:
            starts.append(starts[-1] + len(line) + 1)
        size = len(self.original)
        low, high = min(before, size // 3), size - min(after, size // 3)
        places = [i for i in range(1, len(lines)) if low <= starts[i] and starts[i + 1] <= high and _is_code(lines[i])]
        self._chance.shuffle(places)
        chosen: list[Region] = []
        left = keystrokes + keystrokes // 4  # a part will be accepted
        for i in places:
            region = self._region(lines, starts, i)
            keys = _keys(self.original[region[0] : region[1]])
            apart = all(region[1] + 80 < s or e + 80 < region[0] for s, e in chosen)
            if apart and min(12, left // 2) <= keys <= left + (8 if not self._lines else 40 * self._lines):
                chosen.append(region)
                left -= keys
            if chosen and left <= 4:
                break
        return chosen

    def _region(self, lines: list[str], starts: list[int], i: int) -> Region:
        """A hole at line `i`: what stands in its brackets, its end, all of it, or the next line too."""
        kind, start, end = self._chance.random(), starts[i], starts[i + 1] - 1
        if self._lines:
            return start - 1, starts[min(i + self._lines, len(lines))] - 1
        open_, close = lines[i].find("("), lines[i].rfind(")")
        if kind < INNER and 0 < open_ < close - 6:
            return start + open_ + 1, start + close
        if kind < INNER + TAIL:
            return self._chance.randrange(start + _indentation(lines[i]) + 2, end - 4), end
        if kind > 1 - TWO_LINES and i + 1 < len(lines) and _is_code(lines[i + 1]):
            end = starts[i + 2] - 1
        return start - 1, end

    def _without(self, regions: list[Region]) -> str:
        kept, at = "", 0
        for start, end in regions:
            kept += self.original[at:start]
            at = end
        return kept + self.original[at:]

    def _fill(self, head: int, missing: str) -> Generator[Step, Answer | None, None]:
        """Types `missing` at `head`: `done` characters of it stand there, and auto-closed ones at `pending`."""
        done, pending = 0, list[int]()
        yield Step("arrive", head, asks=False, pause=self._chance.uniform(0.2, 0.8))
        while done < len(missing):
            cursor, char = head + done, missing[done]
            waits = self._chance.random() >= QUICK
            if done in pending:
                pending.remove(done)
                done += 1
                answer = yield Step("over", cursor + 1, waits=True)
            elif char == "\n":
                done, answer = yield from self._newline(head, missing, done)
                if self._wanders and self._chance.random() < REST_AFTER_NEWLINE:
                    yield Step("rest", head + done, asks=False, pause=self._chance.uniform(0.2, 0.8))
            elif (match := _match(missing, done, pending)) is not None and _free(self.text, cursor, pending):
                pending.append(match)
                done += 1
                answer = yield self._edit("pair", cursor, cursor, char + missing[match], cursor + 1, waits=waits)
            else:
                if char.isalpha() and self._chance.random() < TYPO:
                    yield self._edit("typo", cursor, cursor, self._chance.choice("etaoinsr_"), cursor + 1)
                    yield self._edit("backspace", cursor, cursor + 1, "", cursor)
                done += 1
                answer = yield self._edit("insert", cursor, cursor, char, cursor + 1, waits=waits)
            length = _fits(answer, head, missing, done, pending)
            if answer and length and self._chance.random() < self._accept:
                done += length
                pending = [i for i in pending if i >= done]
                yield Step("read", head + done - length, asks=False, pause=READING)
                yield self._edit("accept", answer.start, answer.end, answer.text, head + done)
            if self._wanders:
                yield from self._wander(head + done)

    def _newline(self, head: int, missing: str, done: int) -> Generator[Step, Answer | None, tuple[int, Answer | None]]:
        """Line breaks with what the editor puts behind them, and what puts that right; what is done then."""
        extra, put, wanted, shared = "", "", "", 0
        answer: Answer | None = None
        while missing.startswith("\n", done):
            cursor = head + done
            wanted = missing[done + 1 :][: _indentation(missing[done + 1 :])]
            if not self._lines:
                put = wanted
            elif not extra:  # else it stands on a line of blanks, which is emptied and leaves them to the next
                put = _auto_indentation(self.text, cursor, self._language)
            answer = yield self._edit("newline", cursor, cursor + len(extra), "\n" + put, cursor + 1 + len(put))
            shared = common(put, wanted)
            done += 1 + shared
            extra = put[shared:]
        cursor, lacking = head + done, wanted[shared:]
        if lacking:
            done += len(lacking)
            answer = yield self._edit("insert", cursor, cursor + len(extra), lacking, head + done)
        elif extra and missing[done : done + 1] in (*CLOSER_OF.values(),):  # the editor moves these by itself
            done += 1
            answer = yield self._edit("insert", cursor, cursor + len(extra), missing[done - 1], head + done)
        elif extra:
            answer = yield self._edit("backspace", cursor, cursor + len(extra), "", cursor)
        return done, answer

    def _wander(self, cursor: int) -> Generator[Step, Answer | None, None]:
        """Sometimes the hand rests, or the eye goes elsewhere and the cursor with it."""
        if self._chance.random() < REST:
            yield Step("rest", cursor, asks=False, pause=self._chance.uniform(0.2, 0.8))
        if self._chance.random() < LOOK:
            elsewhere = self._chance.randrange(len(self.text))
            yield Step("look", elsewhere, asks=False, pause=self._chance.uniform(0.3, 0.9))
            yield Step("back", cursor)

    def _edit(self, kind: Kind, start: int, end: int, new: str, cursor: int, *, waits: bool = True) -> Step:
        self.text = self.text[:start] + new + self.text[end:]
        return Step(kind, cursor, (start, end, new), waits=waits, pause=GAP if waits else 0.0)


def _is_code(line: str) -> bool:
    code = line.strip()
    return line[:1] in " \t" and 10 <= len(code) <= 70 and not code.startswith(COMMENTS)


def _indentation(text: str) -> int:
    return len(text) - len(text.lstrip(" \t"))


def _auto_indentation(text: str, cursor: int, language: str) -> str:
    """What editors put at the start of a new line: more after an opener, less where a Python block ends."""
    line = text[text.rfind("\n", 0, cursor) + 1 : cursor]
    code, indentation = line.strip(), line[: _indentation(line)]
    first = _INDENTED.search(text)
    unit = first.group() if first else "    "
    if code.endswith((*CLOSER_OF, ":")):
        return indentation + unit
    if language == "python" and _LAST_OF_BLOCK.match(code):
        return indentation.removesuffix(unit)
    return indentation


def _keys(missing: str) -> int:
    """Keys that it takes to type a text: a line break brings its indentation."""
    return sum(1 + len(line.lstrip(" \t")) for line in missing.split("\n")) - 1


def _match(missing: str, at: int, pending: list[int]) -> int | None:
    """Where on this line the bracket at `at` is closed, before what is closed already; None: it is no bracket."""
    closer = CLOSER_OF.get(missing[at])
    depth = 0
    for i in range(at, min([len(missing), *pending])) if closer else ():
        if missing[i] == "\n":
            return None
        depth += (missing[i] == missing[at]) - (missing[i] == closer)
        if depth == 0:
            return i
    return None


def _free(text: str, cursor: int, pending: list[int]) -> bool:
    """Whether an editor would close a bracket by itself here: nothing but space or closers follow."""
    return bool(pending) or cursor == len(text) or text[cursor] in " \t\n)]};,"


def _fits(answer: Answer | None, head: int, missing: str, done: int, pending: list[int]) -> int:
    """How much of the text to come the answer is, 0 unless it is that exactly and covers what it closes."""
    if answer is None or answer.start != head + done or not missing.startswith(answer.text, done):
        return 0
    covered = sum(i < done + len(answer.text) for i in pending)
    return len(answer.text) if len(answer.text) >= 2 and answer.end - answer.start == covered else 0


def position(text: str, offset: int) -> tuple[int, int]:
    """Line and UTF-16 character of an offset, as LSP counts them."""
    start = text.rfind("\n", 0, offset) + 1
    return text.count("\n", 0, offset), len(text[start:offset].encode("utf-16-le")) // 2


def offset(text: str, line: int, character: int) -> int:
    """The reverse of `position`."""
    start = 0
    for _ in range(line):
        start = text.index("\n", start) + 1
    end = text.find("\n", start)
    units = text[start : end if end >= 0 else len(text)].encode("utf-16-le")[: 2 * character]
    return start + len(units.decode("utf-16-le"))
