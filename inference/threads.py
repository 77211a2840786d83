"""How many threads a forward on a CPU gets: all while the machine is idle, fewer while others need it.

A parallel region ends when its last thread does. On a busy machine that thread waits for its turn on a processor, at
each of a step's some hundred regions, so two threads can be many times slower than one.
"""

from __future__ import annotations

import os
import time

import psutil
import torch

INTERVAL = 0.05
"""Seconds between two looks at the machine."""
BUSY = 0.25
"""Processors' worth of others' work from which one thread less is used."""


class Threads:
    """Chooses before each forward; one thread calls it."""

    def __init__(self) -> None:
        self._most = torch.get_num_threads()
        self._process = psutil.Process(os.getpid())
        self._looked = 0.0
        self._before = self._used()
        self._current = self._most

    def choose(self) -> None:
        """Sets torch's threads for the next forward; looks at the machine at most once in `INTERVAL`."""
        now = time.monotonic()
        if now - self._looked < INTERVAL:
            return
        everyone, mine = self._used()
        elapsed, others = now - self._looked, (everyone - self._before[0]) - (mine - self._before[1])
        self._looked, self._before = now, (everyone, mine)
        wanted = max(1, self._most - round(others / elapsed + 0.5 - BUSY))
        if wanted != self._current:
            self._current = wanted
            torch.set_num_threads(wanted)

    def _used(self) -> tuple[float, float]:
        """Seconds of processor time, of everybody and of this process."""
        times = psutil.cpu_times()
        everyone = times.user + times.system + getattr(times, "nice", 0.0)
        mine = self._process.cpu_times()
        return everyone, mine.user + mine.system
