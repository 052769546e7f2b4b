"""How far a job is: pictures that are replaced whole, and the pace behind them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

FileStatus = Literal["pending", "downloading", "verifying", "completed", "damaged"]

_WINDOW = 5.0


@dataclass(frozen=True)
class FileProgress:
    """``bytes_downloaded`` counts what is durable."""

    name: str
    size: int
    bytes_downloaded: int
    status: FileStatus


@dataclass(frozen=True)
class Progress:
    """``total_bytes`` is None until the plan is made; ``retry_at`` is unix seconds."""

    files: tuple[FileProgress, ...] = ()
    total_bytes: int | None = None
    bytes_per_second: float = 0.0
    detail: str | None = None
    retry_at: float | None = None

    @property
    def bytes_downloaded(self) -> int:
        return sum(file.bytes_downloaded for file in self.files)

    @property
    def current_file(self) -> str | None:
        """The first file that is not complete."""
        names = (file.name for file in self.files if file.status in ("downloading", "verifying"))
        return next(names, None)

    @property
    def eta_seconds(self) -> float | None:
        """How long the rest takes at the present pace; None while that cannot be said."""
        if self.total_bytes is None or self.bytes_per_second <= 0:
            return None
        return (self.total_bytes - self.bytes_downloaded) / self.bytes_per_second


class Pace:
    """Bytes per second over the last few seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, total: int) -> None:
        """So many bytes have come by now."""
        now = self._clock()
        self._seen.append((now, total))
        while now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()

    def bytes_per_second(self) -> float:
        """0 while nothing comes."""
        seen = list(self._seen)
        if len(seen) < 2:
            return 0.0
        (began, first), (ended, last) = seen[0], seen[-1]
        return (last - first) / (ended - began) if ended > began else 0.0
