# pyright: basic
# Triton's language is no Python to a type checker.
"""The matrices of a step of many rows, on the matrix units: weights are the wide operand, rows the narrow one.

T is the model's type. Shapes: m rows, n outputs, k inputs.
"""

import triton
import triton.language as tl

from inference.kernels.common import begin, halves, nearly_done, norm_factor
from inference.kernels.routing import scores


@triton.jit(do_not_specialize=["rows"])
def linear(
    x_at,  # T [m, k]
    weight_at,  # [n, k], T or int8
    scale_at,  # float32 [n], if INT8
    squares_at,  # float32 [m, TILES]: of x's rows before the gain
    out_at,  # [m, n]: written
    rows,
    N,
    eps,
    K: tl.constexpr,
    TILES: tl.constexpr,
    WIDE: tl.constexpr,
    INT8: tl.constexpr,
    T: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PDL: tl.constexpr,
):
    """out = norm(x) @ weight.T. Grid: (n / BN,)."""
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    m = tl.arange(0, BM)
    begin(PDL)
    acc = _product(x_at, weight_at, n, m, rows, N, K, INT8, T, BM, BN, BK)
    nearly_done(PDL)
    acc *= norm_factor(squares_at, m, rows, eps, K, TILES, WIDE)[None, :]
    if INT8:
        acc *= tl.load(scale_at + n, mask=n < N, other=0.0)[:, None]
    inside = (m < rows)[None, :] & (n < N)[:, None]
    tl.store(out_at + m[None, :] * N + n[:, None], acc.to(out_at.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def linear_add(
    x_at,  # T [m, k]
    weight_at,  # [n, k], T or int8
    scale_at,  # float32 [n], if INT8
    stream_at,  # float32 [m, n]: added to
    scaled_at,  # T [m, n]: written, the stream times the next norm's gain
    squares_at,  # float32 [m, n / BN]: written, its sums of squares
    gain_at,  # [n]
    rows,
    N: tl.constexpr,
    K: tl.constexpr,
    INT8: tl.constexpr,
    T: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PDL: tl.constexpr,
):
    """stream += x @ weight.T. Grid: (n / BN,)."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    m = tl.arange(0, BM)
    begin(PDL)
    acc = _product(x_at, weight_at, n, m, rows, N, K, INT8, T, BM, BN, BK)
    nearly_done(PDL)
    if INT8:
        acc *= tl.load(scale_at + n, mask=n < N, other=0.0)[:, None]
    _add_residual(acc, stream_at, scaled_at, squares_at, gain_at, n, m, rows, N)


@triton.jit
def _add_residual(acc, stream_at, scaled_at, squares_at, gain_at, n, m, rows, N: tl.constexpr):
    """stream += acc [BN, BM], and what the next norm needs of it."""
    inside = (m < rows)[None, :] & (n < N)[:, None]
    at = m[None, :] * N + n[:, None]
    x = acc + tl.load(stream_at + at, mask=inside, other=0.0)
    tl.store(stream_at + at, x, mask=inside)
    gain = tl.load(gain_at + n, mask=n < N, other=0.0).to(tl.float32)
    tl.store(scaled_at + at, (x * gain[:, None]).to(scaled_at.dtype.element_ty), mask=inside)
    squares = tl.sum(tl.where(inside, x * x, 0.0).to(tl.float64), 0)
    tl.store(squares_at + m * tl.num_programs(0) + tl.program_id(0), squares.to(tl.float32), mask=m < rows)


@triton.jit
def _product(
    x_at,
    weight_at,
    n,
    m,
    rows,
    N,
    K: tl.constexpr,
    INT8: tl.constexpr,
    T: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """[BN, BM] of weight @ x.T, float32, summed in steps of BK."""
    acc = tl.zeros([BN, BM], tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        weight = tl.load(weight_at + n[:, None] * K + k[None, :], mask=(n < N)[:, None] & (k < K)[None, :], other=0)
        x = tl.load(x_at + m[None, :] * K + k[:, None], mask=(m < rows)[None, :] & (k < K)[:, None], other=0.0)
        acc = tl.dot(halves(weight, INT8, T), x, acc, input_precision="ieee")
    return acc


@triton.jit(do_not_specialize=["rows"])
def gated(
    x_at,  # T [m, k]: the residual stream times the norm's gain
    squares_at,  # float32 [m, TILES]: of the stream's rows
    weight_at,  # [experts, 2 * n, k], T or int8: gate rows, then up rows
    scale_at,  # float32 [experts, 2 * n], if INT8
    active_at,  # int32: the experts that some row chose, if ROUTED
    count_at,  # int32: how many they are
    shares_at,  # float32 [m, E]: what each row takes of each expert, 0 for most
    stream_at,  # float32 [m, k], if ROUTER
    gain_at,  # [k], if ROUTER
    router_at,  # [E, k], if ROUTER
    scores_at,  # float32 [m, E]: written if ROUTER
    out_at,  # T [experts, m, n]: written
    rows,
    eps,
    N: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    FIRST: tl.constexpr,  # the first expert of those that every row visits
    ROUTED: tl.constexpr,
    ROUTER: tl.constexpr,
    TILES: tl.constexpr,
    WIDE: tl.constexpr,
    INT8: tl.constexpr,
    T: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BE: tl.constexpr,
    PDL: tl.constexpr,
):
    """silu(gate(x)) * up(x) of some experts, times each row's share.

    Grid: (experts, n / BN), for ROUTED as many experts as rows may choose; with ROUTER some more in front, whose
    programs compute the scores of BE experts for a row each.
    """
    begin(PDL)
    group, tile = tl.program_id(0), tl.program_id(1)
    m = tl.arange(0, BM)
    if ROUTER:
        job, jobs = group * tl.num_programs(1) + tile, rows * (E // BE)
        if job < jobs:
            scores(stream_at, gain_at, router_at, scores_at, job // (E // BE), job % (E // BE), eps, K, E, BE)
        group -= tl.cdiv(jobs, tl.num_programs(1))
        if group < 0:
            return
    if ROUTED:
        if group >= tl.load(count_at):
            return
        expert = tl.load(active_at + group).to(tl.int64)
    else:
        expert = (FIRST + group).to(tl.int64)
    n = tile * BN + tl.arange(0, BN)
    gate_at = weight_at + (expert * 2 * N + n)[:, None] * K
    up_at = gate_at + N * K
    gate = tl.zeros([BN, BM], tl.float32)
    up = tl.zeros([BN, BM], tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        inside = (n < N)[:, None] & (k < K)[None, :]
        gate_w = tl.load(gate_at + k[None, :], mask=inside, other=0)
        up_w = tl.load(up_at + k[None, :], mask=inside, other=0)
        x = tl.load(x_at + m[None, :] * K + k[:, None], mask=(m < rows)[None, :] & (k < K)[:, None], other=0.0)
        gate = tl.dot(halves(gate_w, INT8, T), x, gate, input_precision="ieee")
        up = tl.dot(halves(up_w, INT8, T), x, up, input_precision="ieee")
    nearly_done(PDL)
    norm = norm_factor(squares_at, m, rows, eps, K, TILES, WIDE)[None, :]
    gate *= norm
    up *= norm
    if INT8:
        scale = scale_at + expert * 2 * N + n
        gate *= tl.load(scale, mask=n < N, other=0.0)[:, None]
        up *= tl.load(scale + N, mask=n < N, other=0.0)[:, None]
    out = gate * tl.sigmoid(gate) * up
    if ROUTED:
        share = tl.load(shares_at + m * E + expert, mask=m < rows, other=0.0)[None, :]
        out = tl.where(share > 0, out * share, 0.0)  # exactly nothing to rows that chose others
    at = out_at + (expert * rows + m)[None, :] * N + n[:, None]
    tl.store(at, out.to(T), mask=(m < rows)[None, :] & (n < N)[:, None])


@triton.jit(do_not_specialize=["rows"])
def down(
    hidden_at,  # T [experts, m, k]
    weight_at,  # [experts, n, k], T or int8
    scale_at,  # float32 [experts, n], if INT8
    active_at,  # int32: the experts that some row visits
    count_at,  # int32: how many
    parts_at,  # float32 [experts, m, n]: written
    rows,
    N: tl.constexpr,
    K: tl.constexpr,
    INT8: tl.constexpr,
    T: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PDL: tl.constexpr,
):
    """hidden @ weight.T of each expert, for `join` to add up. Grid: (experts that rows may visit, n / BN)."""
    begin(PDL)
    group = tl.program_id(0)
    if group >= tl.load(count_at):
        return
    expert = tl.load(active_at + group).to(tl.int64)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    m = tl.arange(0, BM)
    acc = _product(hidden_at + expert * rows * K, weight_at + expert * N * K, n, m, rows, N, K, INT8, T, BM, BN, BK)
    nearly_done(PDL)
    if INT8:
        acc *= tl.load(scale_at + expert * N + n, mask=n < N, other=0.0)[:, None]
    at = parts_at + (expert * rows + m)[None, :] * N + n[:, None]
    tl.store(at, acc, mask=(m < rows)[None, :] & (n < N)[:, None])


@triton.jit(do_not_specialize=["rows"])
def join(
    parts_at,  # float32 [experts, m, n]
    shares_at,  # float32 [m, E]
    stream_at,  # float32 [m, n]: added to
    scaled_at,  # T [m, n]: written, the stream times the next norm's gain
    squares_at,  # float32 [m, n / BN]: written, its sums of squares
    gain_at,  # [n]
    rows,
    N: tl.constexpr,
    E: tl.constexpr,
    TOP: tl.constexpr,
    SHARED: tl.constexpr,
    BE: tl.constexpr,
    BN: tl.constexpr,
    PDL: tl.constexpr,
):
    """stream += what each row gets of its experts, in the order of their numbers. Grid: (m, n / BN)."""
    begin(PDL)
    row, tile = tl.program_id(0), tl.program_id(1)
    n, e = tile * BN + tl.arange(0, BN), tl.arange(0, BE)
    chosen = (tl.load(shares_at + row * E + e, mask=e < E, other=0.0) > 0).to(tl.int32)
    place = tl.cumsum(chosen, 0)
    acc = tl.zeros([BN], tl.float32)
    for number in tl.static_range(TOP):
        mine = (place == number + 1) & (chosen > 0)
        expert = tl.sum(tl.where(mine, e, 0), 0)
        there = tl.sum(mine.to(tl.int32), 0) > 0
        acc += tl.load(parts_at + (expert * rows + row) * N + n, mask=(n < N) & there, other=0.0)
    for number in tl.static_range(SHARED):
        acc += tl.load(parts_at + ((E + number) * rows + row) * N + n, mask=n < N, other=0.0)
    nearly_done(PDL)
    x = acc + tl.load(stream_at + row * N + n, mask=n < N, other=0.0)
    tl.store(stream_at + row * N + n, x, mask=n < N)
    gain = tl.load(gain_at + n, mask=n < N, other=0.0).to(tl.float32)
    tl.store(scaled_at + row * N + n, (x * gain).to(scaled_at.dtype.element_ty), mask=n < N)
    squares = tl.sum(tl.where(n < N, x * x, 0.0).to(tl.float64), 0)
    tl.store(squares_at + row * tl.num_programs(1) + tile, squares.to(tl.float32))
