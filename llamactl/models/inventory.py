"""All that both caches hold of one repository, each file once with all its names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llamactl.models.filenames import is_gguf, split_of
from llamactl.models.flatscan import FlatFiles, StoredManifest
from llamactl.models.hubscan import SnapshotFile
from llamactl.models.layout import flat_name, unfinished_name
from llamactl.models.selection import PRESET


@dataclass(frozen=True)
class StoredFile:
    """One file of a repository, as it lies on disk.

    ``path`` is the name to use. ``oid`` is known where that name has the inode of a blob.
    ``flat`` is the flat name, if there is one, be it of these or of older bytes.
    """

    filename: str
    path: str
    status: os.stat_result
    oid: str | None
    flat: str | None
    snapshots: tuple[SnapshotFile, ...]

    def names(self) -> Iterator[str]:
        """Every path under which the file can be opened."""
        if self.flat is not None:
            yield self.flat
        for snapshot in self.snapshots:
            yield snapshot.path
            if snapshot.blob is not None:
                yield snapshot.blob

    def has_flat(self, snapshot: SnapshotFile) -> bool:
        """Whether the flat name is one of these very bytes."""
        try:
            return self.flat is not None and os.path.samestat(
                Path(self.flat).stat(), snapshot.status
            )
        except OSError:
            return False

    def inodes(self) -> Iterator[tuple[int, int]]:
        """Where the bytes of all these names are: device and inode."""
        for status in (self.status, *(snapshot.status for snapshot in self.snapshots)):
            yield status.st_dev, status.st_ino


@dataclass(frozen=True)
class Inventory:
    """The GGUF files of a repository and its preset, by their path in it, and its manifests.

    ``unfinished`` are those that older llama.cpp is fetching into the flat cache right now.
    ``wanted`` are all paths that were looked for.
    """

    repo_id: str
    files: dict[str, StoredFile]
    manifests: tuple[StoredManifest, ...]
    unfinished: frozenset[str]
    wanted: frozenset[str]


def take_inventory(repo_id: str, snapshots: Iterable[SnapshotFile], flat: FlatFiles) -> Inventory:
    """Bring together what the Hub's snapshots and the flat cache hold of ``repo_id``."""
    by_name: dict[str, list[SnapshotFile]] = {}
    for snapshot in snapshots:
        if is_gguf(snapshot.filename):
            by_name.setdefault(snapshot.filename, []).append(snapshot)
    manifests = flat.manifests.get(repo_id, ())
    wanted = {*by_name, PRESET}
    for manifest in manifests:
        wanted.update(_named(manifest, len(flat.names)))
    files = {}
    unfinished = set()
    for filename in sorted(wanted):
        stored = _stored(repo_id, filename, tuple(by_name.get(filename, ())), flat)
        if stored is not None:
            files[filename] = stored
        if unfinished_name(repo_id, filename) in flat.names:
            unfinished.add(filename)
    return Inventory(repo_id, files, manifests, frozenset(unfinished), frozenset(wanted))


def _named(manifest: StoredManifest, most: int) -> Iterator[str]:
    """The files that a manifest speaks of, as far as ``most`` files can exist."""
    split = split_of(manifest.gguf)
    yield from split.names() if split.count <= most else (manifest.gguf,)
    if manifest.mmproj is not None:
        yield manifest.mmproj


def _stored(
    repo_id: str, filename: str, snapshots: tuple[SnapshotFile, ...], flat: FlatFiles
) -> StoredFile | None:
    name = flat_name(repo_id, filename)
    status = flat.stat(name)
    path = None if status is None else f"{flat.root}/{name}"
    if not snapshots:
        if status is None or path is None:
            return None
        return StoredFile(filename, path, status, None, path, ())
    current = snapshots[0]
    if status is None or path is None or not os.path.samestat(status, current.status):
        # Two copies: what main has is what llama-server -hf runs, the flat one may be older.
        return StoredFile(filename, current.path, current.status, current.oid, path, snapshots)
    return StoredFile(filename, path, status, current.oid, path, snapshots)
