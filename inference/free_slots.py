"""The free slots of a KV pool as runs, so that what grows together lies together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from itertools import pairwise


class FreeSlots:
    """Runs [start, stop), none touching the next, to be found by place and by size in a few microseconds."""

    def __init__(self, slots: int):
        self.count = 0
        self._runs: list[tuple[int, int]] = []  # (start, stop), ascending
        self._sizes: list[tuple[int, int]] = []  # (stop - start, start), ascending
        self._put(0, slots)

    def take(self, count: int, after: int = -1) -> list[int]:
        """`count` of the free slots, ascending; there must be that many.

        They are those right behind slot `after` if these are free, else of the smallest run that has
        `count`, else of as few runs as will do.
        """
        if after >= 0 and (behind := bisect_right(self._runs, (after + 2, -1)) - 1) >= 0:
            start, stop = self._runs[behind]
            if stop - after > count:
                return self._cut(start, after + 1, count)
        taken: list[int] = []
        cuts = 0
        while (rest := count - len(taken)) > 0:
            fitting = bisect_left(self._sizes, (rest, -1))
            size, start = self._sizes[min(fitting, len(self._sizes) - 1)]
            taken += self._cut(start, start, min(size, rest))
            cuts += 1
        return sorted(taken) if cuts > 1 else taken

    def add(self, slots: list[int]) -> None:
        """Takes back slots that are not free, in any order."""
        slots = sorted(slots)
        places = range(len(slots))
        start = 0
        while start < len(slots):
            # Within a run slot and place grow alike; across a gap the slot grows more.
            stop = bisect_right(places, slots[start] - start, start, key=lambda place: slots[place] - place)
            self._put(slots[start], slots[stop - 1] + 1)
            start = stop

    def check(self) -> list[int]:
        """Raises AssertionError if the runs are not what they should be; returns all free slots, ascending."""
        assert all(start < stop for start, stop in self._runs), "a run is empty"
        assert all(one[1] < other[0] for one, other in pairwise(self._runs)), "two runs touch"
        assert self._sizes == sorted((stop - start, start) for start, stop in self._runs)
        assert self.count == sum(size for size, _ in self._sizes)
        return [slot for run in self._runs for slot in range(*run)]

    def _put(self, start: int, stop: int) -> None:
        if start == stop:
            return
        self.count += stop - start
        at = bisect_left(self._runs, (start, -1))
        if at < len(self._runs) and self._runs[at][0] == stop:
            stop = self._drop(at)[1]
        if at and self._runs[at - 1][1] == start:
            at -= 1
            start = self._drop(at)[0]
        self._runs.insert(at, (start, stop))
        insort(self._sizes, (stop - start, start))

    def _drop(self, at: int) -> tuple[int, int]:
        start, stop = run = self._runs.pop(at)
        del self._sizes[bisect_left(self._sizes, (stop - start, start))]
        return run

    def _cut(self, run: int, start: int, count: int) -> list[int]:
        """Takes `count` slots from `start` on out of the run that begins at `run`."""
        _, stop = self._drop(bisect_left(self._runs, (run, -1)))
        self.count -= stop - run
        self._put(run, start)
        self._put(start + count, stop)
        return list(range(start, start + count))
