"""How work is cut into tiles."""

from __future__ import annotations


def tiles(size: int, tile: int) -> int:
    """How many tiles cover `size`."""
    return -(-size // tile)


def power_of_two(size: int) -> int:
    """The least one that is not below `size`, itself at least 1."""
    return 1 << (size - 1).bit_length() if size > 1 else 1
