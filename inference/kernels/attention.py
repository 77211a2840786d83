# pyright: basic
# Triton's language is no Python to a type checker.
"""Multi-head latent attention among latents: the expansion of keys absorbed into queries, that of values into outputs.

T is the model's type.
"""

import triton
import triton.language as tl

from inference.kernels.common import begin, nearly_done


@triton.jit(do_not_specialize=["rows"])
def absorb(
    inward_at,  # T [m, h * d | h * r | r | c]: queries unrotated, rotated, then the key's rotated part, the latent
    key_up_at,  # T [h, d, c], W_UK
    gain_at,  # [c], of the latent's norm
    rotations_at,  # float32 [positions, r / 2, 2]: cosine and sine
    positions_at,  # int32 [m]
    slots_at,  # int32 [m]
    queries_at,  # T [m, h, c + r]: written
    pool_at,  # T [slots, c + r]: the rows' slots are written
    rows,
    eps,
    H: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    BD: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,  # c, as a power of two
    BM: tl.constexpr,
    PDL: tl.constexpr,
):
    """Queries among latents, and the rows' own latents.

    Grid: (h + 1, 1 + the more of c / BC and m); the last head writes the latents, a row each.
    """
    head, tile = tl.program_id(0), tl.program_id(1)
    IN: tl.constexpr = H * (D + R) + R + C
    m = tl.arange(0, BM)
    if head < H and (tile - 1) * BC >= C:
        begin(PDL)
        return
    if head < H and tile > 0:
        c = (tile - 1) * BC + tl.arange(0, BC)
        d = tl.arange(0, BD)
        up = tl.load(
            key_up_at + (head * D + d)[None, :] * C + c[:, None],
            mask=(d < D)[None, :] & (c < C)[:, None],
            other=0.0,
        )
        begin(PDL)
        x = tl.load(
            inward_at + m[None, :] * IN + (head * D + d)[:, None],
            mask=(m < rows)[None, :] & (d < D)[:, None],
            other=0.0,
        )
        nearly_done(PDL)
        low = tl.dot(up, x, input_precision="ieee")
        at = queries_at + (m[None, :] * H + head) * (C + R) + c[:, None]
        tl.store(at, low.to(queries_at.dtype.element_ty), mask=(m < rows)[None, :] & (c < C)[:, None])
    elif tile == 0:  # a head's rotated part, or the key's
        begin(PDL)
        pair = tl.arange(0, R // 2)
        inside = (m < rows)[:, None]
        place = tl.load(positions_at + m, mask=m < rows, other=0)
        turn = rotations_at + place[:, None] * R + 2 * pair[None, :]
        cosine, sine = tl.load(turn, mask=inside, other=0.0), tl.load(turn + 1, mask=inside, other=0.0)
        source = inward_at + m[:, None] * IN + H * D + head * R + 2 * pair[None, :]
        even = tl.load(source, mask=inside, other=0.0).to(tl.float32)
        odd = tl.load(source + 1, mask=inside, other=0.0).to(tl.float32)
        if head < H:
            target = queries_at + (m[:, None] * H + head) * (C + R) + C + 2 * pair[None, :]
        else:
            slot = tl.load(slots_at + m, mask=m < rows, other=0).to(tl.int64)
            target = pool_at + slot[:, None] * (C + R) + C + 2 * pair[None, :]
        tl.store(target, (even * cosine - odd * sine).to(pool_at.dtype.element_ty), mask=inside)
        tl.store(target + 1, (even * sine + odd * cosine).to(pool_at.dtype.element_ty), mask=inside)
    elif tile <= rows:
        begin(PDL)
        row = tile - 1
        c = tl.arange(0, WIDE)
        gain = tl.load(gain_at + c, mask=c < C, other=0.0).to(tl.float32)
        latent = tl.load(inward_at + row * IN + H * (D + R) + R + c, mask=c < C, other=0.0).to(tl.float32)
        latent *= tl.rsqrt(tl.sum(latent * latent, 0) / C + eps)
        slot = tl.load(slots_at + row).to(tl.int64)
        tl.store(pool_at + slot * (C + R) + c, (latent * gain).to(pool_at.dtype.element_ty), mask=c < C)


@triton.jit
def attend(
    queries_at,  # T [m, h, c + r]
    pool_at,  # T [slots, c + r]
    table_at,  # int32 [sequences, width]: slot of each token
    sequences_at,  # int32 [m]: each row's row of the table
    positions_at,  # int32 [m]: it sees the tokens up to its own
    partial_at,  # T [m, splits, h, c]: written
    weights_at,  # float32 [m, splits, h]: written, log2 of each part's sum
    width,
    scale,  # of scores, times log2(e)
    H: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    SPLITS: tl.constexpr,
    BH: tl.constexpr,
    BT: tl.constexpr,
    BR: tl.constexpr,  # r, as the matrix units take it
    WIDE: tl.constexpr,
    ALONE: tl.constexpr,
    PDL: tl.constexpr,
):
    """One row's attention to one part of its tokens. Grid: (m, splits, h / BH).

    Of a row ALONE most of the time goes by in waiting, so what it waits for is asked for at once: latents and queries.
    Queries become operands of a product within the loop; before it they would be waited for before latents are asked
    for. That takes twice the registers, and of several rows two programs a processor are worth more.
    """
    row, part = tl.program_id(0), tl.program_id(1)
    h = tl.program_id(2) * BH + tl.arange(0, BH)
    c, r = tl.arange(0, WIDE), tl.arange(0, BR)
    length = tl.load(positions_at + row) + 1
    size = _part(length, SPLITS, BT)
    first = part * size
    last = tl.minimum(length, first + size)
    if first >= last:
        return
    # Positions and slots are as old as the step: they may be read before the kernel before ends.
    slots_at = table_at + tl.load(sequences_at + row).to(tl.int64) * width
    slot = _slots(slots_at, first, last, BT, ALONE)
    some_h, some_c, some_r = (h < H)[:, None], (c < C)[None, :], (r < R)[None, :]
    if PDL and not ALONE:
        _prefetch(pool_at, slot, C + R)
    begin(PDL)
    query = queries_at + (row * H + h)[:, None] * (C + R)
    low = tl.load(query + c[None, :], mask=some_h & some_c, other=0.0)  # [h, c]
    turned = tl.load(query + C + r[None, :], mask=some_h & some_r, other=0.0)  # [h, r]
    most = tl.full([BH], float("-inf"), tl.float32)
    total = tl.zeros([BH], tl.float32)
    mixed = tl.zeros([BH, WIDE], tl.float32)
    for start in range(first, last, BT):
        token = pool_at + slot.to(tl.int64)[:, None] * (C + R)
        seen = start + tl.arange(0, BT) < last
        # A row alone reads the last token again rather than look at each: it waits for its arithmetic, not for memory.
        wanted = tl.full([BT, 1], True, tl.int1) if ALONE else seen[:, None]
        latent = tl.load(token + c[None, :], mask=wanted & some_c, other=0.0)  # [t, c]
        key = tl.load(token + C + r[None, :], mask=wanted & some_r, other=0.0)  # [t, r]
        slot = _slots(slots_at, start + BT, last, BT, ALONE)
        if ALONE:  # start is never below 0; what doesn't depend on it would be taken out of the loop
            scores = tl.dot(tl.where(start < 0, 0.0, low), tl.trans(latent), input_precision="ieee")
            scores = tl.dot(tl.where(start < 0, 0.0, turned), tl.trans(key), scores, input_precision="ieee") * scale
        else:
            scores = tl.dot(low, tl.trans(latent), input_precision="ieee")
            scores = tl.dot(turned, tl.trans(key), scores, input_precision="ieee") * scale
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(most, tl.max(scores, 1))
        shares = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(most - higher)
        total = total * shrink + tl.sum(shares, 1)
        mixed = tl.dot(shares.to(latent.dtype), latent, mixed * shrink[:, None], input_precision="ieee")
        most = higher
    nearly_done(PDL)
    at = (row * SPLITS + part) * H + h
    tl.store(
        partial_at + at[:, None] * C + c[None, :],
        (mixed * (1 / total)[:, None]).to(partial_at.dtype.element_ty),
        mask=some_h & some_c,
    )
    tl.store(weights_at + at, most + tl.log2(total), mask=h < H)


@triton.jit
def _slots(slots_at, start, last, BT: tl.constexpr, ALONE: tl.constexpr):
    """Of the tokens from `start` on; for a row ALONE again the last one's instead of those from `last` on."""
    t = start + tl.arange(0, BT)
    if ALONE:
        return tl.load(slots_at + tl.minimum(t, last - 1))
    else:
        return tl.load(slots_at + t, mask=t < last, other=0)


@triton.jit
def _part(length, SPLITS: tl.constexpr, BT: tl.constexpr):
    """Tokens a part. They follow from the length alone, so that sums don't depend on the other rows."""
    return tl.cdiv(tl.cdiv(length, SPLITS), BT) * BT


@triton.jit
def _prefetch(pool_at, slot, SIZE: tl.constexpr):
    """Brings latents to the cache while the newest are still being computed."""
    part = tl.arange(0, 16)
    line = tl.minimum(part * 64, SIZE - 1)  # 128 bytes each
    at = pool_at + slot.to(tl.int64)[:, None] * SIZE + line[None, :]
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [at], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def expand(
    partial_at,  # T [m, splits, h, c]
    weights_at,  # float32 [m, splits, h]
    positions_at,  # int32 [m]
    value_up_at,  # T [h, c, v], W_UV
    out_at,  # T [m, PIECES, h * v]: written; their sum is the output
    H: tl.constexpr,
    C: tl.constexpr,
    V: tl.constexpr,
    SPLITS: tl.constexpr,
    PIECES: tl.constexpr,
    BT: tl.constexpr,  # as of `attend`
    BS: tl.constexpr,  # parts at once
    BV: tl.constexpr,
    BC: tl.constexpr,  # c / PIECES
    PDL: tl.constexpr,
):
    """Joins a row's parts and expands them to a head's output, or a piece of it. Grid: (h, v / BV, m * PIECES)."""
    head, tile, row, piece = tl.program_id(0), tl.program_id(1), tl.program_id(2) // PIECES, tl.program_id(2) % PIECES
    v, c = tl.arange(0, BV) + tile * BV, piece * BC + tl.arange(0, BC)
    up = tl.load(
        value_up_at + (head * C + c)[None, :] * V + v[:, None], mask=(c < C)[None, :] & (v < V)[:, None], other=0.0
    )
    length = tl.load(positions_at + row) + 1
    parts = tl.cdiv(length, _part(length, SPLITS, BT))
    begin(PDL)
    most = tl.full([], float("-inf"), tl.float32)
    total = tl.zeros([], tl.float32)
    joined = tl.zeros([BC], tl.float32)
    end = SPLITS if BS >= SPLITS else parts  # all at once take no loop, and with that fewer registers
    for start in range(0, end, BS):
        part = start + tl.arange(0, BS)
        at = (row * SPLITS + part) * H + head
        weight = tl.load(weights_at + at, mask=part < parts, other=float("-inf"))
        mixed = tl.load(
            partial_at + at[:, None] * C + c[None, :], mask=(part < parts)[:, None] & (c < C)[None, :], other=0.0
        )
        higher = tl.maximum(most, tl.max(weight, 0))
        share = tl.exp2(weight - higher)
        shrink = tl.exp2(most - higher)
        total = total * shrink + tl.sum(share, 0)
        joined = joined * shrink + tl.sum(mixed.to(tl.float32) * share[:, None], 0)
        most = higher
    nearly_done(PDL)
    out = tl.sum(up.to(tl.float32) * (joined / total)[None, :], 1)
    at = (row * PIECES + piece) * H * V + head * V + v
    tl.store(out_at + at, out.to(out_at.dtype.element_ty), mask=v < V)
