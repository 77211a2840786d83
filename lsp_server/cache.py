"""Answers of the model by the text around the cursor: whoever comes back to a text gets its answer at once."""

from __future__ import annotations

import hashlib

from cachetools import LRUCache

from lsp_server.hole import Hole
from lsp_server.suggestions import Rest

ANSWERS = 2_000
"""Kept over all documents: a few hundred characters each."""


class AnswerCache:
    """Answers by document and by everything that the model was shown, so that nothing else can be meant by a key.

    That there was nothing to show is an answer too. Texts are kept as digests; only answers stay readable.
    """

    def __init__(self) -> None:
        self._answers: LRUCache[bytes, tuple[Rest, ...]] = LRUCache(ANSWERS)

    def __contains__(self, key: bytes) -> bool:
        return key in self._answers

    def get(self, key: bytes) -> tuple[Rest, ...]:
        """The answer, then others that the model had; empty if there is none, or nothing was to be shown."""
        return self._answers.get(key, ())

    def put(self, key: bytes, answer: Rest | None) -> None:
        """Keeps an answer."""
        self._answers[key] = (answer,) if answer else ()

    def add(self, key: bytes, other: Rest) -> None:
        """Keeps another answer behind the one that is there."""
        if (answers := self.get(key)) and other not in answers:
            self._answers[key] = (*answers, other)

    def clear(self) -> None:
        """Forgets all: another model, or other settings."""
        self._answers.clear()


def key_of(uri: str, hole: Hole) -> bytes:
    """Names a document and both sides of a place in it, as far as the model is shown them.

    Where the anchor stands between them is left out: it moves while the text is the same.
    """
    parts = (uri, hole.prefix + hole.typed, hole.closers, hole.suffix)
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()
