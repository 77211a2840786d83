# pyright: basic
# Triton's language is no Python to a type checker.
"""The matrices of a step of one row, by multiplying and adding: each program holds whole rows of weights in registers.

The matrix units would have nothing to do but wait, and many small programs keep more of memory in flight: a step is 7 %
faster on an H100 than through `wide`. Sums run in another order than there. Weights are asked for before the kernel
before is done. T is the model's type. Shapes: n outputs, k inputs.
"""

import triton
import triton.language as tl

from inference.kernels.common import COMPILED, add_residual, begin, nearly_done, norm_factor
from inference.kernels.routing import choose, scores


@triton.jit
def linear(
    x_at,  # T [k]
    weight_at,  # [n, k], T or int8
    scale_at,  # float32 [n], if INT8
    squares_at,  # float64 [TILES]: of x before the gain
    out_at,  # [n]: written
    N,
    eps,
    K: tl.constexpr,
    TILES: tl.constexpr,
    WIDE: tl.constexpr,
    INT8: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PDL: tl.constexpr,
):
    """out = norm(x) @ weight.T. Grid: (n / BN,)."""
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    out = _product(x_at, weight_at, n * K, n < N, K, INT8, BN, BK, PDL)
    out *= tl.sum(norm_factor(squares_at, tl.arange(0, 1), 1, eps, K, TILES, WIDE), 0)
    if INT8:
        out *= tl.load(scale_at + n, mask=n < N, other=0.0)
    tl.store(out_at + n, out.to(out_at.dtype.element_ty), mask=n < N)


@triton.jit
def linear_add(
    x_at,  # T [k]
    weight_at,  # [n, k], T or int8
    scale_at,  # float32 [n], if INT8
    stream_at,  # float32 [n]: added to
    scaled_at,  # T [n]: written, the stream times the next norm's gain
    squares_at,  # float64 [n / BN]: written, its sums of squares
    gain_at,  # [n]
    N: tl.constexpr,
    K: tl.constexpr,
    INT8: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PDL: tl.constexpr,
):
    """stream += x @ weight.T. Grid: (n / BN,)."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    out = _product(x_at, weight_at, n * K, n < N, K, INT8, BN, BK, PDL)
    if INT8:
        out *= tl.load(scale_at + n, mask=n < N, other=0.0)
    add_residual(out[:, None], stream_at, scaled_at, squares_at, gain_at, n, tl.arange(0, 1), 1, N)


@triton.jit
def gated(
    x_at,  # T [k]: the residual stream times the norm's gain
    squares_at,  # float64 [TILES]: of the stream
    weight_at,  # [experts, 2 * n, k], T or int8: gate rows, then up rows
    scale_at,  # float32 [experts, 2 * n], if INT8
    active_at,  # int32: the experts that were chosen, read if ROUTED, written if ROUTER
    count_at,  # int32 [3]: written if ROUTER, how many they are, and with the SHARED; then 0 between steps
    shares_at,  # float32 [E]: what the row takes of each expert, read or written like those
    stream_at,  # float32 [k], if ROUTER
    gain_at,  # [k], if ROUTER
    router_at,  # [E, k], if ROUTER
    scores_at,  # float32 [E]: written if ROUTER
    out_at,  # T [experts, n]: written
    eps,
    factor,  # of the shares
    N: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    TOP: tl.constexpr,
    SHARED: tl.constexpr,
    ALL: tl.constexpr,  # E, as a power of two
    FIRST: tl.constexpr,
    ROUTED: tl.constexpr,
    ROUTER: tl.constexpr,
    TILES: tl.constexpr,
    WIDE: tl.constexpr,
    INT8: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BE: tl.constexpr,
    PDL: tl.constexpr,
):
    """silu(gate(x)) * up(x) of some experts, times the row's share. Grid: as of `wide.gated`.

    With ROUTER the program that computes the last of the scores chooses the experts, while others still multiply.
    """
    group, tile = tl.program_id(0), tl.program_id(1)
    if ROUTER:
        job, jobs = group * tl.num_programs(1) + tile, E // BE
        if job < jobs:
            begin(PDL)
            scores(stream_at, gain_at, router_at, scores_at, 0, job, eps, K, E, BE)
            tl.debug_barrier()
            if tl.atomic_add(count_at + 2, 1, sem="acq_rel") == jobs - 1:
                tl.store(count_at + 2, 0)
                choose(scores_at, shares_at, active_at, count_at, 1, factor, E, TOP, SHARED, 1, ALL)
        group -= tl.cdiv(jobs, tl.num_programs(1))
        if group < 0:
            return
    if ROUTED:
        begin(PDL)
        expert = tl.load(active_at + group).to(tl.int64)
    else:
        expert = (FIRST + group).to(tl.int64)
    n = tile * BN + tl.arange(0, BN)
    inside = n < N
    four: tl.constexpr = _packed(INT8)
    gate_at = _words(weight_at, INT8, 1) + ((expert * 2 * N + n) * K // four)[:, None]
    gate = tl.zeros([BN, BK // four], tl.float32)
    up = tl.zeros([BN, BK // four], tl.float32)
    for start in tl.static_range(0, K, BK):
        k = start // four + tl.arange(0, BK // four)
        there = inside[:, None] & (k < K // four)[None, :]
        gate_w = tl.load(gate_at + k[None, :], mask=there, other=0)
        up_w = tl.load(gate_at + N * K // four + k[None, :], mask=there, other=0)
        if not ROUTED and start == 0:
            begin(PDL)
        x = _floats(tl.load(_words(x_at, INT8, 2) + k, mask=k < K // four, other=0)[None, :], INT8)
        gate = _add(gate, gate_w, x, INT8)
        up = _add(up, up_w, x, INT8)
    nearly_done(PDL)
    norm = tl.sum(norm_factor(squares_at, tl.arange(0, 1), 1, eps, K, TILES, WIDE), 0)
    gate_n = tl.sum(gate, 1) * norm
    up_n = tl.sum(up, 1) * norm
    if INT8:
        scale = scale_at + expert * 2 * N + n
        gate_n *= tl.load(scale, mask=n < N, other=0.0)
        up_n *= tl.load(scale + N, mask=n < N, other=0.0)
    out = gate_n * tl.sigmoid(gate_n) * up_n
    if ROUTED:
        out *= tl.load(shares_at + expert)
    tl.store(out_at + expert * N + n, out.to(out_at.dtype.element_ty), mask=n < N)


@triton.jit
def down(
    hidden_at,  # T [experts, k]
    weight_at,  # [experts, n, k]
    scale_at,  # float32 [experts, n], if INT8
    active_at,  # int32 [EXPERTS]: the experts to add up, in order
    stream_at,  # float32 [n]: added to
    scaled_at,  # T [n]: written, the stream times the next norm's gain
    squares_at,  # float64 [n / BN]: written, its sums of squares
    gain_at,  # [n]
    N: tl.constexpr,
    K: tl.constexpr,
    EXPERTS: tl.constexpr,
    INT8: tl.constexpr,
    BN: tl.constexpr,
    BE: tl.constexpr,  # experts, as a power of two: all are asked for at once
    BK: tl.constexpr,
    PDL: tl.constexpr,
):
    """The residual plus the sum over experts of hidden @ weight.T. Grid: (n / BN,).

    Which experts that are has been written before the kernel before, so that it may be read before the one before ends.
    """
    n, e = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, BE)
    expert = tl.load(active_at + e, mask=e < EXPERTS, other=0).to(tl.int64)
    inside = (n < N)[:, None] & (e < EXPERTS)[None, :]
    rows = expert[None, :] * N + n[:, None]  # [n, e]
    four: tl.constexpr = _packed(INT8)
    acc = tl.zeros([BN, BE, BK // four], tl.float32)
    for start in tl.static_range(0, K, BK):
        k = start // four + tl.arange(0, BK // four)
        there = (k < K // four)[None, None, :]
        weight_words = _words(weight_at, INT8, 1) + (rows * K // four)[:, :, None] + k[None, None, :]
        weight = tl.load(weight_words, mask=inside[:, :, None] & there, other=0)
        if start == 0:
            begin(PDL)
        x_words = _words(hidden_at, INT8, 2) + (expert * K // four)[None, :, None] + k[None, None, :]
        x = tl.load(x_words, mask=(e < EXPERTS)[None, :, None] & there, other=0)
        acc = _add(acc, weight, _floats(x, INT8), INT8)
    nearly_done(PDL)
    sums = tl.sum(acc, 2)
    if INT8:
        sums *= tl.load(scale_at + rows, mask=inside, other=0.0)
    out = tl.sum(sums, 1)
    add_residual(out[:, None], stream_at, scaled_at, squares_at, gain_at, n, tl.arange(0, 1), 1, N)


@triton.jit
def _product(
    x_at,
    weight_at,
    rows_at,
    inside,
    K: tl.constexpr,
    INT8: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PDL: tl.constexpr,
):
    """[BN] of weight @ x, float32; `rows_at`: where in the weights each row begins."""
    four: tl.constexpr = _packed(INT8)
    acc = tl.zeros([BN, BK // four], tl.float32)
    for start in tl.static_range(0, K, BK):
        k = start // four + tl.arange(0, BK // four)
        words = _words(weight_at, INT8, 1) + (rows_at // four)[:, None] + k[None, :]
        weight = tl.load(words, mask=inside[:, None] & (k < K // four)[None, :], other=0)
        if start == 0:
            begin(PDL)
        x = tl.load(_words(x_at, INT8, 2) + k, mask=k < K // four, other=0)
        acc = _add(acc, weight, _floats(x[None, :], INT8), INT8)
    nearly_done(PDL)
    return tl.sum(acc, 1)


@triton.constexpr_function
def _packed(int8):
    """Weights a word: four bytes are loaded, turned into floats and multiplied at once."""
    return 4 if int8 and COMPILED.value else 1


@triton.jit
def _words(at, INT8: tl.constexpr, SIZE: tl.constexpr):
    """As many values of SIZE bytes as a word holds, as one integer."""
    return at.to(tl.pointer_type(tl.int32 if SIZE == 1 else tl.int64)) if _packed(INT8) == 4 else at


@triton.jit
def _floats(x, INT8: tl.constexpr):
    """Inputs as float32; where words are multiplied, those of the first to fourth byte of each word apart."""
    if _packed(INT8) == 4:
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
def _add(acc, weight, x, INT8: tl.constexpr):
    """acc + weight * x, elementwise, in float32.

    The conversion of 8-bit integers is slow: bytes are put into floats as they are. With the sign bit turned over a
    byte is 0 to 255; as the lowest of 2^23's it makes 2^23 + byte, exactly.
    """
    first, second, third, fourth = x
    if _packed(INT8) == 4:
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
            [acc, weight, first, second, third, fourth],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
    else:
        out = acc + weight.to(tl.float32) * first
    return out
