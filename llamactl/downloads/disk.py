"""Positional reads and writes, allocation, locks: what differs between operating systems."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from llamactl.errors import CacheNotWritable, InsufficientSpace

if sys.platform != "win32":
    import fcntl

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})
_IN_THE_WAY = frozenset({errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENXIO})
_GONE = frozenset({errno.ENOENT, errno.ESTALE})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS})
_seek_lock = threading.Lock()


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turn what a disk refuses into the errors that name what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise InsufficientSpace(
                f"The disk that holds {path.parent} is full",
                hint="Free some space, then retry: what was downloaded so far is kept.",
            ) from error
        if error.errno == errno.EFBIG:
            raise InsufficientSpace(
                f"{path.parent} does not take a file of this size",
                hint="Raise the limit on file sizes (ulimit -f), or use another file system.",
            ) from error
        if error.errno in _REFUSED:
            raise CacheNotWritable(
                f"{path.parent} cannot be written: {error.strerror}",
                hint="Check the directory's owner, its permissions and the disk's health.",
            ) from error
        if error.errno in _IN_THE_WAY:
            raise CacheNotWritable(
                f"{error.filename or path} is in the way: {error.strerror}",
                hint="Nobody but llamactl makes files of that name; remove it.",
            ) from error
        if error.errno in _GONE:
            raise CacheNotWritable(
                f"{path.parent} is gone; somebody removed it during the download",
                hint="Retry: the directory is made anew.",
            ) from error
        raise


def write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``."""
    while data:
        written = _pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def read_at(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill ``buffer`` from ``offset``; the number of bytes, 0 at the end of the file."""
    if sys.platform != "win32":
        count = os.preadv(descriptor, [buffer], offset)
    else:
        with _seek_lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            content = os.read(descriptor, len(buffer))
        count = len(content)
        buffer[:count] = content
    return count


def _pwrite(descriptor: int, data: memoryview, offset: int) -> int:
    if sys.platform != "win32":
        count = os.pwrite(descriptor, data, offset)
    else:
        with _seek_lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            count = os.write(descriptor, data)
    return count


def sync_content(descriptor: int) -> None:
    """Return when every byte that was written is on the disk."""
    if sys.platform == "linux":
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def allocate(descriptor: int, size: int) -> None:
    """Give the file its full size, with disk blocks behind it where the system can do that.

    posix_fallocate would write a byte to each block where the file system has no support (NFS),
    which takes longer than the download; the plain system call says no at once.
    """
    refusal = _fallocate(descriptor, size)
    if refusal in _FULL or refusal == errno.EFBIG:
        raise OSError(refusal, os.strerror(refusal))
    if refusal:
        os.ftruncate(descriptor, size)


def _fallocate(descriptor: int, size: int) -> int:
    """0, or the error number that says why there is no allocation."""
    if sys.platform != "linux" or not size:
        return errno.ENOSYS
    try:
        call = ctypes.CDLL(None, use_errno=True).fallocate64
    except (OSError, AttributeError):
        return errno.ENOSYS
    if call(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(size)) == 0:
        return 0
    return ctypes.get_errno()


def lock(descriptor: int) -> bool:
    """Become the file's one writer; False when somebody else is."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    # Where there are no such locks, the lock on the data directory is the only guard.
    return True


def allocated_bytes(path: Path) -> int:
    """How many bytes of the disk a file takes already; 0 when there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0
    blocks = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else blocks * 512
