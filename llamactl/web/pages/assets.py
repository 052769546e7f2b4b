"""Static files under addresses that change when they do, so that browsers may keep them."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from flask import current_app, url_for


def asset_url(name: str) -> str:
    """The address of the static file ``name``, with a digest of what is in it."""
    file = Path(str(current_app.static_folder)) / name
    return url_for("static", filename=name, v=_digest(file, file.stat().st_mtime_ns))


@functools.lru_cache(maxsize=64)
def _digest(file: Path, _mtime_ns: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
