"""Opening what lies in the caches, and logs: files only, and without ever waiting for anybody.

Others have their hands in those folders too. Under a file's name there may be a pipe whose other
end nobody writes to, a device, or a folder.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def open_regular(path: str | Path, *, follow_links: bool = True) -> int:
    """A descriptor for reading the regular file at ``path``; raises ``OSError`` for all else."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
    if not follow_links:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a file", str(path))


def read_beginning(path: str | Path, most: int, *, follow_links: bool = True) -> bytes:
    """The first ``most`` bytes of a regular file, or all that it has; raises ``OSError``."""
    descriptor = open_regular(path, follow_links=follow_links)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        # A buffer for all that a file may have costs more than the file that it has.
        return file.read(min(most, os.fstat(descriptor).st_size)) or b""
