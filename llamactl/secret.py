"""A string that must not be seen by accident."""

from __future__ import annotations

import hashlib
import hmac

#: What stands in the place of a value that is not shown.
MASK = "***"


class Secret:
    """Hides its value from ``repr``, ``str`` and formatting; ``reveal()`` is the only way out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one place that must send or show it."""
        return self._value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine = hashlib.sha256(self._value.encode()).digest()
        theirs = hashlib.sha256(other._value.encode()).digest()
        return hmac.compare_digest(mine, theirs)

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK
