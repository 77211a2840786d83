"""Int8 matrices on a CPU, multiplied as integers.

Each row's activations are taken as two int8 digits, the second worth 1/254 of the first: about 15 bits, so that answers
are those of the float weights, and alike whatever the kernel and however many rows go together. The second digit costs
another row of an integer product, which at few rows costs next to nothing: weights are read once. A model with experts
takes a third digit, 23 bits: as one that chooses has to choose what its float weights would.

Without VNNI a processor adds products up in 16 bits, which two of seven bits by eight fit: activations are three digits
of seven bits then, and many rows are multiplied as floats.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations of scripted functions.
import functools
import sys
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, List  # noqa: UP035

import torch
from torch import Tensor
from torch.nn import functional

from inference.checkpoint import Int8
from inference.models.scripted import scripted

PACKED_ROWS = 48
"""Up to so many rows the packed kernel is the faster one, or close to it."""
BLOCK = 160
"""Rows that a thread has in hand at once: of so many the intermediate values stay in the processor's cache; of 256 they
don't, and their memory goes back to the system and is mapped anew at every product, which triples the time."""

if TYPE_CHECKING:
    Packed = Any
    """A matrix as the packed kernel wants it."""
else:
    try:
        Packed = torch.classes.quantized.LinearPackedParamsBase
    except RuntimeError:  # a torch without the quantised engine packs nothing
        Packed = Tensor


class Int8Cpu:
    """A `Matrix` of int8 with one scale a row.

    Few rows go through the quantised engine's packed kernel where torch has one, many through oneDNN's, or where torch
    lacks it through `torch._int_mm`, or as floats. All are exact in integers where `exact` says so; then they give the
    same floats to the last place or two.
    """

    def __init__(self, weight: Int8, digits: int = 2):
        """`digits`: two or three of eight bits; of seven there are always three."""
        values, scale = weight.values.contiguous(), weight.scale.float()
        self._size, self._outputs, self._digits = values.shape[1], values.shape[0], digits
        self.packed: Any = _pack(values, scale) if packs() else None
        self.many: list[Tensor] | None = None
        """For `many_product`: packed, zero points, scales of the first digits, of the second, of the third if any."""
        if has_vnni() and not seven_bits():
            zero = torch.zeros(len(scale), dtype=torch.int64)
            scales = [scale / 254**digit for digit in range(digits)]
            self.many = [torch.ops.onednn.qlinear_prepack(values, None), zero, *scales]
        elif seven_bits():
            self._without: Callable[[Tensor], Tensor] = functools.partial(_as_floats, values=values, scale=scale)
        else:
            self._without = functools.partial(_plain, values=values, scale=scale, digits=digits)
        self._block = sys.maxsize if seven_bits() else BLOCK

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """See `Matrix`. `x`: float32."""
        rows = x.shape[0]
        if self.packed is not None and rows <= PACKED_ROWS:
            return packed_product(x, buffer(rows, self._size, self._digits), self.packed)
        if rows <= self._block:
            return many_product(x, self.many) if self.many else self._without(x)
        out = x.new_empty(rows, self._outputs)
        for at in range(0, rows, BLOCK):
            out[at : at + BLOCK] = self(x[at : at + BLOCK])
        return out


@scripted
def packed_product(x: Tensor, digits: List[Tensor], packed: Packed) -> Tensor:  # noqa: UP006
    """[rows, in] and a `buffer` → [rows, out], by the packed kernel with what has to happen before and after it."""
    rows, first = x.shape[0], digits[1]
    three = len(digits) == 5
    most = float(digits[0][0, -2]) if three else 127.0  # the first of the constants beside the digits
    unit = torch.add(digits[-1], x.abs().amax([-1], True), alpha=1 / most)
    rest = x / unit
    torch.round(rest, out=first)  # the kernel's own rounding differs at ties, which the last digit can bear
    rest.sub_(first)
    if three:
        torch.round(rest.mul_(2 * most), out=digits[2])
        torch.mul(rest.sub_(digits[2]), 2 * most, out=digits[3])
        product = torch.ops.quantized.linear_dynamic(digits[0], packed, most < 127.0)
        less = torch.add(product[rows : 2 * rows], product[2 * rows :], alpha=0.5 / most)
        return torch.add(product[:rows], less, alpha=0.5 / most).mul_(unit)
    torch.mul(rest, 254.0, out=digits[2])
    product = torch.ops.quantized.linear_dynamic(digits[0], packed)
    return torch.add(product[:rows], product[rows:], alpha=1 / 254).mul_(unit)


@scripted
def _plus_128(x: Tensor) -> Tensor:
    """Whole floats, -128 to 127, plus 128 as unsigned bytes; torch makes floats signed bytes four times as fast."""
    return x.to(torch.int8).to(torch.uint8).bitwise_xor_(128)


@scripted
def many_product(x: Tensor, matrix: List[Tensor]) -> Tensor:  # noqa: UP006
    """[rows, in] → [rows, out], by oneDNN's kernel; `matrix`: `Int8Cpu.many`.

    The kernel takes activations as unsigned bytes, and adds a digit's product to those before itself. Rows are
    filled up to a multiple of 16: it makes code for every number of rows that it meets, and keeps it, of each matrix
    0.6 MB after 3 ms.
    """
    packed, zero = matrix[0], matrix[1]
    rows = x.shape[0]
    missing = -rows % 16
    if missing > 0:
        x = functional.pad(x, [0, 0, 0, missing])
    unit = x.abs().amax([-1], True).clamp_min_(1e-30).mul_(1 / 127)
    rest = x / unit
    digit = rest.round()
    sums = torch.ops.onednn.qlinear_pointwise(
        _plus_128(digit), 1.0, 128, packed, matrix[2], zero, None, 1.0, 0, torch.float32, "none", [], ""
    )
    for number in range(3, len(matrix)):
        rest.sub_(digit).mul_(254.0)
        digit = rest.round() if number + 1 < len(matrix) else rest.round_()
        added, scale, whole = _plus_128(digit), matrix[number], torch.float32
        sums = torch.ops.onednn.qlinear_pointwise(
            added, 1.0, 128, packed, scale, zero, sums, None, 1.0, 0, whole, 1.0, 0, "sum", 1.0, "none", [], ""
        )
    return sums.mul_(unit)[:rows]


@scripted
def _plain(x: Tensor, values: Tensor, scale: Tensor, digits: int) -> Tensor:
    """[rows, in] → [rows, out], by torch's own integer product."""
    unit = x.abs().amax([-1], True).clamp_min_(1e-30).mul_(1 / 127)
    rest = x / unit
    taken = [rest.round()]
    for _ in range(digits - 1):
        taken.append(rest.sub_(taken[-1]).mul_(254.0).round())
    product = torch._int_mm(torch.cat(taken).to(torch.int8), values.t())  # pyright: ignore
    parts = product.float().chunk(digits)
    sums = parts[-1]
    for number in range(digits - 2, -1, -1):
        sums = torch.add(parts[number], sums, alpha=1 / 254)
    return sums.mul_(scale).mul_(unit)


def _as_floats(x: Tensor, values: Tensor, scale: Tensor) -> Tensor:
    """[rows, in] → [rows, out]."""
    return functional.linear(x, values.float()).mul_(scale)


class _Buffers(threading.local):
    """Of each thread that computes."""

    def __init__(self) -> None:
        self.whole: dict[tuple[int, int], Tensor] = {}
        self.views: dict[tuple[int, int, int], list[Tensor]] = {}


_buffers = _Buffers()


def buffer(rows: int, size: int, digits: int = 2) -> list[Tensor]:
    """For `packed_product`: a buffer [digits * rows, size + 2] for some rows' digits, beside them the two constants
    that `_pack` asks for; the digits' places in it, two or three; the least unit, as a row of zeros has one too."""
    found = _buffers.views.get((rows, size, digits))
    if found is None:
        number, most = (3, 63.0) if seven_bits() else (digits, 127.0)
        whole = _buffers.whole.get((size, digits))  # one for all numbers of rows
        if whole is None:
            whole = _buffers.whole[size, digits] = torch.zeros(number * PACKED_ROWS, size + 2)
            whole[:, size], whole[:, size + 1] = most, -1 - most
        room = whole[: number * rows]
        places = [room[digit * rows : (digit + 1) * rows, :size] for digit in range(number)]
        found = _buffers.views[rows, size, digits] = [room, *places, torch.full((1, 1), 1e-30)]
    return found


def packs() -> bool:
    """Whether this torch has the packed integer kernel (x86 with fbgemm)."""
    return "fbgemm" in torch.backends.quantized.supported_engines


def has_vnni() -> bool:
    """Whether oneDNN's kernel is worth having."""
    return torch.cpu._is_vnni_supported() and hasattr(torch.ops.onednn, "qlinear_pointwise")  # pyright: ignore


def seven_bits() -> bool:
    """Whether the packed kernel's sums overflow, unnoticed, unless activations have seven bits."""
    return packs() and not torch.cpu._is_vnni_supported()  # pyright: ignore


@functools.cache
def exact() -> bool:
    """Whether integer products are right here.

    Tried with the largest numbers there are, for few rows and for many.
    """
    size = 1024
    signs = torch.tensor([1, -1, 1, -1, 1, 1, -1, -1], dtype=torch.int8)
    tried = Int8Cpu(Int8((127 * signs)[:, None].expand(8, size).contiguous(), torch.ones(8)))
    right = (127.0 * size) * signs.float()
    return all(torch.allclose(tried(torch.ones(rows, size)), right, rtol=1e-5) for rows in (1, PACKED_ROWS + 16))


def _pack(values: Tensor, scale: Tensor) -> Any:
    """The matrix as the quantised engine wants it, with two inputs more of weight 0.

    They are held at 127 and -128 (of seven bits at 63 and -64), so that the kernel, which takes its scale from the
    least and the greatest value of all rows, takes exactly 1, and a row's result can't depend on its neighbours.
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
