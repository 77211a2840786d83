"""Rotary position embeddings (arXiv 2104.09864): how far each pair of values turns a position, stretched or not."""

from __future__ import annotations

import math
from typing import Any, cast

import attrs
import torch
from torch import Tensor


class Unsupported(Exception):
    """A configuration that the native engine does not compute; the transformers library may."""


@attrs.frozen
class Yarn:
    """Rotary embeddings stretched to longer contexts (Peng et al. 2023, arXiv 2309.00071)."""

    factor: float
    original: int
    """Positions before the stretch."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    attention_factor: float | None = None
    truncate: bool = True

    def magnitude(self) -> float:
        """What rotated queries and keys are multiplied with."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return mscale_of(self.factor, self.mscale) / mscale_of(self.factor, self.mscale_all_dim)
        return mscale_of(self.factor, 1.0)

    def stretched(self, powers: Tensor, size: int, theta: float) -> Tensor:
        """Radians a position of each of `size` / 2 pairs; `powers`: positions of a radian before the stretch."""

        def pair(rotations: float) -> float:
            """The pair that turns so many times over the original positions."""
            turns = self.original / (rotations * 2 * math.pi)
            return size * math.log(turns) / (2 * math.log(theta))

        low, high = pair(self.beta_fast), pair(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, size - 1)
        ramp = (torch.arange(size // 2, dtype=torch.float32) - low) / ((high - low) or 0.001)
        kept = 1 - ramp.clamp(0, 1)
        return (1.0 / (self.factor * powers)) * (1 - kept) + (1.0 / powers) * kept


@attrs.frozen
class Linear:
    """All positions closer together by one factor."""

    factor: float

    def magnitude(self) -> float:
        """See `Yarn`."""
        return 1.0

    def stretched(self, powers: Tensor, size: int, theta: float) -> Tensor:
        """See `Yarn`."""
        return 1.0 / powers / self.factor


@attrs.frozen
class Llama3:
    """Llama 3.1's: long waves are stretched, short ones kept, those between a mixture."""

    factor: float
    low: float
    """`low_freq_factor`: waves longer than the original positions over this are stretched."""
    high: float
    original: int

    def magnitude(self) -> float:
        """See `Yarn`."""
        return 1.0

    def stretched(self, powers: Tensor, size: int, theta: float) -> Tensor:
        """See `Yarn`."""
        frequencies = 1.0 / powers
        waves = 2 * math.pi / frequencies
        kept = ((self.original / waves - self.low) / (self.high - self.low)).clamp(0, 1)
        return (1 - kept) * frequencies / self.factor + kept * frequencies


Stretch = Yarn | Linear | Llama3


def frequencies(size: int, theta: float, stretch: Stretch | None) -> tuple[Tensor, float]:
    """Radians a position of each rotated pair, float32 [size / 2], and the magnitude of the rotation."""
    powers = theta ** (torch.arange(0, size, 2, dtype=torch.float) / size)
    if stretch is None:
        return 1.0 / powers, 1.0
    return stretch.stretched(powers, size, theta), stretch.magnitude()


def read(fields: dict[str, Any], positions: int) -> tuple[float | None, Stretch | None]:
    """Theta, if it is said, and the stretch of a parsed `config.json`. Raises `Unsupported`."""
    # transformers 5 writes rope_parameters, everybody else rope_theta and rope_scaling.
    rope = cast(dict[str, Any], fields.get("rope_parameters") or fields.get("rope_scaling") or {})
    theta = rope.get("rope_theta") or fields.get("rope_theta")
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        stretch = None
    elif kind == "yarn":
        stretch = _yarn(rope, positions)
    elif kind == "linear":
        stretch = Linear(float(rope["factor"]))
    elif kind == "llama3":
        low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
        original = int(rope.get("original_max_position_embeddings") or positions)
        stretch = Llama3(float(rope["factor"]), low, high, original)
    else:
        raise Unsupported(f"rotary embeddings of type {kind!r}")
    return (float(theta) if theta else None), stretch


def _yarn(rope: dict[str, Any], positions: int) -> Yarn:
    original = int(rope.get("original_max_position_embeddings") or positions)
    return Yarn(
        factor=float(rope.get("factor") or positions / original),
        original=original,
        beta_fast=float(rope.get("beta_fast") or 32),
        beta_slow=float(rope.get("beta_slow") or 1),
        mscale=float(rope.get("mscale") or 0),
        mscale_all_dim=float(rope.get("mscale_all_dim") or 0),
        attention_factor=rope.get("attention_factor"),
        truncate=bool(rope.get("truncate", True)),
    )


def mscale_of(factor: float, mscale: float) -> float:
    """YaRN's correction of attention's temperature."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
