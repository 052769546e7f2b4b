"""How many bytes something has, as people read it."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB", "TB", "PB")


def size_text(size: float) -> str:
    """Bytes in decimal units, as the hub and disks count, in two or three digits: ``2.1 GB``."""
    if size < 1000:
        return f"{int(size)} B"
    value, unit = size / 1000, 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.{1 if value < 99.95 else 0}f} {_UNITS[unit]}"
