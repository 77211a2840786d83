"""What a parser is handed to read.

py-tree-sitter (0.26.1) never lets go of what a callable gives it, text that is as large as all that was ever parsed.
So it gets the same object each time, with other text in it: the parser has done with one piece when it asks for more.
"""

from __future__ import annotations

import threading
from typing import cast


class _Buffer(threading.local):
    def __init__(self) -> None:
        self.held = bytearray()


_buffer = _Buffer()


def handed(data: bytes) -> bytes:
    """`data` in this thread's buffer, good until the next call: for the callable of `Parser.parse`, at its return."""
    _buffer.held[:] = data
    return cast(bytes, _buffer.held)  # any buffer is taken, whatever the stubs say
