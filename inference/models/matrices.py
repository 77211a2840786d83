"""Matrices as a model multiplies with them: floating, int8 on a CPU, int8 weights on another device.

Int8 on a CPU takes each row's activations as two int8 digits, the second worth 1/254 of the first: about 15 bits, so
that answers are those of the float weights, and alike whatever the kernel and however many rows go together. The
second digit costs another row of an integer product, which at few rows costs next to nothing: weights are read once.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations of scripted methods.
import functools
import logging
import warnings
from typing import Any, List, Protocol, cast  # noqa: UP035

import torch
from torch import Tensor
from torch.nn import functional

from inference.checkpoint import Int8, Source
from inference.models.scripted import scripted_module

log = logging.getLogger(__name__)

PACKED_ROWS = 48
"""Up to so many rows the packed kernel is the faster one, or close to it."""
BLOCK = 128
"""Rows in hand at once on a CPU: of 128 the intermediate values stay in the processor's cache; of 256 they don't, and
their memory goes back to the system and is mapped anew at every product, which triples the time."""
MULTIPLE = 16
"""Rows are filled up to it for oneDNN, which makes code for every number of rows that it meets, and keeps it: of each
matrix 0.6 MB, after 3 ms."""


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


class Int8Cpu:
    """Int8 with one scale a row, multiplied as integers on a CPU.

    Few rows go through the quantised engine's packed kernel where torch has one, many through oneDNN's, or where torch
    lacks it through `torch._int_mm`. All are exact in integers where `exact` says so; then they give the same floats to
    the last place or two.
    """

    def __init__(self, weight: Int8):
        values, scale = weight.values.contiguous(), weight.scale.float()
        self._size, self._outputs = values.shape[1], values.shape[0]
        self.few = _Packed(_pack(values, scale)) if packs() else None
        self._few = scripted_module(self.few) if self.few else None
        self._many = scripted_module(_OneDnn(values, scale) if has_vnni() else _Plain(values, scale))

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """See `Matrix`. `x`: float32."""
        rows = x.shape[0]
        if self._few is not None and rows <= PACKED_ROWS:
            return self._few(x, buffer(rows, self._size))
        if rows <= BLOCK:
            missing = -rows % MULTIPLE
            return self._many(functional.pad(x, (0, 0, 0, missing)) if missing else x)[:rows]
        out = x.new_empty(rows, self._outputs)
        for at in range(0, rows, BLOCK):
            out[at : at + BLOCK] = self(x[at : at + BLOCK])
        return out


class Biased:
    """A matrix and what is added to its outputs."""

    def __init__(self, matrix: Matrix, bias: Tensor):
        """`bias`: [out]."""
        self.matrix, self.bias = matrix, bias

    def __call__(self, x: Tensor) -> Tensor:
        """See `Matrix`."""
        return self.matrix(x).add_(self.bias)


class _OneDnn(torch.nn.Module):
    """Its kernel takes activations as unsigned bytes, and adds the second digits' product to the first's itself."""

    def __init__(self, values: Tensor, scale: Tensor):
        super().__init__()
        self.packed = torch.ops.onednn.qlinear_prepack(values, None)
        self.first, self.second = scale, scale / 254
        self.zero = torch.zeros(len(scale), dtype=torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, in] → [rows, out]."""
        unit = x.abs().amax([-1], True).clamp_min_(1e-30).mul_(1 / 127)
        rest = x / unit
        first = rest.round()
        second = rest.sub_(first).mul_(254.0).round_().add_(128.0).to(torch.uint8)
        first = first.add_(128.0).to(torch.uint8)
        units = torch.ops.onednn.qlinear_pointwise(
            first, 1.0, 128, self.packed, self.first, self.zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        both = torch.ops.onednn.qlinear_pointwise(
            second, 1.0, 128, self.packed, self.second, self.zero, units, None, 1.0, 0, torch.float32, 1.0, 0,
            "sum", 1.0, "none", [], "",
        )  # fmt: skip
        return both.mul_(unit)


class _Plain(torch.nn.Module):
    """Torch's own integer product."""

    def __init__(self, values: Tensor, scale: Tensor):
        super().__init__()
        self.values, self.scale = values, scale

    def forward(self, x: Tensor) -> Tensor:
        """[rows, in] → [rows, out]."""
        unit = x.abs().amax([-1], True).clamp_min_(1e-30).mul_(1 / 127)
        rest = x / unit
        first = rest.round()
        both = torch.cat([first, rest.sub_(first).mul_(254.0).round_()]).to(torch.int8)
        product = torch._int_mm(both, self.values.t())  # pyright: ignore
        units, seconds = product.chunk(2)
        return torch.add(units.float(), seconds, alpha=1 / 254).mul_(self.scale).mul_(unit)


class _Packed(torch.nn.Module):
    """The packed kernel with what has to happen before and after it."""

    def __init__(self, packed: Any):
        super().__init__()
        self.packed = packed
        self.least = torch.full((1, 1), 1e-30)  # a row of zeros has a unit too

    def forward(self, x: Tensor, digits: List[Tensor]) -> Tensor:  # noqa: UP006
        """[rows, in] and a `buffer` → [rows, out]."""
        rows, first = x.shape[0], digits[1]
        unit = torch.add(self.least, x.abs().amax([-1], True), alpha=1 / 127)
        rest = x / unit
        torch.round(rest, out=first)  # the kernel's own rounding differs at ties, which the second digit can bear
        torch.mul(rest.sub_(first), 254.0, out=digits[2])
        product = torch.ops.quantized.linear_dynamic(digits[0], self.packed)
        return torch.add(product[:rows], product[rows:], alpha=1 / 254).mul_(unit)


def matrix(stored: Tensor | Int8, device: str) -> Matrix:
    """The form that multiplies best on `device`."""
    if isinstance(stored, Tensor):
        return Floating(stored)
    if device != "cpu":
        return Int8Weights(stored)
    if not exact():
        log.warning("this processor's integer products overflow: int8 weights are multiplied as floats, and slower")
        return Floating(stored.dequantised(torch.float32))
    return Int8Cpu(stored)


def biased(made: Matrix, source: Source, names: list[str]) -> Matrix:
    """`made` with the biases of these names, one behind the other; as it is if the source has none of them."""
    if not any(source.has(name) for name in names):
        return made
    return Biased(made, torch.cat([source.tensor(name) for name in names]))


def few_of(matrices: list[Matrix]) -> list[torch.nn.Module] | None:
    """Their kernels for few rows on a CPU, without biases; None unless all have one."""
    plain = [m.matrix if isinstance(m, Biased) else m for m in matrices]
    few: list[torch.nn.Module] = [m.few for m in plain if isinstance(m, Int8Cpu) and m.few is not None]
    return few if len(few) == len(matrices) else None


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


def packs() -> bool:
    """Whether this torch has the packed integer kernel (x86 with fbgemm)."""
    return "fbgemm" in torch.backends.quantized.supported_engines


_buffers: dict[tuple[int, int], list[Tensor]] = {}  # one engine thread uses them at a time


def buffer(rows: int, size: int) -> list[Tensor]:
    """A buffer [2 * rows, size + 2] for some rows' two digits, beside them the two constants that `_pack` asks for; and
    the digits' places in it."""
    found = _buffers.get((rows, size))
    if found is None:
        digits = torch.zeros(2 * rows, size + 2)
        digits[:, size], digits[:, size + 1] = 127.0, -128.0
        found = _buffers[rows, size] = [digits, digits[:rows, :size], digits[rows:, :size]]
    return found


def has_vnni() -> bool:
    """Whether oneDNN's kernel is worth having."""
    return torch.cpu._is_vnni_supported() and hasattr(torch.ops.onednn, "qlinear_pointwise")  # pyright: ignore


@functools.cache
def exact() -> bool:
    """Whether this processor's integer products are right: without VNNI their sums overflow 16 bits, unnoticed.

    Tried with the largest numbers there are, for few rows and for many.
    """
    size = 1024
    signs = torch.tensor([1, -1, 1, -1, 1, 1, -1, -1], dtype=torch.int8)
    tried = Int8Cpu(Int8((127 * signs)[:, None].expand(8, size).contiguous(), torch.ones(8)))
    right = (127.0 * size) * signs.float()
    return all(torch.allclose(tried(torch.ones(rows, size)), right, rtol=1e-5) for rows in (1, PACKED_ROWS + 16))


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
