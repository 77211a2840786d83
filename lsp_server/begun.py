"""What can be shown of an answer while the model still says it: the words that are certain to come next."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from lsp_server.confidence import sure_head, threshold_at
from lsp_server.documents import Document
from lsp_server.generation import Generation
from lsp_server.session import Session
from lsp_server.suggestions import CLOSING, Region, Rest, Suggestion, loose
from lsp_server.text import Position

NEAR = 8
"""Lines below the cursor of which the first that is not blank is looked at."""
_UNFINISHED_WORD = re.compile(r"\w+\Z")


def begun(session: Session, cursor: Position, usual: float, on_more: Callable[[], None]) -> Rest | None:
    """What is certain to come next of the answer in hand; None where it has to be waited for.

    `usual`: the confidence wanted where nothing says otherwise. Once there is an answer that says more, and nothing
    else has been asked since, `on_more` is called.
    """
    running, document = session.generation, session.document
    assert running
    line = document.lines[cursor.line]
    wanted = threshold_at(line[: cursor.column], running.hole.rest, usual)
    shown = running.begun and running.begun.rest(document, cursor)
    found = _sure_words(running, document, cursor, wanted)
    if found and (running.begun is None or len(found.text) > len(running.begun.text)):
        running.show_begun(found)
        shown = found.rest(document, cursor)
    if not shown or not shown.text:
        return None
    session.telling = asyncio.ensure_future(_tell(running, on_more))
    return shown


async def _tell(running: Generation, on_more: Callable[[], None]) -> None:
    await running.wait()
    if running.answer and running.begun and running.answer.text != running.begun.text:
        on_more()


def _sure_words(generation: Generation, document: Document, cursor: Position, threshold: float) -> Suggestion | None:
    """The sure words at `cursor` of what has been streamed so far; None where the answer may yet be another.

    That is where it may be shaped by the text around it: behind the cursor, at the line's start, or when the line would
    become one that stands next to it.
    """
    region, lines = generation.region, document.lines
    parts = region.split(document, cursor) if region else None
    before = lines[cursor.line][: cursor.column]
    if region is None or parts is None or generation.explicit or generation.hole.rest.strip() or not before.strip():
        return None
    typed, after = parts
    if after.strip(CLOSING):  # the cursor has gone back into what was typed
        return None
    left = generation.text[len(typed) :]
    if "\n" not in left:
        left = _UNFINISHED_WORD.sub("", left)
    head = sure_head(left, generation.said, threshold, len(typed))
    if not head.strip() or loose(head):
        return None
    line = (before + head).strip()
    below = next((text.strip() for text in lines[cursor.line + 1 : cursor.line + NEAR] if text.strip()), "")
    above = lines[cursor.line - 1].strip() if cursor.line else ""
    if below.startswith(line) or above.startswith(line):
        return None
    text = typed + head
    at = Region(region.start, cursor)
    return Suggestion(text, at, said=tuple(generation.said), visible=len(text), looked_ahead=True)
