"""Waiting for what happens in other threads, with a deadline that only a hang reaches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LONG = 60.0


def eventually(look: Callable[[], T], holds: Callable[[T], bool], limit: float = LONG) -> T:
    """What ``look`` gives once ``holds`` is true of it."""
    deadline = time.monotonic() + limit
    while True:
        seen = look()
        if holds(seen):
            return seen
        assert time.monotonic() < deadline, f"still {seen!r} after {limit:.0f} s"
        time.sleep(0.01)
