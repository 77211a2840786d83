"""Gives memory that the C library keeps back to the system.

Of long work with objects of every size freed memory is left between live ones, page by page: 2 to 3 MB a minute of
typing without pauses, for as long as was measured.
"""

from __future__ import annotations

import ctypes
import sys
import time

EVERY = 30.0
"""Seconds between two times, as each takes up to 20 ms."""


class Allocator:
    """When to do so, and doing it. One thread calls it."""

    def __init__(self) -> None:
        # glibc's alone; other systems' libraries give back by themselves.
        library = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._trim = getattr(library, "malloc_trim", None)
        self._last = time.monotonic()
        self._used = False

    def used(self) -> None:
        """Something was computed since."""
        self._used = True

    def due(self) -> float | None:
        """After how many seconds the next time is; None: not before something was computed."""
        if self._trim is None or not self._used:
            return None
        return max(0.0, self._last + EVERY - time.monotonic())

    def give_back(self) -> None:
        """Gives back every whole page that is free, if it is due. For a moment in which nobody waits."""
        if self._trim is not None and self.due() == 0:
            self._trim(0)
            self._last, self._used = time.monotonic(), False
