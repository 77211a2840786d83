"""Matrices as a model multiplies with them: floating, int8 on a CPU, int8 weights on another device."""

from __future__ import annotations

import logging
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from inference.checkpoint import Int8, Source
from inference.models.int8_cpu import Int8Cpu, exact

log = logging.getLogger(__name__)


class Matrix(Protocol):
    """A linear map."""

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


class Biased:
    """A matrix and what is added to its outputs."""

    def __init__(self, matrix: Matrix, bias: Tensor):
        """`bias`: [out]."""
        self.matrix, self.bias = matrix, bias

    def __call__(self, x: Tensor) -> Tensor:
        """See `Matrix`."""
        return self.matrix(x).add_(self.bias)


def matrix(stored: Tensor | Int8, device: str, digits: int = 2) -> Matrix:
    """The form that multiplies best on `device`. `digits`: of activations as integers, see `Int8Cpu`."""
    if isinstance(stored, Tensor):
        return Floating(stored)
    if device != "cpu":
        return Int8Weights(stored)
    if not exact():
        log.warning("this processor's integer products overflow: int8 weights are multiplied as floats, and slower")
        return Floating(stored.dequantised(torch.float32))
    return Int8Cpu(stored, digits)


def biased(made: Matrix, source: Source, names: list[str]) -> Matrix:
    """`made` with the biases of these names, one behind the other; as it is if the source has none of them."""
    if not any(source.has(name) for name in names):
        return made
    return Biased(made, torch.cat([source.tensor(name) for name in names]))


def packed_of(matrices: list[Matrix]) -> list[Any] | None:
    """Their forms for few rows on a CPU (`int8_cpu.Packed`), without biases; None unless all have one."""
    plain = [m.matrix if isinstance(m, Biased) else m for m in matrices]
    packed = [m.packed for m in plain if isinstance(m, Int8Cpu) and m.packed is not None]
    return packed if len(packed) == len(matrices) else None


def many_of(matrices: list[Matrix]) -> list[list[Tensor]] | None:
    """Their forms for `many_product`; None unless all have one and no biases."""
    many = [m.many for m in matrices if isinstance(m, Int8Cpu) and m.many is not None]
    return many if len(many) == len(matrices) else None


def embed(table: Tensor | Int8, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of a table [vocab, hidden]."""
    if isinstance(table, Int8):
        return (table.values[ids].float() * table.scale[ids, None]).to(dtype)
    return table[ids]


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
