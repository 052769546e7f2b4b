"""What the file systems under the two caches can do, found out by trying."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from llamactl.errors import TransferError
from llamactl.models import disk
from llamactl.paths import nearest_existing


class Volume:
    """The places of both caches. Either may be missing until the first write."""

    def __init__(self, flat_root: Path, hub_root: Path) -> None:
        self._flat_root = flat_root
        self._hub_root = hub_root
        self._links: bool | None = None

    @property
    def links(self) -> bool:
        """Whether one file can have a name in both caches.

        While that cannot be tried, because one of them cannot be written, it is guessed.
        """
        if self._links is None:
            try:
                with _new_file(self._hub_root) as here, _new_file(self._flat_root) as there:
                    self._links = disk.hard_link(here, there, self._flat_root)
            except TransferError:
                return _device(self._hub_root) == _device(self._flat_root)
        return bool(self._links)

    def file_mode(self) -> int:
        """The mode that this process's umask gives a new file."""
        with _new_file(self._flat_root) as path:
            status = path.stat()
        return stat.S_IMODE(status.st_mode)

    def check_writable(self) -> None:
        """Raises ``CacheNotWritable`` naming the directory that cannot be written."""
        for root in (self._hub_root, self._flat_root):
            with _new_file(root):
                pass

    def free_space(self) -> int:
        """Free bytes where downloads are kept, or will be once that directory is made."""
        return shutil.disk_usage(nearest_existing(self._flat_root)).free

    def is_inside(self, path: str) -> bool:
        """Whether ``path`` lies in one of the caches, after all links are followed."""
        real = os.path.realpath(path)
        roots = (os.path.realpath(root) for root in (self._hub_root, self._flat_root))
        return any(real.startswith(f"{root}{os.sep}") for root in roots)


@contextlib.contextmanager
def _new_file(root: Path) -> Iterator[Path]:
    """A new, empty file in ``root`` for a moment."""
    with disk.named_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with disk.temporary_name(root) as path:
            path.touch(mode=0o666, exist_ok=False)
            yield path


def _device(path: Path) -> int:
    return nearest_existing(path).stat().st_dev
