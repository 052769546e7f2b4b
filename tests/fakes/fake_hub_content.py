"""What a fake hub's files are made of: bytes in memory or on disk, and their digests."""

from __future__ import annotations

import functools
import hashlib
import random
from pathlib import Path

CHUNK = 1 << 20


def seeded_bytes(size: int, seed: int | str = 0) -> bytes:
    """Return `size` bytes that look random and are the same for the same seed."""
    return random.Random(seed).randbytes(size)


def git_blob_sha1(payload: bytes) -> str:
    """Return git's name for these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(payload) + payload).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the small file that git keeps in place of a large one."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return text.encode()


class Content:
    """Bytes in memory."""

    path: Path | None = None

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self.size = len(payload)

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` up to, not including, `end`."""
        return self._payload[start:end]

    @functools.cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for start in range(0, self.size, CHUNK):
            digest.update(self.read(start, min(start + CHUNK, self.size)))
        return digest.hexdigest()

    @functools.cached_property
    def git_sha1(self) -> str:
        return git_blob_sha1(self.read(0, self.size))

    @property
    def xet_hash(self) -> str:
        """64 hex digits that are not the sha256: what the hub's CDN gives as its ETag."""
        return hashlib.sha256(b"xet:" + self.sha256.encode()).hexdigest()


class FileContent(Content):
    """A file on disk, sent by the kernel; it must not change while it is served."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size

    def read(self, start: int, end: int) -> bytes:
        assert self.path is not None
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)


def as_content(source: bytes | Path | Content) -> Content:
    """Wrap whatever a test gives as a file's bytes."""
    if isinstance(source, Content):
        return source
    if isinstance(source, Path):
        return FileContent(source)
    return Content(source)
