"""The gated feed-forward network of a dense layer, or of one expert."""

from __future__ import annotations

import attrs
from torch import Tensor

from inference.checkpoint import Source
from inference.models.attention import gated
from inference.models.matrices import Matrix, biased, join, matrix


@attrs.frozen
class FeedForward:
    """down(silu(gate(x)) * up(x))."""

    gate_up: Matrix
    down: Matrix

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(gated(self.gate_up(x)))


def feed_forward(source: Source, name: str, device: str, digits: int = 2) -> FeedForward:
    """Reads `name` + gate_proj, up_proj and down_proj, with biases if there are any. `device`: its kind; `digits`: see
    `matrix`."""
    parts = [source.matrix(f"{name}{part}_proj.weight") for part in ("gate", "up")]
    return FeedForward(
        biased(matrix(join(parts), device, digits), source, [f"{name}gate_proj.bias", f"{name}up_proj.bias"]),
        biased(matrix(source.matrix(name + "down_proj.weight"), device, digits), source, [name + "down_proj.bias"]),
    )
