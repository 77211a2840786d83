"""What DeepSeek-V2 and Llama have in common: layers of attention and feed-forward over a pool of what is kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from inference.checkpoint import Int8
from inference.models import many_rows
from inference.models.attention import rms_norm
from inference.models.feed_forward import FeedForward
from inference.models.few_rows import FewRows
from inference.models.int8_cpu import BLOCK, PACKED_ROWS
from inference.models.matrices import Matrix, embed, many_of
from inference.models.rows import Rows
from inference.threads import Threads

ALONE = 128
"""Rows from which threads that compute some each, alone, are faster than threads that share each operation."""


class Layer(Protocol):
    """What follows a layer's attention."""

    @property
    def output(self) -> Matrix: ...
    @property
    def feed_norm(self) -> Tensor: ...
    @property
    def feed(self) -> Callable[[Tensor], Tensor]: ...


class Layered:
    """A model's forward. Thread-safe only for one caller at a time."""

    config: Any
    norm: Tensor
    head: Matrix
    rotations: Tensor  # complex [window, rotated values / 2]
    dtype: torch.dtype
    layers: Any  # of `Layer`
    _embedding: Tensor | Int8
    _few: FewRows | None

    def __init__(self, device: str):
        self.device = device
        self.threads = Threads() if self._kind == "cpu" else Threads(1)

    @property
    def _kind(self) -> str:
        return self.device.partition(":")[0]

    @torch.inference_mode()
    def forward(self, pool: Tensor, rows: Rows) -> Tensor:
        """Logits, float32 [outputs, vocab]. Writes what is kept of the rows into `pool` [layers, slots, values]."""
        if self._few is not None and len(rows.ids) <= PACKED_ROWS:
            return self.threads.each(functools.partial(self._through_few, self._few, pool), [rows])[0]
        x, rotations = self._enter(rows)
        for i, layer in enumerate(self.layers):
            rows.go_on()
            last = layer is self.layers[-1]  # beyond what is kept there only the outputs count
            attended = self._attention(layer, x, pool[i], rows, rotations, outputs_only=last)
            x = x[rows.outputs] if last else x
            self._feed(layer, x, attended)
        return self._leave(x)

    def _enter(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """[n, hidden] and rotations [n, 1, rotated values / 2]."""
        return embed(self._embedding, rows.ids, self.dtype), self.rotations[rows.positions][:, None]

    def _through_few(self, few: FewRows, pool: Tensor, rows: Rows) -> Tensor:
        return self._leave(few(pool, rows, *self._enter(rows)))

    def _leave(self, x: Tensor) -> Tensor:
        return self.head(rms_norm(x, self.norm, self.config.rms_norm_eps)).float()

    def _attention(
        self, layer: Any, x: Tensor, pool: Tensor, rows: Rows, rotations: Tensor, *, outputs_only: bool
    ) -> Tensor:
        """[n, hidden] → [n, h * values of a head], or only for the outputs."""
        raise NotImplementedError

    def _feed(self, layer: Layer, x: Tensor, attended: Tensor) -> None:
        """Rows [n, hidden] through what follows a layer's attention, in place."""
        eps, feed = self.config.rms_norm_eps, layer.feed
        dense = isinstance(feed, FeedForward)
        many = many_of([layer.output, feed.gate_up, feed.down]) if dense else None

        def through(mine: slice) -> None:
            some = x[mine]
            if many and len(some) > PACKED_ROWS:
                many_rows.feed(some, attended[mine], layer.feed_norm, many, eps)
            else:
                some += layer.output(attended[mine])
                some += feed(rms_norm(some, layer.feed_norm, eps))

        # Each of several experts takes few rows of those at hand.
        self.threads.each(through, self._blocks(len(x), BLOCK if dense else -(-len(x) // self.threads.count)))

    def _blocks(self, rows: int, most: int = BLOCK) -> list[slice]:
        """Rows for one thread each; if they are few, or not on a CPU, all as one block, for all threads together."""
        return [slice(0, rows)] if rows < ALONE or self._kind != "cpu" else self.threads.blocks(rows, most)
