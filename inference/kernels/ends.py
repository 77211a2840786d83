# pyright: basic
# Triton's language is no Python to a type checker.
"""Where a step begins and ends: embeddings in, the likeliest token out."""

import triton
import triton.language as tl

from inference.kernels.common import begin


@triton.jit
def embed(
    asked_at,  # int32 [RING, 6, STRIDE], on the host: token, or -1 - i for the one chosen at row i; position, slot,
    # sequence, mask; how many rows are real
    turn_at,  # int32 [2]: whose turn it is of RING; written, the same, for `best`
    inputs_at,  # int32 [6, STRIDE]: written, what is asked in this turn
    given_at,  # int32: the tokens chosen last
    table_at,  # int32 [sequences, width]: the rows' slots are written
    embedding_at,  # [vocab, k]
    scale_at,  # float32 [vocab], if INT8
    stream_at,  # float32 [m, k]: written
    scaled_at,  # T [m, k]: written, the stream times the first norm's gain
    squares_at,  # float32 [m, TILES]: written, its sum of squares, in the first
    gain_at,  # [k]
    chosen_at,  # int32 [LAYERS]: zeroed, whether a row alone has chosen its experts in each layer
    width,
    K: tl.constexpr,
    TILES: tl.constexpr,
    WIDE: tl.constexpr,
    INT8: tl.constexpr,
    BK: tl.constexpr,
    STRIDE: tl.constexpr,
    LAYERS: tl.constexpr,
    BL: tl.constexpr,
    PDL: tl.constexpr,
):
    """What is asked, the residual stream's beginning, and each row's slot in its sequence's table. Grid: (m,).

    What is asked is read from the host's memory, as two small copies a step cost more than some layers do.
    """
    begin(PDL)
    row = tl.program_id(0)
    turn = tl.load(turn_at)
    what = tl.arange(0, 8)
    at = tl.where(what == 5, 5 * STRIDE, what * STRIDE + row)  # the count stands in the first column
    asked = tl.load(asked_at + turn * 6 * STRIDE + at, mask=what < 6, other=0)
    tl.store(inputs_at + at, asked, mask=what < 6)
    if row == 0:
        tl.store(turn_at + 1, turn)
    token = tl.sum(tl.where(what == 0, asked, 0), 0)
    position = tl.sum(tl.where(what == 1, asked, 0), 0)
    slot = tl.sum(tl.where(what == 2, asked, 0), 0)
    sequence = tl.sum(tl.where(what == 3, asked, 0), 0).to(tl.int64)
    if token < 0:
        token = tl.load(given_at - 1 - token)
    tl.store(table_at + sequence * width + position, slot)
    k = tl.arange(0, BK)
    x = tl.load(embedding_at + token.to(tl.int64) * K + k, mask=k < K, other=0).to(tl.float32)
    if INT8:
        x *= tl.load(scale_at + token)
    tl.store(stream_at + row * K + k, x, mask=k < K)
    gain = tl.load(gain_at + k, mask=k < K, other=0.0).to(tl.float32)
    tl.store(scaled_at + row * K + k, (x * gain).to(scaled_at.dtype.element_ty), mask=k < K)
    tile = tl.arange(0, WIDE)
    squares = tl.where(tile == 0, tl.sum((x * x).to(tl.float64), 0), 0.0)
    tl.store(squares_at + row * TILES + tile, squares.to(tl.float32), mask=tile < TILES)
    if row == 0:
        layer = tl.arange(0, BL)
        tl.store(chosen_at + layer, 0, mask=layer < LAYERS)


@triton.jit
def best_of_block(
    logits_at,  # float32 [m, vocab]
    masks_at,  # uint8 [masks, vocab]: 1 where a token is allowed
    mask_of_at,  # int32 [m]: which mask, or -1
    block_at,  # float32 [m, blocks, 3]: written: the highest, its place, the sum of exp
    vocab,
    BLOCKS: tl.constexpr,
    BV: tl.constexpr,
    PDL: tl.constexpr,
):
    """The likeliest token of a part of the vocabulary. Grid: (m, blocks)."""
    begin(PDL)
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    v = block * BV + tl.arange(0, BV)
    logits = tl.load(logits_at + row * vocab + v, mask=v < vocab, other=float("-inf"))
    mask = tl.load(mask_of_at + row).to(tl.int64)
    if mask >= 0:
        allowed = tl.load(masks_at + mask * vocab + v, mask=v < vocab, other=0)
        logits = tl.where(allowed > 0, logits, float("-inf"))
    high, place = tl.max(logits, 0, return_indices=True, return_indices_tie_break_left=True)
    base = tl.where(high > float("-inf"), high, 0.0)
    at = block_at + (row * BLOCKS + block) * 3
    tl.store(at, high)
    tl.store(at + 1, (block * BV + place).to(tl.float32))
    tl.store(at + 2, tl.sum(tl.exp(logits - base), 0))


@triton.jit
def best(
    block_at,  # float32 [m, blocks, 3]
    token_at,  # int32 [m]: written
    logprob_at,  # float32 [m]: written, among the allowed
    turn_at,  # int32 [2]: the next turn is written; whose it is
    answered_at,  # int32 [RING, 2, STRIDE], on the host: written, both, in this turn's place
    BLOCKS: tl.constexpr,
    BB: tl.constexpr,
    RING: tl.constexpr,
    STRIDE: tl.constexpr,
    PDL: tl.constexpr,
):
    """The likeliest token of all, the first of equals, and its log-probability in nats. Grid: (m,)."""
    begin(PDL)
    row = tl.program_id(0)
    block = tl.arange(0, BB)
    at = block_at + (row * BLOCKS + block) * 3
    high = tl.load(at, mask=block < BLOCKS, other=float("-inf"))
    place = tl.load(at + 1, mask=block < BLOCKS, other=0.0)
    total = tl.load(at + 2, mask=block < BLOCKS, other=0.0)
    most, which = tl.max(high, 0, return_indices=True, return_indices_tie_break_left=True)
    token = tl.sum(tl.where(block == which, place, 0.0), 0)
    scaled = tl.where(high > float("-inf"), total * tl.exp(high - most), 0.0)
    token, logprob = token.to(tl.int32), -tl.log(tl.sum(scaled, 0))
    tl.store(token_at + row, token)
    tl.store(logprob_at + row, logprob)
    turn = tl.load(turn_at + 1)
    answer = answered_at + turn * 2 * STRIDE + row
    tl.store(answer, token)
    tl.store(answer + STRIDE, logprob.to(tl.int32, bitcast=True))
    if row == 0:
        tl.store(turn_at, (turn + 1) % RING)
