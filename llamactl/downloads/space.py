"""Room on the disk, shared out among the jobs before the first byte comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from llamactl.downloads.disk import allocated_bytes
from llamactl.errors import InsufficientSpace
from llamactl.sizes import size_text

#: A partial of a file: where it is, or will be, and how large it gets.
Room = tuple[Path, int]


class Space:
    """Who has been promised which bytes of the disk, beyond those that files take already."""

    def __init__(self, free: Callable[[], int], keep_free: int) -> None:
        """``keep_free``: bytes that no download may take."""
        self._free = free
        self._keep_free = keep_free
        self._lock = threading.Lock()
        self._promised: dict[str, dict[Path, int]] = {}

    def reserve(self, job_id: str, rooms: Iterable[Room]) -> None:
        """Promise room for these partials; raises ``InsufficientSpace``."""
        wanted = dict(rooms)
        with self._lock:
            self._promised.pop(job_id, None)
            others = sum(_outstanding(rooms) for rooms in self._promised.values())
            needed, free = _outstanding(wanted), self._free()
            if needed and needed + others + self._keep_free > free:
                raise _too_little(needed, free, others, self._keep_free)
            self._promised[job_id] = wanted

    def settled(self, job_id: str, path: Path) -> None:
        """A partial became a file of the cache: it takes its bytes by itself now."""
        with self._lock:
            self._promised.get(job_id, {}).pop(path, None)

    def release(self, job_id: str) -> None:
        """The job takes no more room."""
        with self._lock:
            self._promised.pop(job_id, None)


def _outstanding(rooms: dict[Path, int]) -> int:
    return sum(max(0, size - allocated_bytes(path)) for path, size in rooms.items())


def _too_little(needed: int, free: int, others: int, keep_free: int) -> InsufficientSpace:
    stays = f" beside the {size_text(keep_free)} that stay free (downloads.min_free_space)"
    kept = stays if keep_free else ""
    held = f", of which {size_text(others)} are promised to other downloads" if others else ""
    return InsufficientSpace(
        f"{size_text(needed)} are needed{kept}; {size_text(free)} are free{held}",
        hint="Free some space, then retry.",
    )
