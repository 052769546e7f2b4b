"""Which bytes of a file are there: sorted, disjoint, half-open ranges."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator


class ByteRanges:
    """A set of byte positions, kept as ``[start, end)`` pairs. Not thread-safe."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByteRanges) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # mutable, so it must not be a key

    def __repr__(self) -> str:
        return f"ByteRanges({list(self)})"

    def copy(self) -> ByteRanges:
        same = ByteRanges()
        same._starts, same._ends, same.total = self._starts.copy(), self._ends.copy(), self.total
        return same

    def add(self, start: int, end: int) -> None:
        """Put ``[start, end)`` in; touching ranges become one."""
        if start >= end:
            return
        low = bisect_left(self._ends, start)
        high = low
        while high < len(self._starts) and self._starts[high] <= end:
            start = min(start, self._starts[high])
            end = max(end, self._ends[high])
            self.total -= self._ends[high] - self._starts[high]
            high += 1
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]
        self.total += end - start

    def take_first(self, most: int) -> tuple[int, int] | None:
        """Remove and return the first ``most`` bytes of the first range; None when empty."""
        if not self._starts:
            return None
        start, end = self._starts[0], self._ends[0]
        cut = min(end, start + most)
        if cut == end:
            del self._starts[0], self._ends[0]
        else:
            self._starts[0] = cut
        self.total -= cut - start
        return start, cut

    def end_of_run(self, position: int) -> int:
        """Where the unbroken run of bytes that holds ``position`` ends; ``position`` if none."""
        index = bisect_left(self._ends, position + 1)
        if index < len(self._starts) and self._starts[index] <= position:
            return self._ends[index]
        return position

    def gaps(self, size: int) -> ByteRanges:
        """What is missing of ``[0, size)``."""
        missing = ByteRanges()
        position = 0
        for start, end in self:
            missing.add(position, min(start, size))
            position = end
        missing.add(position, size)
        return missing


def parse_ranges(value: object, size: int) -> ByteRanges | None:
    """Ranges from untrusted JSON; None unless they are sorted, disjoint and within ``size``."""
    if not isinstance(value, list):
        return None
    found = ByteRanges()
    position = -1
    for pair in value:
        if not isinstance(pair, list) or [type(part) for part in pair] != [int, int]:
            return None
        start, end = pair
        if not position < start < end <= size:
            return None
        found.add(start, end)
        position = end
    return found
