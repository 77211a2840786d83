"""What one forward of a model over a pool of keys and values computes: rows of several sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
from torch import Tensor

from inference.models import GivenUp


class Context(Protocol):
    """Where what is kept of one sequence's tokens stands in the pool, in order."""

    def parts(self, layer: Tensor) -> list[Tensor]:
        """Of a layer's [slots, values], the sequence's rows: a few tensors, views where memory allows."""
        ...

    def spans(self, pool: Tensor) -> list[Tensor]:
        """The same of all layers' [layers, slots, values]: views, or the numbers of some slots to gather."""
        ...


@attrs.frozen
class Group:
    """The rows of one sequence, its newest tokens: `count` rows from row `start` on."""

    start: int
    count: int
    outputs: int
    """Of its rows the last so many are wanted."""
    context: Context


@attrs.frozen
class Rows:
    """What one forward computes, on the model's device."""

    ids: Tensor  # int64 [n]
    positions: Tensor  # int64 [n]
    slots: Tensor  # int64 [n]
    groups: list[Group]
    outputs: Tensor  # int64: the rows whose logits are wanted, of each group the last few
    unwanted: Callable[[], bool] = lambda: False

    def go_on(self) -> None:
        """Raises `GivenUp` if nobody wants these rows any more; a long forward asks between two layers."""
        if self.unwanted():
            raise GivenUp

    def last_only(self) -> list[Group]:
        """The groups reduced to their outputs, one behind the other."""
        groups: list[Group] = []
        for group in self.groups:
            start = groups[-1].start + groups[-1].count if groups else 0
            groups.append(attrs.evolve(group, start=start, count=group.outputs))
        return groups
