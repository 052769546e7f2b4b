"""What lies in the flat cache at one moment: its files by name, and its manifests by repository."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llamactl.errors import BadMetadata
from llamactl.models.hubfile import Manifest
from llamactl.models.layout import ref_of_manifest
from llamactl.models.opening import read_beginning
from llamactl.models.reference import ModelRef
from llamactl.models.remembered import Memory

#: All names in the folder, and the references of the manifests among them.
_Names = tuple[frozenset[str], dict[str, ModelRef]]

_LARGEST_MANIFEST = 1024 * 1024


@dataclass(frozen=True)
class StoredManifest:
    """A manifest on disk: the tag as its file name spells it, and the files that it names."""

    ref: ModelRef
    path: Path
    gguf: str
    mmproj: str | None


class FlatScanner:
    """Reads the flat cache; remembers what did not change since the last time."""

    def __init__(self, root: Path, is_inside: Callable[[str], bool]) -> None:
        self._root = root
        self._is_inside = is_inside
        self._manifests: Memory[StoredManifest] = Memory()
        self._names: Memory[_Names] = Memory()

    def scan(self) -> FlatFiles:
        """The cache as it is now; empty when there is none yet."""
        root = str(self._root)
        names = self._names.get(root)
        if names is None:
            names = self._read_names()
            self._names.keep(root, names, [root])
        files, manifest_names = names
        manifests: dict[str, list[StoredManifest]] = defaultdict(list)
        for name, ref in manifest_names.items():
            manifest = self._manifest(name, ref)
            if manifest is not None:
                manifests[ref.repo_id].append(manifest)
        self._manifests.keep_only(manifest_names)
        return FlatFiles(root, files, {repo: tuple(found) for repo, found in manifests.items()})

    def _read_names(self) -> _Names:
        try:
            with os.scandir(self._root) as entries:
                files = frozenset(
                    entry.name
                    for entry in entries
                    if entry.is_file(follow_symlinks=False)
                    or (entry.is_symlink() and self._is_inside(entry.path))
                )
        except OSError:
            return frozenset(), {}
        refs = ((name, ref_of_manifest(name)) for name in sorted(files))
        return files, {name: ref for name, ref in refs if ref is not None}

    def _manifest(self, name: str, ref: ModelRef) -> StoredManifest | None:
        known = self._manifests.get(name)
        if known is not None:
            return known
        path = self._root / name
        try:
            manifest = Manifest.parse(read_manifest(path) or b"")
        except BadMetadata:
            return None  # another program's file, damaged or just replaced: it tells nothing
        if manifest.gguf is None:
            return None
        stored = StoredManifest(ref, path, manifest.gguf, manifest.mmproj)
        self._manifests.keep(name, stored, [str(path)])
        return stored


def read_manifest(path: Path) -> bytes | None:
    """A manifest as it was received; None where there is none that can be read."""
    try:
        return read_beginning(path, _LARGEST_MANIFEST)
    except OSError:
        return None


@dataclass(frozen=True)
class FlatFiles:
    """The names in the flat cache: files, and links that stay inside the caches."""

    root: str
    names: frozenset[str]
    manifests: dict[str, tuple[StoredManifest, ...]]

    def stat(self, name: str) -> os.stat_result | None:
        """The status of one file, or None when it is not there."""
        if name not in self.names:
            return None
        try:
            status = os.stat(f"{self.root}/{name}")  # noqa: PTH116 - a Path costs more than the call
        except OSError:
            return None
        return status if stat.S_ISREG(status.st_mode) else None
