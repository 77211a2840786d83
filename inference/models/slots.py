"""The slots of one sequence in the pool, as runs: long ones are read where they stand, scattered ones are gathered."""

from __future__ import annotations

import torch
from torch import Tensor

LONG = 64
"""Slots of a run from which a view beats gathering it together with its neighbours."""


class Slots:
    """Slot of each token in order; a `rows.Context`."""

    def __init__(self, slots: list[int], device: str):
        self._device = device
        self._slots: list[int] = []
        self._runs: list[list[int]] = []  # [first, past the last]; on a CPU only
        self._parts: list[slice | Tensor] | None = None
        self.extend(slots)

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def all(self) -> list[int]:
        """Every slot in order; not to be changed."""
        return self._slots

    def extend(self, more: list[int]) -> None:
        """Adds the slots of the tokens that follow."""
        self._slots += more
        self._parts = None
        if self._device != "cpu":
            return
        at = 0
        while at < len(more):
            end = _run(more, at)
            first, past = more[at], more[end - 1] + 1
            if self._runs and self._runs[-1][1] == first:
                self._runs[-1][1] = past
            else:
                self._runs.append([first, past])
            at = end

    def cut(self, length: int) -> list[int]:
        """Keeps the first `length`; returns the slots of the others."""
        dropped = self._slots[length:]
        del self._slots[length:]
        self._parts = None
        left = len(dropped) if self._device == "cpu" else 0
        while left:
            first, past = self._runs[-1]
            if past - first > left:
                self._runs[-1][1] = past - left
                break
            left -= past - first
            self._runs.pop()
        return dropped

    def parts(self, layer: Tensor) -> list[Tensor]:
        """See `rows.Context`."""
        if self._parts is None:
            self._parts = self._divided()
        return [layer[part] if isinstance(part, slice) else layer.index_select(0, part) for part in self._parts]

    def spans(self, pool: Tensor) -> list[Tensor]:
        """See `rows.Context`."""
        if self._parts is None:
            self._parts = self._divided()
        return [pool[:, part] if isinstance(part, slice) else part for part in self._parts]

    def _divided(self) -> list[slice | Tensor]:
        if self._device != "cpu":
            one = _run(self._slots, 0) == len(self._slots)
            run = slice(self._slots[0], self._slots[-1] + 1)
            return [run if one else torch.tensor(self._slots, device=self._device)]
        found: list[slice | Tensor] = []
        scattered: list[list[int]] = []
        for run in [*self._runs, [0, LONG]]:
            if run[1] - run[0] < LONG:
                scattered.append(run)
                continue
            if len(scattered) == 1:
                found.append(slice(*scattered[0]))
            elif scattered:
                found.append(torch.tensor([slot for first, past in scattered for slot in range(first, past)]))
            scattered = []
            found.append(slice(*run))
        return found[:-1]


def _run(slots: list[int], at: int) -> int:
    """End of the run of neighbouring slots that begins at index `at`; by bisection, as runs are long."""
    low, high = at + 1, len(slots)
    if slots[-1] - slots[at] == high - 1 - at and slots[at:high] == list(range(slots[at], slots[at] + high - at)):
        return high
    while low < high and slots[low] == slots[low - 1] + 1:
        low += 1
    return low
