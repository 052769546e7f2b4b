"""Whether bytes are the ones that the hub named: sha256, or git's sha1 for its small files."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Protocol

from llamactl.downloads import disk
from llamactl.errors import Interrupted

CHUNK = 1024 * 1024


class Digest(Protocol):
    def update(self, data: memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def digest_for(oid: str, size: int) -> Digest:
    """The hash whose result names a file of ``size`` bytes, by the kind of its ``oid``."""
    if len(oid) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def has_content(path: Path, oid: str, size: int, halt: threading.Event) -> bool:
    """Whether the file at ``path`` has exactly these bytes; raises ``Interrupted`` on ``halt``."""
    digest = digest_for(oid, size)
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as stream:
        position = 0
        while count := disk.read_at(stream.fileno(), buffer, position):
            digest.update(buffer[:count])
            position += count
            if halt.is_set():
                raise Interrupted
    return position == size and digest.hexdigest() == oid
