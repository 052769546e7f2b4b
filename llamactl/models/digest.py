"""The digest of a file, in the form that the Hub gives for it."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from llamactl.errors import Interrupted
from llamactl.models.opening import open_regular

_CHUNK = 1024 * 1024


def matches(
    path: Path,
    oid: str,
    *,
    halt: threading.Event | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> bool:
    """Whether the bytes at ``path`` have this digest: sha256, or a git blob's sha1 by its length.

    ``on_bytes`` hears of every chunk that was read. Raises ``Interrupted`` once ``halt`` is set,
    and ``OSError`` for what is no file.
    """
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        # A sha1 is what git itself uses as a name; nobody relies on it against an attacker here.
        hasher = (
            hashlib.sha256()
            if len(oid) == 64
            else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        )
        buffer = memoryview(bytearray(_CHUNK))
        while count := file.readinto(buffer):
            if halt is not None and halt.is_set():
                raise Interrupted
            hasher.update(buffer[:count])
            if on_bytes is not None:
                on_bytes(count)
    return hasher.hexdigest() == oid
