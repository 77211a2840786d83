"""Ids of long texts that come again a little changed, made line by line.

A text seen before is kept as chunks of whole lines. A new text is compared with it chunk by chunk, from both ends, and
only the lines between are looked up, so that a keystroke in a long file costs a comparison and a few lines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TypeVar

import attrs
from cachetools import LRUCache

T = TypeVar("T")

CHUNK = 2048
"""Characters; a chunk ends at the first line break from there on."""
TEXTS = 8
"""Texts remembered: the prefixes and suffixes of a few documents."""
LIMIT = 4_000_000
"""Characters of all lines cached, and of all texts remembered; ids take about ten bytes a character of code."""
ENTRY = 64
"""What a cached line counts besides its characters: a short line's entry is mostly overhead."""


@attrs.frozen
class Run:
    """Some text and its ids, which nobody changes: in the cache one line, while a text is cut some whole lines."""

    text: str
    ids: list[int]


@attrs.frozen
class Chunk:
    """Whole lines of a remembered text, and how many ids they are."""

    text: str
    tokens: int


@attrs.define(eq=False)
class Remembered:
    """A text up to its last line break. No two neighbouring chunks are both short (see `CHUNK`)."""

    chunks: list[Chunk] = attrs.field(factory=list[Chunk])
    ids: list[int] = attrs.field(factory=list[int])
    size: int = 0  # characters

    def copy(self) -> Remembered:
        return Remembered(self.chunks.copy(), self.ids.copy(), self.size)


@attrs.frozen
class Shared:
    """What a text has in common with `old`: its first `head` chunks and its last `tail` chunks.

    Between them lies `text[start:stop]`, whole lines.
    """

    old: Remembered
    head: int
    tail: int
    start: int
    stop: int

    @property
    def between(self) -> int:
        return self.stop - self.start


class Lines:
    """Encodes texts by line, or whole where lines depend on each other (see `independent`). One thread owns it.

    A line, or whole text, of more than a quarter of `limit` characters is encoded anew each time.
    """

    def __init__(self, encode: Callable[[str], list[int]], by_line: bool, chunk: int = CHUNK, limit: int = LIMIT):
        self._encode, self._by_line, self._chunk, self._limit = encode, by_line, chunk, limit
        self._cache: LRUCache[str, Run] = LRUCache(limit, getsizeof=lambda run: ENTRY + len(run.text))
        self._recent: deque[Remembered] = deque()  # the latest last

    def append(self, ids: list[int], text: str, last: str | None = None) -> None:
        """Appends to `ids` those of `text`; `last`, if given, stands for what follows its last line break."""
        end = text.rfind("\n") + 1
        last = text[end:] if last is None else last
        if not self._by_line:
            ids += self._ids(text[:end] + last)
            return
        if self._chunk <= end <= self._limit:
            ids += self._remember(text, end).ids  # the one copy of a long list
        else:
            ids += [i for run in self._cut(text[:end]) for i in run.ids]
        if last:
            ids += self._ids(last)

    def _remember(self, text: str, end: int) -> Remembered:
        """`text[:end]`, whole lines; takes the place of an older text of which it holds more than half."""
        nothing = Shared(Remembered(), 0, 0, 0, end)
        best = min(
            (_shared(old, text, end, self._chunk) for old in self._recent),
            key=lambda shared: shared.between,
            default=nothing,
        )
        runs = self._cut(text[best.start : best.stop])
        latest = best.old
        if 2 * (end - best.between) > latest.size > 0:
            self._recent.remove(latest)
        else:
            latest = latest.copy()
        before = sum(chunk.tokens for chunk in latest.chunks[: best.head])
        after = len(latest.chunks) - best.tail
        changed = sum(chunk.tokens for chunk in latest.chunks[best.head : after])
        latest.ids[before : before + changed] = [i for run in runs for i in run.ids]
        latest.chunks[best.head : after] = [Chunk(run.text, len(run.ids)) for run in runs]
        latest.size = end
        self._recent.append(latest)
        while len(self._recent) > TEXTS or sum(remembered.size for remembered in self._recent) > self._limit:
            self._recent.popleft()
        return latest

    def _cut(self, text: str) -> list[Run]:
        """Whole lines as runs, all but the last of at least a chunk's size."""
        runs: list[Run] = []
        start = 0
        while start < len(text):
            stop = text.find("\n", start + self._chunk - 1) + 1 or len(text)
            run = text[start:stop]
            runs.append(Run(run, [i for line in split(run) for i in self._ids(line)]))
            start = stop
        return runs

    def _ids(self, line: str) -> list[int]:
        run = self._cache.get(line)
        if run is None:
            run = Run(line, self._encode(line))
            if len(line) <= self._limit // 4:
                self._cache[line] = run
        return run.ids


def _shared(old: Remembered, text: str, end: int, short: int) -> Shared:
    """What `text[:end]` and `old` share, less a chunk below `short` at either edge, which is to grow."""
    chunks, head, tail, start, stop = old.chunks, 0, 0, 0, end
    # Slices compare faster than startswith where one text has wider characters than the other.
    while head < len(chunks):
        after = start + len(chunks[head].text)
        if text[start:after] != chunks[head].text:
            break
        head, start = head + 1, after
    while tail < len(chunks) - head:
        chunk = chunks[-1 - tail].text
        before = stop - len(chunk)
        begins_a_line = before == start or text[before - 1 : before] == "\n"
        if before < start or not begins_a_line or text[before:stop] != chunk:
            break
        tail, stop = tail + 1, before
    if head == len(chunks) and start == stop:
        return Shared(old, head, tail, start, stop)
    if head and len(chunks[head - 1].text) < short:
        head, start = head - 1, start - len(chunks[head - 1].text)
    if tail and len(chunks[-tail].text) < short:
        tail, stop = tail - 1, stop + len(chunks[-tail].text)
    return Shared(old, head, tail, start, stop)


def split(text: str) -> list[str]:
    """Lines with their line breaks; only "\\n" is one."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def independent(make: Callable[[str], Sequence[T]], literals: Iterable[str]) -> bool:
    """Whether `make` gives for every tricky text what it gives for its lines, one after the other.

    `make` is a tokenizer's way from text to ids, or to pre-tokens; `literals` are strings that it treats specially.
    """
    by_line = cache(make)
    return all(
        list(make(text)) == [item for line in split(text) for item in by_line(line)] for text in _tricky(literals)
    )


def _tricky(literals: Iterable[str]) -> Iterator[str]:
    blanks = ["", " ", "  ", "    ", "\t", " \t", "\r", "\f", "\v", "\x85", "\xa0", "\u2028", "\u3000"]
    marks = ["a", "A1", "7", "1234", "_", "(", ");", "}", "#", "'", "'s", '"""', "é", "\u0301", "漢字", "ไทย", "😀"]
    mixed = [" a", "    a", "\ta", "\r7", " (", "  }", "\x00", "\ufeff", "👩\u200d💻"]
    mixed += ["a ", "a\t", ");   ", "7 ", "}\r", "é\u2028"]
    common = ["", " ", "    ", "\t", "\r", "a", "7", ");", "é", "😀"]
    for part in (*blanks, *marks, *mixed):
        yield from (part, f"{part}\n", f"\n{part}", f"a\n{part}", f"{part}\na")
    lines = (*blanks, *marks, *mixed)
    yield "".join(f"{above}\n{below}\n" for above in lines for below in lines)
    for end in ("\n\n", "\n\n\n", "\r\n", "\n\r", "\n \n"):
        yield "".join(f"{above}{end}{below}\n" for above in common for below in common)
    for count in (4, 7, 8, 15, 16, 32):
        yield "\n" * count
        yield "a" + "\n" * count + " " * count + "\n" + " " * count + "a"
    for literal in literals:
        yield f"a\n {literal} \n{literal}\n \n{literal}"
