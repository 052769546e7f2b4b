"""What lies in the flat cache at one moment: its files by name, and its manifests by repository."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llamactl.errors import BadMetadata
from llamactl.models.hubfile import Manifest
from llamactl.models.layout import ref_of_manifest
from llamactl.models.reference import ModelRef

_LARGEST_MANIFEST = 1024 * 1024


@dataclass(frozen=True)
class StoredManifest:
    """A manifest on disk: the tag as its file name spells it, and the files that it names."""

    ref: ModelRef
    path: Path
    gguf: str
    mmproj: str | None


class FlatScanner:
    """Reads the flat cache; remembers the manifests that did not change since the last time."""

    def __init__(self, root: Path, is_inside: Callable[[str], bool]) -> None:
        self._root = root
        self._is_inside = is_inside
        self._manifests: dict[str, tuple[tuple[int, int, int], StoredManifest | None]] = {}

    def scan(self) -> FlatFiles:
        """The cache as it is now; empty when there is none yet."""
        files: set[str] = set()
        manifests: dict[str, list[StoredManifest]] = defaultdict(list)
        read = {}
        try:
            with os.scandir(self._root) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False) or (
                        entry.is_symlink() and self._is_inside(entry.path)
                    ):
                        files.add(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return FlatFiles(str(self._root), frozenset(), {})
        for name in files:
            ref = ref_of_manifest(name)
            if ref is None:
                continue
            read[name] = self._read(name, ref)
            stored = read[name][1]
            if stored is not None:
                manifests[ref.repo_id].append(stored)
        self._manifests = read
        return FlatFiles(str(self._root), frozenset(files), manifests)

    def _read(self, name: str, ref: ModelRef) -> tuple[tuple[int, int, int], StoredManifest | None]:
        path = self._root / name
        try:
            status = path.stat()
            state = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = self._manifests.get(name)
            if known is not None and known[0] == state:
                return known
            with path.open("rb") as file:
                manifest = Manifest.parse(file.read(_LARGEST_MANIFEST))
        except (OSError, BadMetadata):
            # Another program's file, damaged or just replaced: it tells nothing.
            return (0, 0, 0), None
        if manifest.gguf is None:
            return state, None
        return state, StoredManifest(ref, path, manifest.gguf, manifest.mmproj)


@dataclass(frozen=True)
class FlatFiles:
    """The names in the flat cache: files, and links that stay inside the caches."""

    root: str
    names: frozenset[str]
    manifests: dict[str, list[StoredManifest]]

    def stat(self, name: str) -> os.stat_result | None:
        """The status of one file, or None when it is not there."""
        if name not in self.names:
            return None
        try:
            return os.stat(f"{self.root}/{name}")  # noqa: PTH116 - a Path costs more than the call
        except OSError:
            return None
