"""The next completion, asked for before this one is accepted: on the document as it will be, in the background.

Its answer goes to the cache under the text that it is for, so nothing is shown unless the document becomes that text.
The worker serves it only while nobody waits, and any other question of the same document ends it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from lsp_server.asking import OTHERS, Asking
from lsp_server.session import Session
from lsp_server.suggestions import Suggestion
from lsp_server.text import Position, advance

OTHERS_FIRST = 0.2
"""Seconds for which other answers to what is shown go first: if no key has come by then, it is being read."""
LINES_LOOKED_AT = 200
"""Around the cursor, for the file's indentation."""
_ENDS_BLOCK = re.compile(r"\s*(return|pass|break|continue|raise)\b")


class LookAhead:
    """What is asked ahead for the documents of one server, one question a document at a time."""

    def __init__(self, asking: Asking):
        self.asking = asking
        self._numbers = itertools.count(1)

    def after(self, session: Session, suggestion: Suggestion) -> None:
        """Asks what comes after a suggestion that is shown; what comes after a part of it is known."""
        if not suggestion.looked_ahead and suggestion.visible >= len(suggestion.text):
            suggestion.looked_ahead = True
            task = self._start(session, self._look_behind(session, suggestion))
            task.add_done_callback(lambda _: setattr(suggestion, "looked_ahead", not task.cancelled()))

    def after_line(self, session: Session, cursor: Position) -> None:
        """Asks what comes on the next line, where nothing is to be added to this one."""
        self._start(session, self._look_below(session, cursor, session.document.version))

    def _start(self, session: Session, looking: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        session.stop_looking_ahead()
        session.looking_ahead = asyncio.ensure_future(looking)
        return session.looking_ahead

    async def _look_behind(self, session: Session, suggestion: Suggestion) -> None:
        await _others(session)
        region = suggestion.region  # it has followed what was typed meanwhile
        if not region.alive:
            return
        work = session.fork()
        cursor = await _insert(work, region.start, region.end, suggestion.text)
        if suggestion.ended and not _opens_block(work, cursor):
            self._note_nothing_at(work, cursor)
        elif not await self._nothing_at(session, work, cursor):
            return
        await self._next_line(session, work, cursor)

    async def _look_below(self, session: Session, cursor: Position, version: int) -> None:
        await _others(session)
        if session.document.version == version:
            await self._next_line(session, session.fork(), cursor)

    async def _next_line(self, session: Session, work: Session, cursor: Position) -> None:
        line = work.document.lines[cursor.line]
        if line.strip() and not line[cursor.column :].strip():
            cursor = await _insert(work, cursor, cursor, "\n" + indentation_after(work, cursor.line))
            await self._nothing_at(session, work, cursor)

    def _note_nothing_at(self, work: Session, cursor: Position) -> None:
        """Keeps that nothing is to be shown at a place: the model has said so already."""
        if self.asking.backend.ready is not None:
            key = self.asking.key(work, self.asking.hole(work, cursor))
            if key not in self.asking.cache:
                self.asking.cache.put(key, None)

    async def _nothing_at(self, session: Session, work: Session, cursor: Position) -> bool:
        """Asks at a place of the document as it will be; whether the answer is that nothing is to be shown."""
        asking = self.asking
        if asking.backend.ready is None:
            return False
        hole = asking.hole(work, cursor)
        key = asking.key(work, hole)
        if key in asking.cache:
            return not asking.cache.get(key)
        number = f"ahead {next(self._numbers)}"
        ahead = session.ahead = asking.ask(session, hole, number=number, work=work, alternatives=OTHERS)
        await ahead.wait()
        if session.ahead is ahead:
            session.ahead = None
        return ahead.complete and ahead.answer is None


async def _others(session: Session) -> None:
    """Other answers to what is shown are wanted sooner."""
    if session.generation:
        await session.generation.wait_for_others(OTHERS_FIRST)


async def _insert(work: Session, start: Position, end: Position, text: str) -> Position:
    """Makes an edit in a fork and brings its tree up to date in slices; where the text ends."""
    document = work.document
    written = text.replace("\n", document.line_break)
    work.follow(document.apply(*start, *end, written, "utf-32"))
    await work.parsed()
    return advance(start, text)


def _opens_block(work: Session, cursor: Position) -> bool:
    line = work.document.lines[cursor.line][: cursor.column]
    return work.language.block_after(work.language.split(line)[0]) is not None


def indentation_after(session: Session, row: int) -> str:
    """What an editor will put at the start of the line after `row`."""
    lines, language = session.document.lines, session.language
    line = lines[row]
    indentation = line[: len(line) - len(line.lstrip(" \t"))]
    code = language.split(line)[0]
    unit = _unit(lines, row)
    if language.block_after(code):
        return indentation + unit
    if code.rstrip().endswith(":") or not _ENDS_BLOCK.match(code) or language.name.lower() != "python":
        return indentation
    return indentation.removesuffix(unit)


def _unit(lines: list[str], row: int) -> str:
    """One level of indentation as the lines around have it; four spaces where they have none."""
    near = lines[max(0, row - LINES_LOOKED_AT) : row + LINES_LOOKED_AT]
    indented = [line[: len(line) - len(line.lstrip(" \t"))] for line in near if line.strip()]
    if any(text.startswith("\t") for text in indented):
        return "\t"
    steps = Counter(b - a for a, b in itertools.pairwise(map(len, indented)) if 1 < b - a <= 8)
    return " " * steps.most_common(1)[0][0] if steps else "    "
