# pyright: basic, reportGeneralTypeIssues=false, reportArgumentType=false
# Triton's language is no Python to a type checker.
"""What the kernels of a step of one row are made of: rows of weights in registers, multiplied and added.

T is the model's type. Shapes: n outputs, k inputs.
"""

import triton
import triton.language as tl

from inference.kernels.common import COMPILED


@triton.jit
def row_words(weight_at, at, INT8: tl.constexpr):
    """Where rows of weights begin, as words."""
    return words(weight_at, INT8, 1) + at // packed(INT8)


@triton.jit
def weights(rows, start, inside, K: tl.constexpr, INT8: tl.constexpr, BK: tl.constexpr):
    """Words [..., BK / four] of each row."""
    k = start // packed(INT8) + tl.arange(0, BK // packed(INT8))
    there = k < K // packed(INT8)
    if len(rows.shape) == 2:
        return tl.load(rows[:, :, None] + k[None, None, :], mask=inside[:, :, None] & there[None, None, :], other=0)
    else:
        return tl.load(rows[:, None] + k[None, :], mask=inside[:, None] & there[None, :], other=0)


@triton.jit
def early(rows, inside, K: tl.constexpr, INT8: tl.constexpr, BK: tl.constexpr, AHEAD: tl.constexpr):
    """The first AHEAD `weights` of each row: asked for at once."""
    tiles = ()
    for number in tl.static_range(AHEAD):
        if number * BK < K:
            tiles = tiles + (weights(rows, number * BK, inside, K, INT8, BK),)  # noqa: RUF005  the compiler knows no *
    return tiles


@triton.jit
def tile_at(tiles, rows, start: tl.constexpr, inside, K: tl.constexpr, INT8: tl.constexpr, BK: tl.constexpr):
    """The `weights` from `start` on, of those that are `early` or else asked for now."""
    if start < len(tiles) * BK:
        return tiles[start // BK]
    else:
        return weights(rows, start, inside, K, INT8, BK)


@triton.jit
def scales(scale_at, at, inside, INT8: tl.constexpr):
    """Of each output; 1 for floats."""
    return tl.load(scale_at + at, mask=inside, other=0.0) if INT8 else 1.0


@triton.jit
def squares(squares_at, TILES: tl.constexpr, WIDE: tl.constexpr):
    """The row's sums of squares, for `norm`."""
    tile = tl.arange(0, WIDE)
    return tl.load(squares_at + tile, mask=tile < TILES, other=0.0)


@triton.jit
def norm(squares, eps, K: tl.constexpr):
    """1 / root mean square of the row."""
    return tl.rsqrt(tl.sum(squares, 0) / K + eps)


@triton.jit
def add_residual(out, before, gain, stream_at, scaled_at, squares_at, n, inside, tile):
    """stream += out [BN], and what the next norm needs of it; returns the new values times that norm's gain."""
    x = out + before
    scaled = x * gain.to(tl.float32)
    tl.store(stream_at + n, x, mask=inside)
    tl.store(scaled_at + n, scaled.to(scaled_at.dtype.element_ty), mask=inside)
    tl.store(squares_at + tile, tl.sum(tl.where(inside, x * x, 0.0), 0))
    return scaled


@triton.constexpr_function
def packed(int8):
    """Weights a word: four bytes are loaded and multiplied at once."""
    return 4 if int8 and COMPILED.value else 1


@triton.jit
def words(at, INT8: tl.constexpr, SIZE: tl.constexpr):
    """As many values of SIZE bytes as a word holds, as one integer."""
    return at.to(tl.pointer_type(tl.int32 if SIZE == 1 else tl.int64)) if packed(INT8) == 4 else at


@triton.jit
def inputs(x_at, start, K: tl.constexpr, INT8: tl.constexpr, BK: tl.constexpr, PIECES: tl.constexpr = 1):
    """BK of one row's inputs, as `floats`; x is the sum of PIECES that stand one after the other."""
    k = start // packed(INT8) + tl.arange(0, BK // packed(INT8))
    at, inside = words(x_at, INT8, 2) + k, k < K // packed(INT8)
    first, second, third, fourth = floats(tl.load(at, mask=inside, other=0)[None, :], INT8)
    for piece in tl.static_range(1, PIECES):
        a, b, c, d = floats(tl.load(at + piece * (K // packed(INT8)), mask=inside, other=0)[None, :], INT8)
        first, second, third, fourth = first + a, second + b, third + c, fourth + d
    return first, second, third, fourth


@triton.jit
def floats(x, INT8: tl.constexpr):
    """Inputs in float32; where words are multiplied, those of the first to fourth byte of each word apart."""
    if packed(INT8) == 4:
        first, second, third, fourth = tl.inline_asm_elementwise(
            """{
            .reg .b32 low, high;
            mov.b64 {low, high}, $4;
            shl.b32 $0, low, 16;
            and.b32 $1, low, 0xFFFF0000;
            shl.b32 $2, high, 16;
            and.b32 $3, high, 0xFFFF0000;
            }""",
            "=r,=r,=r,=r,l",
            [x],
            dtype=(tl.float32, tl.float32, tl.float32, tl.float32),
            is_pure=True,
            pack=1,
        )
    else:
        first = x.to(tl.float32)
        second, third, fourth = first, first, first
    return first, second, third, fourth


@triton.jit
def add(sums, weight, x, INT8: tl.constexpr):
    """sums + weight * x, elementwise, in float32.

    The conversion of 8-bit integers is slow: bytes are put into floats as they are. With the sign bit turned over a
    byte is 0 to 255; as the lowest of 2^23's it makes 2^23 + byte, exactly.
    """
    first, second, third, fourth = x
    if packed(INT8) == 4:
        out = tl.inline_asm_elementwise(
            """{
            .reg .b32 bytes, a, b, c, d;
            .reg .f32 fa, fb, fc, fd;
            xor.b32 bytes, $2, 0x80808080;
            prmt.b32 a, bytes, 0x4B000000, 0x7440;
            prmt.b32 b, bytes, 0x4B000000, 0x7441;
            prmt.b32 c, bytes, 0x4B000000, 0x7442;
            prmt.b32 d, bytes, 0x4B000000, 0x7443;
            mov.b32 fa, a;
            mov.b32 fb, b;
            mov.b32 fc, c;
            mov.b32 fd, d;
            sub.f32 fa, fa, 0f4B000080;
            sub.f32 fb, fb, 0f4B000080;
            sub.f32 fc, fc, 0f4B000080;
            sub.f32 fd, fd, 0f4B000080;
            fma.rn.f32 fa, fa, $3, $1;
            fma.rn.f32 fa, fb, $4, fa;
            fma.rn.f32 fa, fc, $5, fa;
            fma.rn.f32 $0, fd, $6, fa;
            }""",
            "=f,f,r,f,f,f,f",
            [sums, weight, first, second, third, fourth],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
    else:
        out = sums + weight.to(tl.float32) * first
    return out
