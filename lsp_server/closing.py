"""One answer as it streams in: where it is complete, where it ends, and the edit that it becomes."""

from __future__ import annotations

from collections.abc import Sequence

from inference.wire import EndReason, Stops
from lsp_server.hole import Hole
from lsp_server.languages import Inside, Language
from lsp_server.shaping import Shaped, Shaping, shape


class Closing:
    """Follows the answer to one hole. `feed` it the stream, and `finish` it for the edit.

    `lines` are the document's as they were when the hole was cut; they must not change any more.
    """

    def __init__(
        self,
        hole: Hole,
        stops: Stops,
        lines: Sequence[str],
        language: Language,
        inside: Inside,
        shaping: Shaping,
    ):
        self._hole, self._stops, self._lines = hole, stops, lines
        self._language, self._inside, self._shaping = language, inside, shaping
        self.text = ""

    def feed(self, text: str) -> bool:
        """Adds streamed text; True once the answer is complete, so that the rest of the stream is not needed."""
        self.text += text
        return False

    def finish(self, reason: EndReason | None) -> Shaped | None:
        """The edit that the answer becomes; `reason` is the worker's for ending it, None if it was cut off here."""
        return shape(self.text, self._hole.closers, self._hole.rest)
