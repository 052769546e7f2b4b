"""Received bytes on their way to the hash, in the memory that they were received into.

To read back what was just written costs a good part of what the hash itself costs. So whoever
receives the bytes that the hash needs next hands them over; all others are read from the file.
"""

from __future__ import annotations

import mmap
import threading
from collections import deque

#: So many blocks of one file may wait for its hash.
_MOST = 6


class Blocks:
    """Memory to receive into, of ``size`` bytes each, used again and again. Thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._spare: deque[memoryview] = deque()

    def take(self) -> memoryview:
        """A block that nobody uses."""
        try:
            return self._spare.pop()
        except IndexError:
            # Whole pages: the system copies into and out of them fastest.
            return memoryview(mmap.mmap(-1, self._size))

    def give_back(self, block: memoryview) -> None:
        self._spare.append(block)


class Fresh:
    """The bytes of one file that its hash takes from memory, in their order. Thread-safe.

    ``_end`` is up to where the hash has or will get all bytes, None while nobody hashes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[memoryview, int]] = deque()
        self._end: int | None = None

    def offer(self, position: int, block: memoryview, count: int) -> bool:
        """Hand over the first ``count`` bytes of a block, which the file has at ``position``.

        True when the hash will take them: the block is no longer the caller's.
        """
        with self._lock:
            if position != self._end or len(self._waiting) >= _MOST:
                return False
            self._waiting.append((block, count))
            self._end += count
            return True

    def take(self, end: int) -> tuple[memoryview, int] | None:
        """The next block and how many of its bytes count; None: read the file, up to ``end``."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._end = end
            return None

    def start_over(self) -> None:
        """The hash begins anew, at the file's first byte."""
        with self._lock:
            self._waiting.clear()
            self._end = None
