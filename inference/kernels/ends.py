# pyright: basic
# Triton's language is no Python to a type checker.
"""Where a step begins and ends: embeddings in, the likeliest token out."""

import triton
import triton.language as tl

from inference.kernels.common import begin


@triton.jit
def embed(
    inputs_at,  # int32 [4, m]: token, or -1 - i for the one chosen at row i; position, slot, sequence
    given_at,  # int32: the tokens chosen last
    table_at,  # int32 [sequences, width]: the rows' slots are written
    embedding_at,  # [vocab, k]
    scale_at,  # float32 [vocab], if INT8
    stream_at,  # float32 [m, k]: written
    scaled_at,  # T [m, k]: written, the stream times the first norm's gain
    squares_at,  # float64 [m, TILES]: written, its sum of squares, in the first
    gain_at,  # [k]
    stride,  # between the rows of inputs
    width,
    K: tl.constexpr,
    TILES: tl.constexpr,
    WIDE: tl.constexpr,
    INT8: tl.constexpr,
    BK: tl.constexpr,
    PDL: tl.constexpr,
):
    """The residual stream's beginning, and each row's slot in its sequence's table. Grid: (m,)."""
    begin(PDL)
    row = tl.program_id(0)
    token = tl.load(inputs_at + row)
    if token < 0:
        token = tl.load(given_at - 1 - token)
    position = tl.load(inputs_at + stride + row)
    slot = tl.load(inputs_at + 2 * stride + row)
    sequence = tl.load(inputs_at + 3 * stride + row).to(tl.int64)
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
    tl.store(squares_at + row * TILES + tile, squares, mask=tile < TILES)


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
    BLOCKS: tl.constexpr,
    BB: tl.constexpr,
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
    tl.store(token_at + row, token.to(tl.int32))
    tl.store(logprob_at + row, -tl.log(tl.sum(scaled, 0)))
