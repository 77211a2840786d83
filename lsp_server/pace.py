"""When to ask: at once while answers come between two keys, else when the next key is likely to be later than one.

Nothing is fixed: the wait follows the user's rhythm and the time that the model takes, as both were of late.
"""

from __future__ import annotations

import statistics
from collections import deque

RHYTHM, ANSWERS = 32, 16
"""Times remembered."""
PAUSE_S = 1.5
"""From here on it was a pause for thought, not a key's distance from the next."""
ENOUGH = 8
"""Keys before there is a rhythm."""


class Pace:
    """One user's rhythm and one worker's speed. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=RHYTHM)
        self._took: deque[float] = deque(maxlen=ANSWERS)
        self._last = float("-inf")

    def key(self, now: float) -> None:
        """A key was struck."""
        gap, self._last = now - self._last, now
        if 0 < gap < PAUSE_S:
            self._gaps.append(gap)

    def answered(self, seconds: float) -> None:
        """The model took so long for an answer."""
        self._took.append(seconds)

    def delay(self, most: float) -> float:
        """Seconds to wait after a key, at most `most`, until the next one is rather later than an answer would be.

        Waiting is worth it only for an answer that the next key would most likely make void.
        """
        if len(self._gaps) < ENOUGH or not self._took or most <= 0:
            return 0.0
        took = statistics.median(self._took)
        gaps = sorted(self._gaps)
        for waited in (0.0, *(gap for gap in gaps if gap <= most)):
            later = [gap for gap in gaps if gap > waited]
            if sum(gap > waited + took for gap in later) * 2 >= len(later):
                return waited
        return most
