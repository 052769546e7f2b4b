"""What was read from disk and did not change since, so that listing a large cache stays quick."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

#: When a thing was changed, as far as its status tells: ctime, mtime, size, inode.
_State = tuple[int, int, int, int]

#: File systems keep times in steps of up to two seconds. What changed so recently may change
#: again without a trace, so it is not remembered.
_SETTLED_NS = 2_000_000_000


class Memory(Generic[T]):
    """Values by key, each good as long as the paths that it was read from did not change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, tuple[T, list[tuple[str, _State | None]]]] = {}

    def get(self, key: str) -> T | None:
        """The value, or None when it is unknown or one of its paths changed."""
        known = self._values.get(key)
        if known is None:
            return None
        # A plain loop: for a thousand models this runs some thousands of times a list.
        for path, state in known[1]:
            if _state(path) != state:
                return None
        return known[0]

    def keep(self, key: str, value: T, paths: Iterable[str]) -> None:
        """Remember a value that was read from these folders and files just now."""
        states = [(path, _state(path)) for path in paths]
        settled = time.time_ns() - _SETTLED_NS
        with self._lock:
            if all(state is None or state[0] < settled > state[1] for _path, state in states):
                self._values[key] = (value, states)
            else:
                self._values.pop(key, None)

    def keep_only(self, keys: Iterable[str]) -> None:
        """Forget every other key."""
        kept = set(keys)
        with self._lock:
            self._values = {key: value for key, value in self._values.items() if key in kept}


def _state(path: str) -> _State | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_ctime_ns, status.st_mtime_ns, status.st_size, status.st_ino
