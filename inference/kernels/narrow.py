# pyright: basic, reportArgumentType=false
# Triton's language is no Python to a type checker.
"""The matrices of a step of one row, by multiplying and adding: each program holds whole rows of weights in registers.

The matrix units would have nothing to do but wait, and many small programs keep more of memory in flight: a step is 7 %
faster on an H100 than through `wide`. Sums run in another order than there. Whatever is not computed by the kernel
before is asked for before that is done, and the rest as soon as it is: nothing is fetched once the sums are there.
T is the model's type. Shapes: n outputs, k inputs.
"""

import triton
import triton.language as tl

from inference.kernels.common import begin, nearly_done, wait_for
from inference.kernels.products import (
    add,
    add_residual,
    early,
    floats,
    inputs,
    norm,
    packed,
    row_words,
    scales,
    squares,
    tile_at,
    words,
)
from inference.kernels.routing import choose_one


@triton.jit
def linear(
    x_at,  # T [k]
    weight_at,  # [n, k], T or int8
    scale_at,  # float32 [n], if INT8
    squares_at,  # float32 [TILES]: of x before the gain
    out_at,  # [n]: written
    N,
    eps,
    K: tl.constexpr,
    TILES: tl.constexpr,
    WIDE: tl.constexpr,
    INT8: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    AHEAD: tl.constexpr,  # tiles of BK asked for at once
    PDL: tl.constexpr,
):
    """out = norm(x) @ weight.T. Grid: (n / BN,)."""
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    inside = n < N
    rows = row_words(weight_at, n * K, INT8)
    tiles = early(rows, inside, K, INT8, BK, AHEAD)
    scale = scales(scale_at, n, inside, INT8)
    begin(PDL)
    sums = squares(squares_at, TILES, WIDE)
    out = _product(tiles, rows, x_at, inside, K, INT8, BK)
    nearly_done(PDL)
    out *= norm(sums, eps, K) * scale
    tl.store(out_at + n, out.to(out_at.dtype.element_ty), mask=inside)


@triton.jit
def linear_add(
    x_at,  # T [PIECES, k]
    weight_at,  # [n, k], T or int8
    scale_at,  # float32 [n], if INT8
    stream_at,  # float32 [n]: added to
    scaled_at,  # T [n]: written, the stream times the next norm's gain
    squares_at,  # float32 [n / BN]: written, its sums of squares
    gain_at,  # [n]
    router_at,  # [E, n], if E
    parts_at,  # float32 [n / BN, E]: written if E, the router's scores before the norm, as sums over each tile
    N: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    ALL: tl.constexpr,  # E, as a power of two
    PIECES: tl.constexpr,  # whose sum x is
    INT8: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    AHEAD: tl.constexpr,  # tiles of BK asked for at once
    PDL: tl.constexpr,
):
    """stream += x @ weight.T, and what each tile of it means to the router. Grid: (n / BN,)."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = n < N
    rows = row_words(weight_at, n * K, INT8)
    tiles = early(rows, inside, K, INT8, BK, AHEAD)
    scale = scales(scale_at, n, inside, INT8)
    gain = tl.load(gain_at + n, mask=inside, other=0.0)
    e = tl.arange(0, ALL)
    if E > 0:
        router = tl.load(router_at + e[:, None] * N + n[None, :], mask=(e < E)[:, None] & inside[None, :], other=0.0)
    begin(PDL)
    before = tl.load(stream_at + n, mask=inside, other=0.0)
    out = _product(tiles, rows, x_at, inside, K, INT8, BK, PIECES)
    nearly_done(PDL)
    tile = tl.program_id(0)
    scaled = add_residual(out * scale, before, gain, stream_at, scaled_at, squares_at, n, inside, tile)
    if E > 0:
        tl.store(parts_at + tile * E + e, tl.sum(router.to(tl.float32) * scaled[None, :], 1), mask=e < E)


@triton.jit
def gated(
    x_at,  # T [k]: the residual stream times the norm's gain
    squares_at,  # float32 [TILES]: of the stream
    weight_at,  # [2 * n, k], T or int8: gate rows, then up rows
    scale_at,  # float32 [2 * n], if INT8
    out_at,  # T [n]: written
    eps,
    N: tl.constexpr,
    K: tl.constexpr,
    TILES: tl.constexpr,
    WIDE: tl.constexpr,
    INT8: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    AHEAD: tl.constexpr,  # tiles of BK asked for at once
    PDL: tl.constexpr,
):
    """silu(gate(x)) * up(x). Grid: (n / BN,)."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    out = gate_and_up(x_at, squares_at, weight_at, scale_at, n, n < N, eps, N, K, TILES, WIDE, INT8, BK, AHEAD, PDL)
    tl.store(out_at + n, out.to(out_at.dtype.element_ty), mask=n < N)


@triton.jit
def experts(
    x_at,  # T [k]: the residual stream times the norm's gain
    squares_at,  # float32 [TILES]: of the stream
    weight_at,  # [experts, 2 * n, k], T or int8: gate rows, then up rows
    scale_at,  # float32 [experts, 2 * n], if INT8
    parts_at,  # float32 [TILES, E]: the router's scores, before the norm
    active_at,  # int32 [TOP + SHARED]: written, the numbers of the experts that the row chose, the best first, and of
    # those that all rows visit
    shares_at,  # float32 [E]: written, what it takes of each
    chosen_at,  # int32: 0 before; 1 once those are written
    out_at,  # T [experts, n]: written
    eps,
    factor,  # of the shares
    N: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    TOP: tl.constexpr,
    SHARED: tl.constexpr,  # experts from E on
    ALL: tl.constexpr,  # E, as a power of two
    TILES: tl.constexpr,
    WIDE: tl.constexpr,
    INT8: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    AHEAD: tl.constexpr,  # tiles of BK asked for at once
    PDL: tl.constexpr,
):
    """silu(gate(x)) * up(x) of the experts that the row visits, times its shares of the routed ones.

    Grid: (1 + (SHARED + TOP) * n / BN,). The first program chooses, the next ones have the shared experts to do, and by
    the time that they are done the rest need hardly wait for the choice. Programs begin in the order of their numbers,
    so that the one that they wait for always runs.
    """
    program = tl.program_id(0) - 1
    if program < 0:
        begin(PDL)
        factor_of_norm = norm(squares(squares_at, TILES, WIDE), eps, K)
        choose_one(parts_at, active_at, shares_at, factor_of_norm, factor, E, TOP, SHARED, ALL, TILES, WIDE)
        tl.debug_barrier()
        tl.atomic_xchg(chosen_at, 1, sem="release")
        return
    tiles: tl.constexpr = (N + BN - 1) // BN
    group = program // tiles
    expert, share = (E + group).to(tl.int64), 1.0
    if group >= SHARED:
        begin(PDL)
        wait_for(chosen_at)
        expert = tl.load(active_at + group - SHARED).to(tl.int64)
        share = tl.load(shares_at + expert)
    n = program % tiles * BN + tl.arange(0, BN)
    rows = expert * 2 * N + n
    out = gate_and_up(x_at, squares_at, weight_at, scale_at, rows, n < N, eps, N, K, TILES, WIDE, INT8, BK, AHEAD, PDL)
    tl.store(out_at + expert * N + n, (out * share).to(out_at.dtype.element_ty), mask=n < N)


@triton.jit
def down(
    hidden_at,  # T [experts, k]
    weight_at,  # [experts, n, k]
    scale_at,  # float32 [experts, n], if INT8
    active_at,  # int32 [EXPERTS]: those that the row visits
    chosen_at,  # int32: 1 once they are written
    stream_at,  # float32 [n]: added to
    scaled_at,  # T [n]: written, the stream times the next norm's gain
    squares_at,  # float32 [n / BN]: written, its sums of squares
    gain_at,  # [n]
    N: tl.constexpr,
    K: tl.constexpr,
    EXPERTS: tl.constexpr,
    INT8: tl.constexpr,
    BN: tl.constexpr,
    BE: tl.constexpr,  # experts, as a power of two: all are asked for at once
    BK: tl.constexpr,
    AHEAD: tl.constexpr,  # tiles of BK asked for at once
    PDL: tl.constexpr,
):
    """stream += the sum over the row's experts of hidden @ weight.T. Grid: (n / BN,).

    Which experts these are is known long before the kernel before ends.
    """
    n, e = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, BE)
    inside, some = n < N, e < EXPERTS
    gain = tl.load(gain_at + n, mask=inside, other=0.0)
    wait_for(chosen_at)
    expert = tl.load(active_at + e, mask=some, other=0).to(tl.int64)
    both, at = inside[:, None] & some[None, :], expert[None, :] * N + n[:, None]
    rows = row_words(weight_at, at * K, INT8)
    tiles, scale = early(rows, both, K, INT8, BK, AHEAD), scales(scale_at, at, both, INT8)
    begin(PDL)
    before = tl.load(stream_at + n, mask=inside, other=0.0)
    hidden = words(hidden_at, INT8, 2) + (expert * K // packed(INT8))[:, None]
    sums = tl.zeros(tiles[0].shape, tl.float32)
    for start in tl.static_range(0, K, BK):
        weight = tile_at(tiles, rows, start, both, K, INT8, BK)
        k = start // packed(INT8) + tl.arange(0, BK // packed(INT8))
        x = tl.load(hidden + k[None, :], mask=some[:, None] & (k < K // packed(INT8))[None, :], other=0)
        sums = add(sums, weight, floats(x[None, :, :], INT8), INT8)
    nearly_done(PDL)
    out = tl.sum(tl.sum(sums, 2) * scale, 1)
    add_residual(out, before, gain, stream_at, scaled_at, squares_at, n, inside, tl.program_id(0))


@triton.jit
def gate_and_up(
    x_at,
    squares_at,
    weight_at,
    scale_at,
    row,
    inside,
    eps,
    N: tl.constexpr,
    K: tl.constexpr,
    TILES: tl.constexpr,
    WIDE: tl.constexpr,
    INT8: tl.constexpr,
    BK: tl.constexpr,
    AHEAD: tl.constexpr,  # tiles of BK asked for at once
    PDL: tl.constexpr,
):
    """[BN] of silu(gate(x)) * up(x); `row`: which rows of weights are the gate's, the up's stand N behind them."""
    gate_rows, up_rows = row_words(weight_at, row * K, INT8), row_words(weight_at, (row + N) * K, INT8)
    gate_tiles, up_tiles = early(gate_rows, inside, K, INT8, BK, AHEAD), early(up_rows, inside, K, INT8, BK, AHEAD)
    gate_scale, up_scale = scales(scale_at, row, inside, INT8), scales(scale_at, row + N, inside, INT8)
    begin(PDL)
    sums = squares(squares_at, TILES, WIDE)
    gate, up = tl.zeros(gate_tiles[0].shape, tl.float32), tl.zeros(up_tiles[0].shape, tl.float32)
    for start in tl.static_range(0, K, BK):
        gate_w = tile_at(gate_tiles, gate_rows, start, inside, K, INT8, BK)
        up_w = tile_at(up_tiles, up_rows, start, inside, K, INT8, BK)
        x = inputs(x_at, start, K, INT8, BK)
        gate, up = add(gate, gate_w, x, INT8), add(up, up_w, x, INT8)
    nearly_done(PDL)
    factor = norm(sums, eps, K)
    gate_out = tl.sum(gate, 1) * (factor * gate_scale)
    return gate_out * tl.sigmoid(gate_out) * tl.sum(up, 1) * (factor * up_scale)


@triton.jit
def _product(
    tiles, rows, x_at, inside, K: tl.constexpr, INT8: tl.constexpr, BK: tl.constexpr, PIECES: tl.constexpr = 1
):
    """[BN] of weight @ x, float32; `tiles`: those that are `early`."""
    sums = tl.zeros(tiles[0].shape, tl.float32)
    for start in tl.static_range(0, K, BK):
        weight = tile_at(tiles, rows, start, inside, K, INT8, BK)
        sums = add(sums, weight, inputs(x_at, start, K, INT8, BK, PIECES), INT8)
    return tl.sum(sums, 1)
