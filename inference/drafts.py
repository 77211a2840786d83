"""Guesses at the next tokens, for one forward to verify several: output never changes, only the number of forwards.

Two sources, both by the last tokens' last occurrence (prompt lookup decoding; Saxena 2023): what was suggested to the
same session before, whose tail is most often right again after a keystroke that departs from it, and the document.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from typing import Literal

import attrs
from cachetools import LRUCache

Origin = tuple[Literal["suggestion", "document"], int]
"""Where a draft comes from, and how many tokens agreed before it."""

LONGEST = 16
"""Most tokens of a draft."""
SUGGESTIONS = 4
"""Answers kept a session."""
OVERLAP = 4
"""Most tokens that have to agree; the more do, the better the guess."""
WIDTH = array("i").itemsize


@attrs.frozen
class Draft:
    """Tokens that may come next."""

    ids: list[int]
    origin: Origin


class Drafts:
    """What was suggested before, and how good guesses have been. One thread calls it."""

    def __init__(self) -> None:
        self._suggested: LRUCache[str, deque[bytes]] = LRUCache(maxsize=64)
        self._rates: dict[Origin, float] = {}

    def remember(self, session: str, ids: list[int], generated: int) -> None:
        """Keeps an answer: the last `generated` of `ids`, with the few tokens before them."""
        if session and generated:
            kept = self._suggested.setdefault(session, deque(maxlen=SUGGESTIONS))
            kept.appendleft(packed(ids[-generated - OVERLAP :]))

    def propose(self, session: str, context: bytes | bytearray, limit: int) -> Draft | None:
        """At most `limit` tokens that may follow `context` (ids as `packed`); None without a good guess."""
        limit = min(limit, LONGEST)
        if limit < 1:
            return None
        for overlap in range(min(OVERLAP, len(context) // WIDTH), 0, -1):
            tail = bytes(context[-overlap * WIDTH :])
            for suggestion in self._suggested.get(session, ()):
                if ids := _after(suggestion, tail, len(suggestion), limit):
                    return Draft(ids, ("suggestion", overlap))
            if overlap > 1 and (ids := _after(context, tail, len(context) - WIDTH, limit)):
                return Draft(ids, ("document", overlap))
        return None

    def rate(self, origin: Origin) -> float:
        """How likely the next token of such a draft is right, if those before it were."""
        return self._rates.get(origin, 0.8 if origin[0] == "suggestion" else 0.35 + 0.1 * origin[1])

    def learn(self, origin: Origin, accepted: int, refused: int) -> None:
        """Of a draft's tokens, `accepted` were right; the one after them was not, if `refused` is 1."""
        rate = self.rate(origin)
        for outcome in [1.0] * accepted + [0.0] * refused:
            rate += 0.08 * (outcome - rate)
        self._rates[origin] = min(0.98, max(0.05, rate))


def packed(ids: list[int]) -> bytes:
    """Ids as bytes of one width, so that looking for a run of them is a search for a substring."""
    return array("i", ids).tobytes()


def _after(text: bytes | bytearray, tail: bytes, end: int, limit: int) -> list[int]:
    """The tokens after the last occurrence of `tail` that ends before `end` with something behind it."""
    at = text.rfind(tail, 0, end)
    while at >= 0:
        if at % WIDTH == 0 and at + len(tail) < len(text):
            found = array("i")
            found.frombytes(bytes(text[at + len(tail) : at + len(tail) + limit * WIDTH]))
            return found.tolist()
        at = text.rfind(tail, 0, at + len(tail) - 1)
    return []


class Costs:
    """What forwards of 1 to `LONGEST` + 1 rows take, from those that were run: it decides how long drafts may be."""

    def __init__(self, known: Sequence[float] = ()) -> None:
        """`known`: milliseconds of 1, 2, 3 … rows, if they were measured before; else empty."""
        # Until measured: a row more costs 8 % of the first.
        self._ms = list(known[: LONGEST + 1]) or [1.0 + 0.08 * rows for rows in range(LONGEST + 1)]
        self._known = bool(known)
        self._seen = [False] * (LONGEST + 1)

    def saw(self, rows: int, ms: float) -> None:
        """A forward of so many rows took so long."""
        if self._known or rows > LONGEST + 1:
            return
        i = rows - 1
        if not any(self._seen):
            scale = ms / self._ms[i]
            self._ms = [scale * value for value in self._ms]
        self._ms[i] = ms if not self._seen[i] else self._ms[i] + 0.1 * (min(ms, 3 * self._ms[i]) - self._ms[i])
        self._seen[i] = True

    def best(self, rate: float, most: int) -> int:
        """The length of draft, 0 to `most`, that gives most tokens a millisecond at this rate of acceptance."""
        best, length, tokens, chance = 0.0, 0, 0.0, 1.0
        for drafted in range(min(most, LONGEST) + 1):
            tokens, chance = tokens + chance, chance * rate
            if tokens / self._ms[drafted] > best * 1.02:
                best, length = tokens / self._ms[drafted], drafted
        return length
