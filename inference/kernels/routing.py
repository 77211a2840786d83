# pyright: basic, reportGeneralTypeIssues=false, reportAssignmentType=false, reportIndexIssue=false
# Triton's language is no Python to a type checker.
"""Which experts a token visits."""

import triton
import triton.language as tl

from inference.kernels.common import begin, nearly_done


@triton.jit
def scores(
    stream_at, gain_at, router_at, scores_at, row, tile, eps, K: tl.constexpr, E: tl.constexpr, BE: tl.constexpr
):
    """The router's scores of a row for BE experts, in float32: near-ties must fall as in the reference."""
    e = tile * BE + tl.arange(0, BE)
    BK: tl.constexpr = 512
    sums = tl.zeros([BE, BK], tl.float32)
    squares = tl.zeros([BK], tl.float32)
    for start in tl.static_range(0, K, BK):
        k = start + tl.arange(0, BK)
        x = tl.load(stream_at + row * K + k, mask=k < K, other=0.0)
        squares += x * x
        x *= tl.load(gain_at + k, mask=k < K, other=0.0).to(tl.float32)
        router = tl.load(router_at + e[:, None] * K + k[None, :], mask=(k < K)[None, :], other=0.0)
        sums += router.to(tl.float32) * x[None, :]
    norm = tl.rsqrt((tl.sum(squares.to(tl.float64), 0) / K).to(tl.float32) + eps)
    tl.store(scores_at + row * E + e, tl.sum(sums.to(tl.float64), 1).to(tl.float32) * norm)


@triton.jit
def route(
    scores_at,  # float32 [m, E]
    shares_at,  # float32 [m, E]: written
    active_at,  # int32: written, the chosen experts in order, then the SHARED that all rows visit
    count_at,  # int32 [2]: written, how many were chosen, and how many there are with the shared
    live_at,  # int32: rows beyond so many only fill up the step, and choose none
    factor,
    E: tl.constexpr,
    TOP: tl.constexpr,
    SHARED: tl.constexpr,
    BM: tl.constexpr,
    BE: tl.constexpr,
    PDL: tl.constexpr,
):
    """Softmax and the TOP best experts of each row; of equals the first. Grid: (1,)."""
    begin(PDL)
    live = tl.load(live_at)
    nearly_done(PDL)
    choose(scores_at, shares_at, active_at, count_at, live, factor, E, TOP, SHARED, BM, BE)


@triton.jit
def choose_one(
    parts_at,
    active_at,
    shares_at,
    norm,
    factor,
    E: tl.constexpr,
    TOP: tl.constexpr,
    SHARED: tl.constexpr,
    ALL: tl.constexpr,
    TILES: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The choice of a row alone, by one program, from parts of the scores, [TILES, E]: of equals the first; what is no
    number comes last.
    """
    e, tile = tl.arange(0, ALL), tl.arange(0, WIDE)
    there = (tile < TILES)[:, None] & (e < E)[None, :]
    scores = tl.sum(tl.load(parts_at + tile[:, None] * E + e[None, :], mask=there, other=0.0), 0) * norm
    scores = tl.where((scores == scores) & (e < E), scores, float("-inf"))
    mine, others = scores[:, None], scores[None, :]
    rank = tl.sum(((others > mine) | ((others == mine) & (e[None, :] < e[:, None]))).to(tl.int32), 1)
    chosen = (rank < TOP) & (e < E)
    shares = tl.exp(scores - tl.max(scores, 0))
    shares /= tl.sum(shares, 0)
    tl.store(shares_at + e, tl.where(chosen, shares * factor, 0.0), mask=e < E)
    tl.store(active_at + rank, e, mask=chosen)
    tl.store(active_at + TOP + e, E + e, mask=e < SHARED)


@triton.jit
def choose(
    scores_at,
    shares_at,
    active_at,
    count_at,
    live,
    factor,
    E: tl.constexpr,
    TOP: tl.constexpr,
    SHARED: tl.constexpr,
    BM: tl.constexpr,
    BE: tl.constexpr,
):
    """What `route` does, for `live` rows."""
    m, e = tl.arange(0, BM), tl.arange(0, BE)
    real = e[None, :] < E
    scores = tl.load(scores_at + m[:, None] * E + e[None, :], mask=(m < live)[:, None] & real, other=0.0)
    scores = tl.where(real, scores, float("-inf"))
    shares = tl.exp(scores - tl.max(scores, 1)[:, None])
    shares /= tl.sum(shares.to(tl.float64), 1).to(tl.float32)[:, None]
    left = tl.where(real, shares, -1.0)
    chosen = tl.zeros([BM, BE], tl.int32)
    for _ in tl.static_range(TOP):
        best = tl.argmax(left, 1, tie_break_left=True)
        mine = e[None, :] == best[:, None]
        chosen = tl.where(mine, 1, chosen)
        left = tl.where(mine, -2.0, left)
    chosen = tl.where((m < live)[:, None], chosen, 0)
    tl.store(shares_at + m[:, None] * E + e[None, :], tl.where(chosen > 0, shares * factor, 0.0), mask=real)
    active = tl.max(chosen, 0)
    place = tl.cumsum(active, 0) - active
    tl.store(active_at + place, e, mask=active > 0)
    count = tl.sum(active, 0)
    shared = tl.arange(0, 16)
    tl.store(active_at + count + shared, E + shared, mask=shared < SHARED)
    tl.store(count_at, count)
    tl.store(count_at + 1, count + SHARED)
