"""How the kernels of a step cut their work: tiles by kernel and rows, and the sizes that hold for all."""

from __future__ import annotations

import attrs

from inference.models.sizes import power_of_two

MOST = 64
"""Rows of the largest step."""
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Rows for which there is a graph; between them a step is filled up with rows that do nothing."""
SPLITS = 128
"""Most parts in which a row attends to its tokens."""
PIECES = 8
"""In so many a head's output is computed for a row alone; there would be too few programs otherwise."""
MASKS = 16
"""Masks over the vocabulary kept on the device."""
SHARED = 96 * 1024
"""Bytes of shared memory for tiles in flight: what cards of 8.6 and 8.9 have, less what reductions take."""
JOINED = 256
"""Outputs a tile of what adds up the experts of many rows."""
MOST_DEPENDENT = 8
"""Rows up to which kernels begin before the one before ends; with more of them that costs more than it brings."""
NEXT_SOON = frozenset({"absorb", "attend", "expand", "experts", "down"})
INT8_NEXT_SOON = frozenset({"absorb", "attend", "expand", "linear", "gated"})
"""Kernels of a row alone whose next one may begin as soon as they wait, rather than when they are nearly done."""
LOG2E = 1.4426950408889634


@attrs.frozen
class Tile:
    """How a kernel cuts its work: outputs and inputs a tile, warps, tiles in flight (of one row, asked for at once).

    Of `attend` heads and tokens at once, which is also the least that a part has; of `expand` outputs, and parts at
    once.
    """

    n: int
    k: int
    warps: int
    stages: int = 1


_ATTENTION = {"attend": Tile(16, 64, 8, 2), "expand": Tile(64, 32, 4, 3)}
TILES: dict[int, dict[str, Tile]] = {
    1: {
        "attend": Tile(16, 64, 8, 2),
        "expand": Tile(128, 128, 4),
        "inward": Tile(4, 1024, 4),
        "output": Tile(8, 1024, 4, 2),
        "dense": Tile(4, 2048, 4),
        "dense down": Tile(4, 2048, 4),
        "experts": Tile(4, 512, 8, 2),
        "experts down": Tile(4, 128, 8, 3),
        "head": Tile(8, 2048, 4),
    },
    16: {
        **_ATTENTION,
        "inward": Tile(16, 256, 2, 6),
        "output": Tile(16, 256, 2, 6),
        "dense": Tile(16, 64, 2, 8),
        "dense down": Tile(16, 256, 2, 6),
        "shared": Tile(16, 64, 2, 8),
        "routed": Tile(16, 64, 1, 6),
        "down": Tile(32, 128, 2, 4),
        "head": Tile(64, 128, 4, 4),
    },
    32: {
        **_ATTENTION,
        "inward": Tile(16, 128, 4, 6),
        "output": Tile(16, 128, 4, 6),
        "dense": Tile(32, 64, 4, 4),
        "dense down": Tile(16, 128, 4, 6),
        "shared": Tile(32, 64, 4, 4),
        "routed": Tile(32, 64, 4, 4),
        "down": Tile(32, 128, 4, 4),
        "head": Tile(64, 128, 4, 4),
    },
    64: {
        **_ATTENTION,
        "inward": Tile(16, 128, 4, 4),
        "output": Tile(16, 64, 4, 6),
        "dense": Tile(32, 64, 4, 4),
        "dense down": Tile(16, 128, 4, 4),
        "shared": Tile(64, 64, 4, 3),
        "routed": Tile(64, 64, 4, 3),
        "down": Tile(64, 64, 4, 4),
        "head": Tile(64, 128, 4, 4),
    },
}
"""By rows, as the matrix units take them (one row goes without); measured on an H100, of one row on an H200. A sum's
order follows from none of these, as the matrix units take its terms one after the other, sixteen at a time."""


INT8_TILES: dict[int, dict[str, Tile]] = {
    1: {
        "output": Tile(16, 1024, 8, 2),
        "experts": Tile(16, 256, 4, 3),
        "experts down": Tile(4, 128, 16, 4),
        "head": Tile(16, 256, 4),
    },
    16: {
        "inward": Tile(16, 256, 1, 4),
        "shared": Tile(16, 64, 1, 8),
        "routed": Tile(16, 128, 1, 4),
        "down": Tile(16, 128, 1, 4),
        "head": Tile(32, 128, 4, 6),
    },
    32: {
        "routed": Tile(64, 128, 4, 3),
        "down": Tile(64, 128, 4, 3),
    },
    64: {
        "routed": Tile(64, 128, 4, 3),
        "down": Tile(64, 128, 4, 3),
    },
}
"""Where int8 weights are better cut otherwise."""


def wide(m: int) -> int:
    """Rows as the matrix units take them; one goes without these."""
    return 1 if m == 1 else max(16, power_of_two(m))
