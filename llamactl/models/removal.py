"""Remove models from both caches: all that belongs to them, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from llamactl.models import disk
from llamactl.models.catalogue import Entry
from llamactl.models.filenames import is_mmproj
from llamactl.models.hubscan import SnapshotFile, read_ref, refs_below
from llamactl.models.inventory import Inventory, StoredFile
from llamactl.models.layout import FlatCache, HubCache, flat_name
from llamactl.models.names import is_oid
from llamactl.models.selection import PRESET
from llamactl.models.store import PARTIAL_SUFFIX

#: What hf and llama.cpp write down about snapshots; without any snapshot it says nothing.
_BOOKKEEPING = ("refs", "trees", ".no_exist")

#: How the names of blobs end that other programs are still fetching.
_THEIR_PARTIALS = (".incomplete", ".downloadInProgress")


@dataclass(frozen=True)
class Removal:
    """What goes: the files of the models that no other model of the repository needs."""

    files: tuple[StoredFile, ...]
    manifests: tuple[Path, ...]

    def paths(self) -> list[Path]:
        """Every name of the files, to ask whether somebody uses one."""
        return [Path(name) for file in self.files for name in file.names()]


def plan_removal(
    inventory: Inventory, gone: Sequence[Entry], kept: Sequence[Entry], shared: Set[str]
) -> Removal:
    """What the entries ``gone`` leave behind that none of ``kept`` needs.

    With the last model its projectors and its preset go too, and manifests without a model.
    ``shared`` are names in the flat cache that stay, because they may be another repository's.
    """
    needed = {name for entry in kept for name in entry.filenames}
    names = {name for entry in gone for name in entry.filenames} - needed
    manifests = {manifest.path for entry in gone for manifest in entry.manifests}
    if kept:
        manifests -= {manifest.path for entry in kept for manifest in entry.manifests}
    else:
        names |= {name for name in inventory.files if is_mmproj(name) or name == PRESET}
        manifests |= {manifest.path for manifest in inventory.manifests}
    files = tuple(
        replace(file, flat=None) if flat_name(inventory.repo_id, name) in shared else file
        for name in sorted(names)
        if (file := inventory.files.get(name)) is not None
    )
    return Removal(files, tuple(sorted(manifests)))


class Remover:
    """Carries a removal out. The caller sees to it that one thread writes at a time."""

    def __init__(self, flat: FlatCache, hub: HubCache) -> None:
        self._flat = flat
        self._hub = hub

    def remove(self, repo_id: str, removal: Removal, staying: Sequence[SnapshotFile]) -> None:
        """Remove the files and then the names that lead to them.

        ``staying`` are the files of the repository whose bytes stay. The bytes go first and the
        manifest last: what a crash leaves is still listed, and can be deleted again.
        """
        kept = {(file.status.st_dev, file.status.st_ino) for file in staying}
        gone = {place for file in removal.files for place in file.inodes()} - kept
        for blob in self._blobs(repo_id, gone):
            disk.remove_file(self._hub.root, blob)
        for file in removal.files:
            self._remove_names(file)
        for path in removal.manifests:
            disk.remove_file(self._flat.root, path)
        paths = [Path(snapshot.path) for file in removal.files for snapshot in file.snapshots]
        self._tidy(repo_id, paths)

    def retire(
        self,
        repo_id: str,
        old: Sequence[SnapshotFile],
        files: Iterable[SnapshotFile],
        *,
        used: bool,
    ) -> None:
        """Remove older versions of files, unless one is ``used`` or a branch names its snapshot.

        A blob that was a link to the flat file goes in any case: it leads to other bytes now.
        ``files`` are all of the repository's.
        """
        named = {read_ref(ref) for ref in refs_below(self._hub.ref(repo_id).parent)}
        going = [
            file for file in old if self._leads_astray(file) or not (used or file.commit in named)
        ]
        paths = {file.path for file in going}
        needed = {file.blob for file in files if file.path not in paths}
        for file in going:
            if file.blob is not None and file.blob not in needed:
                disk.remove_file(self._hub.root, Path(file.blob))
            disk.remove_file(self._hub.root, Path(file.path))
        self._tidy(repo_id, [Path(file.path) for file in going])

    def _leads_astray(self, file: SnapshotFile) -> bool:
        blob = Path(file.blob or file.path)
        return blob.is_symlink() and blob.readlink().parent == self._flat.root

    def _blobs(self, repo_id: str, inodes: set[tuple[int, int]]) -> list[Path]:
        """The blobs that are, or point to, one of these files.

        They are found by what they are, not by who points to them: where a snapshot holds hard
        links, or a crash took the links away, nobody does.
        """
        found = []
        for blob in sorted(self._hub.blobs(repo_id).glob("*")):
            try:
                status = blob.stat()
            except OSError:
                continue
            if is_oid(blob.name) and (status.st_dev, status.st_ino) in inodes:
                found.append(blob)
        return found

    def discard(self, repo_id: str, paths: Sequence[Path], linked: frozenset[str]) -> None:
        """Remove bytes that were fetched for a model that never came to be.

        ``linked`` are the paths that a model has.
        """
        for path in paths:
            if str(path) in linked:
                continue
            root = self._flat.root if path.parent == self._flat.root else self._hub.root
            if disk.remove_file(root, path) and root == self._flat.root:
                disk.remove_file(root, self._flat.etag_path(path))
        for folder in (self._hub.blobs(repo_id), self._hub.repo_dir(repo_id)):
            disk.remove_empty_dir(self._hub.root, folder)

    def _remove_names(self, file: StoredFile) -> None:
        for snapshot in file.snapshots:
            disk.remove_file(self._hub.root, Path(snapshot.path))
        if file.flat is not None:
            flat = Path(file.flat)
            disk.remove_file(self._flat.root, flat)
            for beside in (self._flat.etag_path(flat), flat.with_name(f"{flat.name}.json")):
                disk.remove_file(self._flat.root, beside)

    def _tidy(self, repo_id: str, gone: Sequence[Path]) -> None:
        """Remove folders that became empty, and what speaks of snapshots that are gone.

        Not while another program fetches into this repository: it made the folder and the ref
        at its start, and counts on them at its end.
        """
        if self._others_fetch(repo_id):
            return
        snapshots = self._hub.snapshots(repo_id)
        for path in sorted(gone, reverse=True):
            folder = path.parent
            while folder != snapshots and disk.remove_empty_dir(self._hub.root, folder):
                folder = folder.parent
        repo_dir, refs = self._hub.repo_dir(repo_id), self._hub.ref(repo_id).parent
        for ref in refs_below(refs):
            commit = read_ref(ref)
            if commit is not None and not (snapshots / commit).exists():
                disk.remove_file(self._hub.root, ref)
        if not disk.remove_empty_dir(self._hub.root, snapshots):
            return
        for name in _BOOKKEEPING:
            disk.remove_tree(self._hub.root, repo_dir / name)
        for folder in (repo_dir / "blobs", repo_dir):
            disk.remove_empty_dir(self._hub.root, folder)

    def _others_fetch(self, repo_id: str) -> bool:
        """Whether there are partials of ``hf`` or llama.cpp, be they of a fetch that broke off."""
        return any(
            path.name.endswith(_THEIR_PARTIALS)
            and not path.name.endswith(PARTIAL_SUFFIX)
            and not path.name.startswith(disk.TEMPORARY_PREFIX)
            for path in self._hub.blobs(repo_id).glob("*")
        )
