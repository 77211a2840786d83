"""How a forward on a CPU uses several threads: all while the machine is idle, fewer while others need it.

A parallel region ends when its last thread does, and torch makes one of every operation: that thread's turn on a
processor, on a busy machine, or its share of the data, where processors have caches of their own, is waited for at each
of some hundred regions. So work that comes in pieces is handed out: each piece is computed by one thread alone.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

import psutil
import torch

INTERVAL = 0.05
"""Seconds between two looks at the machine."""
BUSY = 0.25
"""Processors' worth of others' work from which one thread less is used."""
MOST = torch.get_num_threads()
"""As many as torch would take; read before anything here changes it."""
MULTIPLE = 16
"""Blocks are of a multiple of so many rows, to which `int8_cpu.many_product` fills them up."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Threads:
    """The calling thread and some helpers; one thread calls it at a time."""

    def __init__(self, most: int = MOST) -> None:
        """`most`: threads at once; 1, as for a model that is not on a CPU, leaves torch's setting alone."""
        self._most = self.count = most
        self._process = psutil.Process(os.getpid())
        self._looked = 0.0
        self._before = self._used()
        self._helpers: list[_Helper] = []

    def choose(self) -> None:
        """Settles `count` for the next forward; looks at the machine at most once in `INTERVAL`."""
        now = time.monotonic()
        if now - self._looked < INTERVAL:
            return
        everyone, mine = self._used()
        elapsed, others = now - self._looked, (everyone - self._before[0]) - (mine - self._before[1])
        self._looked, self._before = now, (everyone, mine)
        self.count = max(1, self._most - round(others / elapsed + 0.5 - BUSY))

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """What `work` makes of each item: of several each in one thread, of a single one in all of them together.

        Raises what one of them raised, once all have ended.
        """
        if self._most > 1 and torch.get_num_threads() != (wanted := self.count if len(items) == 1 else 1):
            torch.set_num_threads(wanted)  # of this thread, and so it stays: the next forward is mostly alike
        helping = min(self.count, len(items)) - 1
        if helping < 1:
            return [work(item) for item in items]
        while len(self._helpers) < helping:
            self._helpers.append(_Helper())
            weakref.finalize(self, self._helpers[-1].end)
        left, made = deque(enumerate(items)), dict[int, Result]()

        def take() -> None:
            while left:
                try:
                    place, item = left.popleft()
                except IndexError:  # another took the last
                    return
                made[place] = work(item)

        for helper in self._helpers[:helping]:
            helper.todo.put(take)
        try:
            take()
        finally:
            left.clear()
            ended = [helper.ended.get() for helper in self._helpers[:helping]]
        for error in filter(None, ended):
            raise error
        return [made[place] for place in range(len(items))]

    def blocks(self, rows: int, most: int) -> list[slice]:
        """`rows` in blocks of at most `most`, about alike, equally many a thread; larger ones first."""
        number = self.count * math.ceil(rows / (self.count * most))
        edges = [MULTIPLE * (math.ceil(rows / MULTIPLE) * i // number) for i in range(number)] + [rows]
        found = [slice(first, past) for first, past in itertools.pairwise(edges) if past > first]
        return sorted(found, key=lambda block: block.start - block.stop)

    def _used(self) -> tuple[float, float]:
        """Seconds of processor time, of everybody and of this process."""
        times = psutil.cpu_times()
        everyone = times.user + times.system + getattr(times, "nice", 0.0)
        mine = self._process.cpu_times()
        return everyone, mine.user + mine.system


class _Helper:
    """A thread that computes alone; asked through a queue, which is sooner than a future of the standard library."""

    def __init__(self) -> None:
        self.todo, self.ended = SimpleQueue[Callable[[], None] | None](), SimpleQueue[BaseException | None]()
        self._thread = threading.Thread(target=_help, args=(self.todo, self.ended), name="compute", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Waits for it, as torch ends the process if a thread of its own is still there."""
        self.todo.put(None)
        self._thread.join()


@torch.inference_mode()
def _help(todo: SimpleQueue[Callable[[], None] | None], ended: SimpleQueue[BaseException | None]) -> None:
    torch.set_num_threads(1)
    while take := todo.get():
        error = None
        try:
            take()
        except BaseException as raised:  # noqa: BLE001  raised again where it is waited for
            error = raised
        del take
        ended.put(error)
