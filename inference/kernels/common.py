# pyright: basic
# Triton's language is no Python to a type checker.
"""What kernels have in common.

A norm is one factor a row, so it may as well come last: whoever writes the residual stream also writes it times the
next norm's gain, in the model's type, and each tile's sum of squares. Under programmatic dependent launch a kernel
comes up before the one before it ends. Sums over a row's values are taken in float64, where they don't depend on how
the compiler lays the values out, and with that on the number of rows; a tile's sum is kept in float32.
"""

import os

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

COMPILED = tl.constexpr(os.environ.get("TRITON_INTERPRET") != "1")


@triton.jit
def halves(weight, INT8: tl.constexpr, T: tl.constexpr):
    """Weights as T, exactly. A byte's low seven bits are those of bfloat16's 128 to 255, from which its sign takes 128
    or 256.
    """
    if INT8 and COMPILED and tl.bfloat16 == T:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 a, b, c, d, one;
            mov.b32 one, 0x3F803F80;
            prmt.b32 a, $2, 0, 0x4140;
            prmt.b32 b, $2, 0, 0x4342;
            lop3.b32 c, a, 0x00800080, 0xC300C300, 0xEA;
            lop3.b32 d, b, 0x00800080, 0xC300C300, 0xEA;
            lop3.b32 a, a, 0x007F007F, 0x43004300, 0xEA;
            lop3.b32 b, b, 0x007F007F, 0x43004300, 0xEA;
            fma.rn.bf16x2 $0, a, one, c;
            fma.rn.bf16x2 $1, b, one, d;
            }""",
            "=r,=r,r",
            [weight],
            dtype=tl.bfloat16,
            is_pure=True,
            pack=4,
        )
    return weight.to(T)


LATE, SOON = tl.constexpr(1), tl.constexpr(2)
"""When the next kernel's programs may come up: as this one is nearly done, or as it begins to wait. 0: as it ended."""


@triton.jit
def begin(PDL: tl.constexpr):
    """Waits for the kernel before: nothing that it writes may be read earlier."""
    if PDL == SOON:
        gdc_launch_dependents()
    if PDL:
        gdc_wait()


@triton.jit
def nearly_done(PDL: tl.constexpr):
    """Lets the next kernel's programs come up. Earlier they would crowd on the first processors that fall idle, which
    only kernels that leave most processors idle needn't mind.
    """
    if PDL == LATE:
        gdc_launch_dependents()


@triton.jit
def wait_for(at):
    """Returns when the number there is no longer 0; what was written before may then be read."""
    while _acquired(at) == 0:
        pass


@triton.jit
def _acquired(at):
    if COMPILED:
        return tl.inline_asm_elementwise(
            "ld.acquire.gpu.global.b32 $0, [$1];", "=r,l", [at], dtype=tl.int32, is_pure=False, pack=1
        )
    else:
        return tl.load(at)


@triton.jit
def norm_factor(squares_at, m, rows, eps, K: tl.constexpr, TILES: tl.constexpr, WIDE: tl.constexpr):
    """1 / root mean square of each row, [BM], from the sums of its tiles."""
    tile = tl.arange(0, WIDE)
    sums = tl.load(
        squares_at + m[:, None] * TILES + tile[None, :], mask=(m < rows)[:, None] & (tile < TILES)[None, :], other=0.0
    )
    return tl.rsqrt((tl.sum(sums.to(tl.float64), 1) / K).to(tl.float32) + eps)
