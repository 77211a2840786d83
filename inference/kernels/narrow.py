# pyright: basic
# Triton's language is no Python to a type checker.
"""The matrices of a step of one row, by multiplying and adding: each program holds whole rows of weights in registers.

The matrix units would have nothing to do but wait, and many small programs keep more of memory in flight: a step is 7 %
faster on an H100 than through `wide`. Sums run in another order than there. Weights are asked for before the kernel
before is done. T is the model's type. Shapes: n outputs, k inputs.
"""

import triton
import triton.language as tl

from inference.kernels.common import add_residual, begin, floats, nearly_done, norm_factor
from inference.kernels.routing import scores


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
    out = _product(x_at, weight_at, n, N, K, INT8, BN, BK, PDL)
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
    out = _product(x_at, weight_at, n, N, K, INT8, BN, BK, PDL)
    if INT8:
        out *= tl.load(scale_at + n, mask=n < N, other=0.0)
    add_residual(out[:, None], stream_at, scaled_at, squares_at, gain_at, n, tl.arange(0, 1), 1, N)


@triton.jit
def gated(
    x_at,  # T [k]: the residual stream times the norm's gain
    squares_at,  # float64 [TILES]: of the stream
    weight_at,  # [experts, 2 * n, k], T or int8: gate rows, then up rows
    scale_at,  # float32 [experts, 2 * n], if INT8
    active_at,  # int32: the experts that were chosen, if ROUTED
    shares_at,  # float32 [E]: what the row takes of each expert
    stream_at,  # float32 [k], if ROUTER
    gain_at,  # [k], if ROUTER
    router_at,  # [E, k], if ROUTER
    scores_at,  # float32 [E]: written if ROUTER
    out_at,  # T [experts, n]: written
    eps,
    N: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
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
    """silu(gate(x)) * up(x) of some experts, times the row's share. Grid: as of `wide.gated`."""
    group, tile = tl.program_id(0), tl.program_id(1)
    if ROUTER:
        job, jobs = group * tl.num_programs(1) + tile, E // BE
        if job < jobs:
            begin(PDL)
            scores(stream_at, gain_at, router_at, scores_at, 0, job, eps, K, E, BE)
        group -= tl.cdiv(jobs, tl.num_programs(1))
        if group < 0:
            return
    if ROUTED:
        begin(PDL)
        expert = tl.load(active_at + group).to(tl.int64)
    else:
        expert = (FIRST + group).to(tl.int64)
    n = tile * BN + tl.arange(0, BN)
    gate_at = weight_at + (expert * 2 * N + n)[:, None] * K
    gate = tl.zeros([BN, BK], tl.float32)
    up = tl.zeros([BN, BK], tl.float32)
    for start in tl.static_range(0, K, BK):
        k = start + tl.arange(0, BK)
        inside = (n < N)[:, None] & (k < K)[None, :]
        gate_w = tl.load(gate_at + k[None, :], mask=inside, other=0)
        up_w = tl.load(gate_at + N * K + k[None, :], mask=inside, other=0)
        if not ROUTED and start == 0:
            begin(PDL)
        x = tl.load(x_at + k, mask=k < K, other=0.0).to(tl.float32)[None, :]
        gate += floats(gate_w, INT8) * x
        up += floats(up_w, INT8) * x
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
    BK: tl.constexpr,
    PDL: tl.constexpr,
):
    """The residual plus the sum over experts of hidden @ weight.T. Grid: (n / BN,)."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    begin(PDL)
    acc = tl.zeros([BN, BK], tl.float32)
    for place in tl.static_range(EXPERTS):
        expert = tl.load(active_at + place).to(tl.int64)
        for start in tl.static_range(0, K, BK):
            k = start + tl.arange(0, BK)
            inside = (n < N)[:, None] & (k < K)[None, :]
            weight = tl.load(weight_at + (expert * N + n)[:, None] * K + k[None, :], mask=inside, other=0)
            product = floats(weight, INT8) * tl.load(hidden_at + expert * K + k, mask=k < K, other=0.0)[None, :]
            if INT8:
                product *= tl.load(scale_at + expert * N + n, mask=n < N, other=0.0)[:, None]
            acc += product
    nearly_done(PDL)
    add_residual(tl.sum(acc, 1)[:, None], stream_at, scaled_at, squares_at, gain_at, n, tl.arange(0, 1), 1, N)


@triton.jit
def _product(
    x_at, weight_at, n, N, K: tl.constexpr, INT8: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PDL: tl.constexpr
):
    """[BN] of weight @ x, float32."""
    acc = tl.zeros([BN, BK], tl.float32)
    for start in tl.static_range(0, K, BK):
        k = start + tl.arange(0, BK)
        inside = (n < N)[:, None] & (k < K)[None, :]
        weight = tl.load(weight_at + n[:, None] * K + k[None, :], mask=inside, other=0)
        if start == 0:
            begin(PDL)
        acc += floats(weight, INT8) * tl.load(x_at + k, mask=k < K, other=0.0).to(tl.float32)[None, :]
    nearly_done(PDL)
    return tl.sum(acc, 1)
