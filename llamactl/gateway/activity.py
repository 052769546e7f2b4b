"""The last requests and what each of them cost: who asked which model, never what was said."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

#: Requests that are remembered, in memory only.
REMEMBERED = 200


@dataclass(frozen=True)
class Entry:
    """One request. Times in seconds, ``came_at`` in unix seconds.

    ``result`` is the HTTP status or the code of what went wrong, empty while it runs. ``speed`` is
    in tokens a second. What is not known is None, and 0 for tokens.
    """

    came_at: float
    instance: str
    key: str
    path: str
    result: str
    duration: float
    first_byte: float | None
    prompt_tokens: int
    generated_tokens: int
    speed: float | None
    carrier: str = "llamactl"


class Activity:
    """The requests that have ended, the oldest forgotten first. Thread-safe."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=size)

    def add(self, entry: Entry) -> None:
        """Remember a request that has ended."""
        with self._lock:
            self._entries.append(entry)

    def entries(self) -> list[Entry]:
        """Those that are remembered, the last one first."""
        with self._lock:
            return list(reversed(self._entries))
