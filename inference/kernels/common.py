# pyright: basic
# Triton's language is no Python to a type checker.
"""What kernels have in common.

A norm is one factor a row, so it may as well come last: whoever writes the residual stream also writes it times the
next norm's gain, in the model's type, and each tile's sum of squares. Under programmatic dependent launch a kernel
comes up before the one before it ends. Sums over a row's values are taken in float64, where they don't depend on how
the compiler lays the values out, and with that on the number of rows.
"""

import os

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

COMPILED = tl.constexpr(os.environ.get("TRITON_INTERPRET") != "1")


@triton.jit
def floats(weight, INT8: tl.constexpr):
    """Weights as float32, exactly. The conversion of 8-bit integers is slow, so bytes are put into floats as they are.

    With the sign bit turned over a byte is 0 to 255; as the lowest of 2^23's it makes 2^23 + byte.
    """
    if INT8 and COMPILED:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 bytes, a, b, c, d;
            .reg .f32 fa, fb, fc, fd;
            xor.b32 bytes, $4, 0x80808080;
            prmt.b32 a, bytes, 0x4B000000, 0x7440;
            prmt.b32 b, bytes, 0x4B000000, 0x7441;
            prmt.b32 c, bytes, 0x4B000000, 0x7442;
            prmt.b32 d, bytes, 0x4B000000, 0x7443;
            mov.b32 fa, a;
            mov.b32 fb, b;
            mov.b32 fc, c;
            mov.b32 fd, d;
            sub.f32 $0, fa, 0f4B000080;
            sub.f32 $1, fb, 0f4B000080;
            sub.f32 $2, fc, 0f4B000080;
            sub.f32 $3, fd, 0f4B000080;
            }""",
            "=f,=f,=f,=f,r",
            [weight],
            dtype=tl.float32,
            is_pure=True,
            pack=4,
        )
    return weight.to(tl.float32)


@triton.jit
def begin(PDL: tl.constexpr):
    """Waits for the kernel before: nothing that it writes may be read earlier."""
    if PDL:
        gdc_wait()


@triton.jit
def nearly_done(PDL: tl.constexpr):
    """Lets the next kernel's programs come up. Earlier they would crowd on the first processors that fall idle."""
    if PDL:
        gdc_launch_dependents()


@triton.jit
def norm_factor(squares_at, m, rows, eps, K: tl.constexpr, TILES: tl.constexpr, WIDE: tl.constexpr):
    """1 / root mean square of each row, [BM], from the sums of its tiles."""
    tile = tl.arange(0, WIDE)
    sums = tl.load(
        squares_at + m[:, None] * TILES + tile[None, :], mask=(m < rows)[:, None] & (tile < TILES)[None, :], other=0.0
    )
    return tl.rsqrt((tl.sum(sums, 1) / K).to(tl.float32) + eps)


@triton.jit
def add_residual(acc, stream_at, scaled_at, squares_at, gain_at, n, m, rows, N: tl.constexpr):
    """stream += acc [BN, BM], and what the next norm needs of it."""
    inside = (m < rows)[None, :] & (n < N)[:, None]
    at = m[None, :] * N + n[:, None]
    x = acc + tl.load(stream_at + at, mask=inside, other=0.0)
    tl.store(stream_at + at, x, mask=inside)
    gain = tl.load(gain_at + n, mask=n < N, other=0.0).to(tl.float32)
    tl.store(scaled_at + at, (x * gain[:, None]).to(scaled_at.dtype.element_ty), mask=inside)
    squares = tl.sum(tl.where(inside, x * x, 0.0).to(tl.float64), 0)
    tl.store(squares_at + m * tl.num_programs(0) + tl.program_id(0), squares, mask=m < rows)
