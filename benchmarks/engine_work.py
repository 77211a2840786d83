"""The prompts that engines are compared on: cut from this project's own files, by tokens, with the hole anchored.

A `Document` is a prompt and the keystrokes that follow: the hole begins at the end of a line, several lines are missing
from it, and their text is typed one to three tokens at a time. Every engine gets the same ids.
"""

from __future__ import annotations

import random
from itertools import accumulate, cycle, islice
from pathlib import Path

import attrs

from inference import starter
from inference.tokens import Tokens
from inference.wire import FimRequest, Stops

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("inference", "lsp_server", "benchmarks", "tests")
GROWTH = (1, 2, 3)
"""Tokens typed at a keystroke, in turn."""
MARKERS = 5
"""Control tokens of a prompt, and the first token typed."""


@attrs.frozen
class Prompt:
    """What one request asks: as text for this project's engine, as ids for the others."""

    request: FimRequest
    ids: list[int]

    def limited(self, tokens: int, session: str = "") -> FimRequest:
        """The request for at most so many tokens, all the text before the cursor taken as it stands."""
        return attrs.evolve(self.request, stops=Stops(max_tokens=tokens), session=session, heal=False)


@attrs.frozen
class Document:
    """A prompt, and what it becomes with each keystroke."""

    prompt: Prompt
    keys: list[Prompt]


class Library:
    """Cuts documents from files, each from another place. Seeded: the same seed gives the same documents."""

    def __init__(self, texts: list[str], seed: int):
        self.tokens = Tokens(starter.FOLDER / "tokenizer.json")
        self._markers = self.tokens.markers()
        self._chance = random.Random(seed)
        self._files = [text.split("\n") for text in texts]

    def document(self, size: int, keys: int, missing: int) -> Document:
        """A prompt of about `size` tokens, half of it suffix; `missing` tokens are wanted in the hole.

        Raises `ValueError` if no file is long enough.
        """
        for _ in range(1000):
            lines = self._chance.choice(self._files)
            if found := self._cut(lines, self._chance.randrange(len(lines)), size, keys, missing):
                return found
        raise ValueError(f"no file has room for a prompt of {size} tokens around a hole of {missing}")

    def _cut(self, lines: list[str], at: int, size: int, keys: int, missing: int) -> Document | None:
        half = (size - MARKERS) // 2
        before = self.tokens.encode("\n".join(lines[:at]))
        last, middle = at, list[int]()
        while last < len(lines) and len(middle) < missing:
            last += 1
            middle = self.tokens.encode("\n" + "\n".join(lines[at:last]))
        after = self.tokens.encode("\n" + "\n".join(lines[last:]))
        text = self._spelled(middle)
        if min(len(before), len(after)) < half or len(middle) < missing or not text.isascii():
            return None
        prefix, suffix = self._spelled(before[-half:]), self._spelled(after[:half])
        ends = accumulate(islice(cycle(GROWTH), keys), initial=1)
        prompts = [self._prompt(prefix, suffix, self._spelled(middle[:end])) for end in ends]
        return Document(prompts[0], prompts[1:])

    def _prompt(self, prefix: str, suffix: str, typed: str) -> Prompt:
        request = FimRequest(prefix, suffix, typed, heal=False)
        return Prompt(request, self.tokens.prompt(request, self._markers).ids)

    def _spelled(self, ids: list[int]) -> str:
        return self.tokens.decode(ids).decode("utf-8", "ignore")


def own_texts() -> list[str]:
    """This project's own source."""
    return [path.read_text("utf-8") for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def common(a: list[int], b: list[int]) -> int:
    """Length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
