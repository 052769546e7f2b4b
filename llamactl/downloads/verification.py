"""Whether bytes are the ones that the hub named: sha256, or git's sha1 for its small files."""

from __future__ import annotations

import hashlib
from typing import Protocol

#: Read and hashed at once. Between two chunks the thread waits for its turn in the interpreter,
#: which on a fast line is the longer the more connections there are.
CHUNK = 4 * 1024 * 1024


class Digest(Protocol):
    def update(self, data: memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def digest_for(oid: str, size: int) -> Digest:
    """The hash whose result names a file of ``size`` bytes, by the kind of its ``oid``."""
    if len(oid) == 64:
        return hashlib.sha256()
    # A sha1 is what git itself uses as a name; nobody relies on it against an attacker here.
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
