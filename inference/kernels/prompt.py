# pyright: basic, reportGeneralTypeIssues=false, reportAssignmentType=false, reportIndexIssue=false
# Triton's language is no Python to a type checker.
"""The small steps between the matrix products of a prompt's chunk, each in one pass over memory.

T is the model's type. Shapes: n rows, t tokens of a sequence, h heads, c values of a latent, r rotated and d unrotated
values of a head, v of its output.
"""

import triton
import triton.language as tl


@triton.jit
def arrange(
    inward_at,  # T [n, h * d | h * r | r | c]
    gain_at,  # [c], of the latent's norm
    rotations_at,  # float32 [positions, r / 2, 2]: cosine and sine
    positions_at,  # int64 [n]
    slots_at,  # int64 [n]
    queries_at,  # T [n, h, d + r]: written
    pool_at,  # T [slots, c + r]: the rows' slots are written
    eps,
    H: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    BH: tl.constexpr,
    BD: tl.constexpr,
    BC: tl.constexpr,
):
    """Queries with their rotated part behind the other, and the row's own latent. Grid: (n,)."""
    row = tl.program_id(0).to(tl.int64)
    IN: tl.constexpr = H * (D + R) + R + C
    T = pool_at.dtype.element_ty
    pair = tl.arange(0, R // 2)
    turn = rotations_at + tl.load(positions_at + row) * R + 2 * pair
    cosine, sine = tl.load(turn)[None, :], tl.load(turn + 1)[None, :]
    h, d, c = tl.arange(0, BH), tl.arange(0, BD), tl.arange(0, BC)
    source, target = inward_at + row * IN, queries_at + row * H * (D + R)
    inside = (h < H)[:, None] & (d < D)[None, :]
    plain = tl.load(source + h[:, None] * D + d[None, :], mask=inside, other=0.0)
    tl.store(target + h[:, None] * (D + R) + d[None, :], plain, mask=inside)
    real = (h < H)[:, None]
    even = tl.load(source + H * D + h[:, None] * R + 2 * pair[None, :], mask=real, other=0.0).to(tl.float32)
    odd = tl.load(source + H * D + h[:, None] * R + 2 * pair[None, :] + 1, mask=real, other=0.0).to(tl.float32)
    turned = target + h[:, None] * (D + R) + D + 2 * pair[None, :]
    tl.store(turned, (even * cosine - odd * sine).to(T), mask=real)
    tl.store(turned + 1, (even * sine + odd * cosine).to(T), mask=real)
    one = tl.arange(0, 1)[:, None]
    even = tl.load(source + H * (D + R) + one + 2 * pair[None, :]).to(tl.float32)
    odd = tl.load(source + H * (D + R) + one + 2 * pair[None, :] + 1).to(tl.float32)
    slot = pool_at + tl.load(slots_at + row) * (C + R)
    tl.store(slot + C + one + 2 * pair[None, :], (even * cosine - odd * sine).to(T))
    tl.store(slot + C + one + 2 * pair[None, :] + 1, (even * sine + odd * cosine).to(T))
    latent = tl.load(source + H * (D + R) + R + c, mask=c < C, other=0.0).to(tl.float32)
    latent *= tl.rsqrt(tl.sum(latent * latent, 0) / C + eps)
    gain = tl.load(gain_at + c, mask=c < C, other=0.0).to(tl.float32)
    tl.store(slot + c, (latent * gain).to(T), mask=c < C)


@triton.jit
def attend(
    queries_at,  # T [n, h, d + r]: of the sequence's last n tokens
    both_at,  # T [t, h, d + v]: all tokens' keys, unrotated, and values
    latents_at,  # T [t, stride]: the rotated part of their keys stands behind c values
    out_at,  # T [n, h * v]: written
    n,
    t,
    stride,
    scale,  # of scores, times log2(e)
    H: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BD: tl.constexpr,  # these three as the matrix units take them
    BR: tl.constexpr,
    BV: tl.constexpr,
    BQ: tl.constexpr,
    BT: tl.constexpr,
):
    """Causal attention (Dao 2023, arXiv 2307.08691), keys in their two parts. Grid: (n / BQ, h)."""
    block, head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1)  # those with most keys first
    q = block * BQ + tl.arange(0, BQ)
    d, r, v = tl.arange(0, BD), tl.arange(0, BR), tl.arange(0, BV)
    row = queries_at + (q[:, None] * H + head) * (D + R)
    plain = tl.load(row + d[None, :], mask=(q < n)[:, None] & (d < D)[None, :], other=0.0)
    turned = tl.load(row + D + r[None, :], mask=(q < n)[:, None] & (r < R)[None, :], other=0.0)
    own = t - n + q  # each query's place in the sequence
    most = tl.full([BQ], float("-inf"), tl.float32)
    total = tl.zeros([BQ], tl.float32)
    mixed = tl.zeros([BQ, BV], tl.float32)
    for start in range(0, tl.minimum(t, t - n + (block + 1) * BQ), BT):
        k = start + tl.arange(0, BT)
        real = (k < t)[:, None]
        token = both_at + (k[:, None] * H + head).to(tl.int64) * (D + V)
        key = tl.load(token + d[None, :], mask=real & (d < D)[None, :], other=0.0)
        rotated_at = latents_at + k[:, None].to(tl.int64) * stride + C + r[None, :]
        rotated = tl.load(rotated_at, mask=real & (r < R)[None, :], other=0.0)
        value = tl.load(token + D + v[None, :], mask=real & (v < V)[None, :], other=0.0)
        scores = tl.dot(plain, tl.trans(key), input_precision="ieee")
        scores = tl.dot(turned, tl.trans(rotated), scores, input_precision="ieee") * scale
        scores = tl.where((k[None, :] <= own[:, None]) & (k < t)[None, :], scores, float("-inf"))
        higher = tl.maximum(most, tl.max(scores, 1))
        shares = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(most - higher)
        total = total * shrink + tl.sum(shares, 1)
        mixed = tl.dot(shares.to(value.dtype), value, mixed * shrink[:, None], input_precision="ieee")
        most = higher
    at = out_at + q[:, None] * (H * V) + head * V + v[None, :]
    tl.store(at, (mixed / total[:, None]).to(out_at.dtype.element_ty), mask=(q < n)[:, None] & (v < V)[None, :])


@triton.jit
def gate(
    both_at,  # T [rows, 2 * n]: gate, then up
    shares_at,  # float32: of each (token, choice), if ROUTED
    order_at,  # int64 [rows]: which of these a row is, if ROUTED
    experts_at,  # [rows]: its expert, if INT8 and ROUTED; else that is the row's place in its token
    scale_at,  # float32 [experts, 2 * n], if INT8
    out_at,  # T [rows, n]: written
    N: tl.constexpr,
    ROUTED: tl.constexpr,
    INT8: tl.constexpr,
    PLACES: tl.constexpr,
    BN: tl.constexpr,
):
    """silu(gate) * up * share. Grid: (rows,)."""
    row = tl.program_id(0).to(tl.int64)
    if INT8:
        expert = tl.load(experts_at + row).to(tl.int64) if ROUTED else row % PLACES
    for start in tl.static_range(0, N, BN):
        n = start + tl.arange(0, BN)
        left = tl.load(both_at + row * 2 * N + n, mask=n < N, other=0.0).to(tl.float32)
        right = tl.load(both_at + row * 2 * N + N + n, mask=n < N, other=0.0).to(tl.float32)
        if INT8:
            left *= tl.load(scale_at + expert * 2 * N + n, mask=n < N, other=0.0)
            right *= tl.load(scale_at + expert * 2 * N + N + n, mask=n < N, other=0.0)
        out = left * tl.sigmoid(left) * right
        if ROUTED:
            out *= tl.load(shares_at + tl.load(order_at + row))
        tl.store(out_at + row * N + n, out.to(out_at.dtype.element_ty), mask=n < N)


@triton.jit
def gather(
    parts_at,  # T [rows, n]: in the order of their experts
    places_at,  # int64 [tokens, top]: where a token's rows stand
    experts_at,  # int64 [tokens, top]: of which expert they are, if INT8
    scale_at,  # float32 [experts, n], if INT8
    x_at,  # T [tokens, n]: added to
    N: tl.constexpr,
    TOP: tl.constexpr,
    INT8: tl.constexpr,
    BN: tl.constexpr,
):
    """x += the sum of each token's rows. Grid: (tokens, n / BN)."""
    token = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    acc = tl.load(x_at + token * N + n, mask=n < N, other=0.0).to(tl.float32)
    for choice in tl.static_range(TOP):
        part = tl.load(parts_at + tl.load(places_at + token * TOP + choice) * N + n, mask=n < N, other=0.0)
        part = part.to(tl.float32)
        if INT8:
            part *= tl.load(scale_at + tl.load(experts_at + token * TOP + choice) * N + n, mask=n < N, other=0.0)
        acc += part
    tl.store(x_at + token * N + n, acc.to(x_at.dtype.element_ty), mask=n < N)
