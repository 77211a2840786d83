"""Matrices as a model multiplies with them: floating, int8 on a CPU, int8 weights on another device.

Int8 on a CPU takes each row's activations as two int8 digits, the second worth 1/254 of the first: about 15 bits, so
that answers are those of the float weights, and alike whatever the kernel and however many rows go together. The
second digit costs another row of an integer product, which at few rows costs next to nothing: weights are read once.
"""

from __future__ import annotations

import warnings
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from inference.checkpoint import Int8
from inference.models.scripted import scripted_module

SECOND = 1 / 254
"""What the second digit is worth: what rounding to the first may leave (± 1/2) fills the second (± 127)."""
PACKED_ROWS = 48
"""Up to so many rows the packed kernel is the faster one, or close to it."""
BLOCK = 256
"""Rows of the large products that are in hand at once, so that intermediate values stay in the processor's cache."""
TINY = 1e-30


class Matrix(Protocol):
    """A linear map without bias."""

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, in] → [rows, out]; a row's result does not depend on the others, to float rounding."""
        ...


class Floating:
    """A matrix of floats, multiplied in their type."""

    def __init__(self, weight: Tensor):
        """`weight`: [out, in]."""
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """See `Matrix`."""
        return functional.linear(x, self.weight)


class Int8Weights:
    """Int8 with one scale a row, made floats to multiply: a quarter of the memory anywhere, at no gain in speed."""

    def __init__(self, weight: Int8):
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """See `Matrix`."""
        return functional.linear(x, self.weight.values.to(x.dtype)) * self.weight.scale.to(x.dtype)


class Int8Cpu:
    """Int8 with one scale a row, multiplied as integers on a CPU.

    Few rows go through the quantised engine's packed kernel where torch has one, many through `torch._int_mm`. Both are
    exact in integers, so they give the same floats.
    """

    _digits: dict[tuple[int, int], Tensor] = {}  # noqa: RUF012  one engine thread uses these buffers at a time

    def __init__(self, weight: Int8):
        self._values = weight.values.contiguous()
        self._scale = weight.scale.float()
        self._size = weight.values.shape[1]
        self._few = scripted_module(_Packed(_pack(self._values, self._scale))) if packs() else None

    def __call__(self, x: Tensor) -> Tensor:
        """See `Matrix`. `x`: float32."""
        rows = x.shape[0]
        if self._few is not None and rows <= PACKED_ROWS:
            return self._few(x, self._room(rows))
        if rows <= BLOCK:
            return self._many(x)
        return torch.cat([self._many(x[at : at + BLOCK]) for at in range(0, rows, BLOCK)])

    def _room(self, rows: int) -> Tensor:
        """A buffer for some rows' two digits, beside them the two constants that `_pack` asks for."""
        room = self._digits.get((rows, self._size))
        if room is None:
            room = self._digits[rows, self._size] = torch.zeros(2 * rows, self._size + 2)
            room[:, self._size], room[:, self._size + 1] = 127.0, -128.0
        return room

    def _many(self, x: Tensor) -> Tensor:
        unit = _unit(x)
        rest = x / unit
        first = rest.round()
        both = torch.cat([first, rest.sub_(first).mul_(254.0).round_()]).to(torch.int8)
        product = torch._int_mm(both, self._values.T)  # pyright: ignore
        units, seconds = product.chunk(2)
        return torch.add(units.float(), seconds, alpha=SECOND).mul_(self._scale).mul_(unit)


class _Packed(torch.nn.Module):
    """The packed kernel with what has to happen before and after it."""

    def __init__(self, packed: Any):
        super().__init__()
        self.packed = packed

    def forward(self, x: Tensor, digits: Tensor) -> Tensor:
        """[rows, in] and a buffer [2 * rows, in + 2] → [rows, out]."""
        rows, size = x.shape[0], x.shape[1]
        unit = x.abs().amax([-1], True).clamp_min_(1e-30).mul_(1 / 127)
        rest = x / unit
        first = digits[:rows, :size]
        torch.round(rest, out=first)  # the kernel's own rounding differs at ties
        torch.round(rest.sub_(first).mul_(254.0), out=digits[rows:, :size])
        product = torch.ops.quantized.linear_dynamic(digits, self.packed)
        return torch.add(product[:rows], product[rows:], alpha=1 / 254).mul_(unit)


def _unit(x: Tensor) -> Tensor:
    """What the last place of each row's first digit is worth, [rows, 1]."""
    return x.abs().amax(-1, keepdim=True).clamp_min_(TINY).mul_(1 / 127)


def matrix(stored: Tensor | Int8, device: str) -> Matrix:
    """The form that multiplies best on `device`."""
    if isinstance(stored, Tensor):
        return Floating(stored)
    return Int8Cpu(stored) if device == "cpu" else Int8Weights(stored)


def join(parts: list[Tensor | Int8]) -> Tensor | Int8:
    """Matrices over the same input as one, their outputs in a row; int8 only if all are."""
    if all(isinstance(part, Int8) for part in parts):
        quantised = cast(list[Int8], parts)
        return Int8(torch.cat([p.values for p in quantised]), torch.cat([p.scale for p in quantised]))
    floating = cast(list[Tensor], parts)
    return torch.cat(floating)


def take(stored: Tensor | Int8, rows: Tensor) -> Tensor | Int8:
    """Some outputs of a matrix, in the order of `rows`."""
    return Int8(stored.values[rows], stored.scale[rows]) if isinstance(stored, Int8) else stored[rows]


def packs() -> bool:
    """Whether this torch has the packed integer kernel (x86 with fbgemm)."""
    return "fbgemm" in torch.backends.quantized.supported_engines


def _pack(values: Tensor, scale: Tensor) -> Any:
    """The matrix as the quantised engine wants it, with two inputs more of weight 0.

    They are held at 127 and -128, so that the kernel, which takes its scale from the least and the greatest value
    of all rows, takes exactly 1, and a row's result can't depend on its neighbours.
    """
    padded = functional.pad(values, (0, 2))
    zeros = torch.zeros(len(values), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantised tensors are deprecated; `packs` sees when they are gone
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = "fbgemm"
        try:
            quantised = torch._make_per_channel_quantized_tensor(padded, scale.double(), zeros, 0)  # pyright: ignore
            return torch.ops.quantized.linear_prepack(quantised, None)
        finally:
            torch.backends.quantized.engine = before
