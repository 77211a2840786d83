"""One open document as completions see it: its mirror, its tree, its anchor, and what is known and asked about it."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any, Literal

from lsp_server.accept import Watch
from lsp_server.documents import Document
from lsp_server.hole import Anchor
from lsp_server.languages import Language, language_of
from lsp_server.suggestions import Suggestions
from lsp_server.syntax import SyntaxTree
from lsp_server.text import Edit

if TYPE_CHECKING:
    from lsp_server.generation import Generation

PARSE_SLICE = 0.002
"""Seconds of parsing at a time; the event loop runs in between."""
PARSE_DELAY = 0.03
"""Seconds after an edit before the tree is brought up to date: requests come first, on the tree as edited."""


class Session:
    """One open document.

    `waiting` is the request in hand, `generation` the model's work for it or its successors, `telling` waits for it to
    tell the client, `ahead` is the work for a text which the document may become.
    """

    def __init__(self, document: Document, layout: Literal["anchored", "psm"]):
        self.document = document
        self.language: Language = language_of(document.language_id, document.uri)
        self.tree = SyntaxTree(self.language, document)
        self.set_layout(layout)
        self.waiting: asyncio.Task[Any] | None = None
        self.generation: Generation | None = None
        self.telling: asyncio.Task[None] | None = None
        self.ahead: Generation | None = None
        self.looking_ahead: asyncio.Task[None] | None = None
        self.suggestions = Suggestions()
        self.watch: Watch | None = None
        self.asked_version = document.version
        self.chars_per_token = 0.0  # this document's own, once a prompt of it was too long
        self._parsing: asyncio.TimerHandle | None = None

    def set_layout(self, layout: Literal["anchored", "psm"]) -> None:
        """Where holes begin from now on."""
        self.anchor = Anchor(layout)

    def fork(self) -> Session:
        """The document as it is now, for work that goes on while it is edited; nothing is asked about the fork yet."""
        other = copy.copy(self)
        other.document = self.document.copy()
        other.tree = self.tree.fork(other.document)
        other.anchor = self.anchor.copy()
        other.waiting = other.telling = other.generation = other.ahead = other.looking_ahead = other._parsing = None
        other.suggestions, other.watch = Suggestions(), None
        return other

    def edited(self, edits: list[Edit]) -> None:
        """Follows the document; the request in hand is void, the model's work goes on while it agrees."""
        self.follow(edits)
        self.suggestions.edited(edits, self.document)
        if self.watch:
            self.watch.edited(edits, self.document)
        if self.generation:
            self.generation.edited(edits, self.document)
        self.supersede()
        self.parse_later(PARSE_DELAY)

    def follow(self, edits: list[Edit]) -> None:
        """Moves tree and anchor along with edits of the document."""
        for edit in edits:
            self.tree.edit(edit)
            self.anchor.edit(edit)

    def supersede(self) -> None:
        """Ends the request in hand; its caller answers null."""
        if self.waiting:
            self.waiting.cancel()
        if self.telling:
            self.telling.cancel()
        self.waiting = self.telling = None

    def stop(self) -> None:
        """Ends the request in hand and the model's work."""
        self.supersede()
        if self.generation:
            self.generation.cancel()
            self.generation = None
        self.stop_looking_ahead()

    def stop_looking_ahead(self) -> None:
        """Ends what is asked in the background for a text that the document may become."""
        if self.looking_ahead:
            self.looking_ahead.cancel()
        if self.ahead:
            self.ahead.cancel()
        self.looking_ahead = self.ahead = None

    def parse_later(self, delay: float = 0.0) -> None:
        """Brings the tree up to date in slices, between other work."""
        if self._parsing:
            self._parsing.cancel()
        self._parsing = asyncio.get_running_loop().call_later(delay, self._parse)

    async def parsed(self) -> None:
        """Brings the tree up to date in slices, as fast as other work allows."""
        while True:
            if self.tree.parse(PARSE_SLICE):
                return
            await asyncio.sleep(0)

    def _parse(self) -> None:
        self._parsing = None
        if not self.tree.parse(PARSE_SLICE):
            self.parse_later()

    def close(self) -> None:
        """Nothing of this document runs on."""
        self.stop()
        if self.watch:
            self.watch.end()
        if self._parsing:
            self._parsing.cancel()
