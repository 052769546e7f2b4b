"""What is there: both caches read together, by repository and by reference."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from llamactl.errors import NameCollision
from llamactl.models.catalogue import Entry, cached_model, entries_of
from llamactl.models.flatscan import FlatFiles, FlatScanner
from llamactl.models.hubfile import HubFile
from llamactl.models.hubscan import HubScanner, SnapshotFile, Snapshots
from llamactl.models.inventory import Inventory, take_inventory
from llamactl.models.layout import FlatCache, HubCache, flat_name, unfinished_name
from llamactl.models.names import is_repo_id
from llamactl.models.offer import Offer
from llamactl.models.reference import LATEST, ModelRef
from llamactl.models.remembered import Memory
from llamactl.models.snapshots import CachedModel
from llamactl.models.verified import VerifiedFiles, VerifiedRows
from llamactl.models.volume import Volume


class _Shelf:
    """The models of one repository, and what of the flat cache they were made from."""

    def __init__(self, inventory: Inventory, entries: list[Entry], flat: FlatFiles) -> None:
        self._inventory = inventory
        self._entries = entries
        self._flat = flat
        repo_id = inventory.repo_id
        self._names = frozenset(
            name
            for filename in inventory.wanted
            for name in (flat_name(repo_id, filename), unfinished_name(repo_id, filename))
        )
        self._models: list[CachedModel] = []
        self._seen: VerifiedRows | None = None

    def is_current(self, flat: FlatFiles) -> bool:
        """Whether the flat cache holds the same of this repository as it did."""
        before, self._flat = self._flat.names, flat
        if flat.manifests.get(self._inventory.repo_id, ()) != self._inventory.manifests:
            return False
        return flat.names is before or self._names & before == self._names & flat.names

    def models(self, verified: VerifiedRows) -> list[CachedModel]:
        # Digests that are not known by a blob's name come from the table.
        if self._seen is not verified:
            entries = self._entries
            self._models = [cached_model(self._inventory, entry, verified) for entry in entries]
            self._seen = verified
        return self._models


class Library:
    """The reading side of both caches."""

    def __init__(
        self, flat: FlatCache, hub: HubCache, volume: Volume, verified: VerifiedFiles
    ) -> None:
        self._flat = flat
        self._hub = hub
        self._verified = verified
        self._flat_scanner = FlatScanner(flat.root, volume.is_inside)
        self._shelves: Memory[_Shelf] = Memory()
        self._hub_scanner = HubScanner(hub.root, volume.is_inside)
        self._listing = threading.Lock()

    def models(self, halt: threading.Event | None = None) -> list[CachedModel]:
        """Every model in either cache, by repository and tag; fewer once ``halt`` is set.

        One thread at a time reads the disk: whoever comes meanwhile finds its work done.
        """
        found: list[CachedModel] = []
        with self._listing:
            flat, verified = self._flat_scanner.scan(), self._verified.now()
            repos = sorted(self._repos(flat), key=str.casefold)
            self._shelves.keep_only(repos)
            for repo_id in repos:
                if halt is not None and halt.is_set():
                    break
                found += self._models(repo_id, flat, verified)
        return found

    def _models(self, repo_id: str, flat: FlatFiles, verified: VerifiedRows) -> list[CachedModel]:
        shelf = self._shelves.get(repo_id)
        if shelf is None or not shelf.is_current(flat):
            snapshots = self._scan(repo_id)
            inventory = take_inventory(repo_id, snapshots.files, flat)
            shelf = _Shelf(inventory, entries_of(inventory), flat)
            sources = chain(snapshots.sources, _paths(inventory))
            self._shelves.keep(repo_id, shelf, sources)
        return shelf.models(verified)

    def find(self, ref: ModelRef) -> CachedModel | None:
        """The model that ``ref`` means; None when it is not there."""
        inventory = self.inventory(ref.repo_id)
        entry = _meant(ref.tag, inventory)
        return None if entry is None else cached_model(inventory, entry, self._verified.now())

    def inventory(self, repo_id: str) -> Inventory:
        """The files of one repository."""
        return self._inventory(repo_id, self._flat_scanner.scan())

    def snapshot_files(self, repo_id: str) -> list[SnapshotFile]:
        """The files of all its snapshots, models and others."""
        return self._scan(repo_id).files

    def superseded(self, repo_id: str, files: Iterable[HubFile]) -> list[SnapshotFile]:
        """The older versions of the files, as far as they have the flat name that will be taken.

        That they have it says that llamactl published them; what only ``hf`` or llama.cpp put
        into a snapshot is not among them.
        """
        stored = self.inventory(repo_id).files
        return [
            snapshot
            for file in files
            if file.filename in stored
            for snapshot in stored[file.filename].snapshots
            if snapshot.oid not in {None, file.oid} and stored[file.filename].has_flat(snapshot)
        ]

    def check_collision(self, repo_id: str, filenames: Iterable[str]) -> None:
        """Raises ``NameCollision`` when a flat name would mean two files."""
        paths: list[Path] = [self._flat.path(repo_id, filename) for filename in filenames]
        names = {path.name for path in paths}
        if len(names) != len(paths):
            raise NameCollision(f"Two files of {repo_id} would have one name in {self._flat.root}")
        flat, mine = self._flat_scanner.scan(), flat_name(repo_id, "")
        for other, taken in self._neighbours(repo_id, flat):
            if taken and (flat_name(other, "") == mine or names & taken):
                raise NameCollision(
                    f"{repo_id} and {other} would have the same names in {self._flat.root}",
                    hint=f"Delete {other} first, or use another cache_dir",
                )

    def shared_names(self, repo_id: str) -> frozenset[str]:
        """The names in the flat cache that files of other repositories have, or may have too."""
        neighbours = self._neighbours(repo_id, self._flat_scanner.scan())
        return frozenset(name for _other, taken in neighbours for name in taken)

    def _neighbours(self, repo_id: str, flat: FlatFiles) -> Iterator[tuple[str, set[str]]]:
        """The repositories with which this one may share names in the flat cache, and theirs."""
        mine = flat_name(repo_id, "")
        for other in self._repos(flat) - {repo_id}:
            theirs = flat_name(other, "")
            # Only where one begins as the other can two whole names be the same.
            if theirs.startswith(mine) or mine.startswith(theirs):
                files = self._inventory(other, flat).files
                yield other, {flat_name(other, name) for name in files}

    def _repos(self, flat: FlatFiles) -> set[str]:
        return self._hub_scanner.repos() | flat.manifests.keys()

    def _inventory(self, repo_id: str, flat: FlatFiles) -> Inventory:
        return take_inventory(repo_id, self._scan(repo_id).files, flat)

    def _scan(self, repo_id: str) -> Snapshots:
        if not is_repo_id(repo_id):
            return Snapshots([], [])
        return self._hub_scanner.scan(str(self._hub.repo_dir(repo_id)))


def _paths(inventory: Inventory) -> Iterator[str]:
    """The bytes of an inventory's files, at the end of all links.

    The links in a snapshot are not among them: their folder tells when one changes.
    """
    for file in inventory.files.values():
        snapshot = next((each for each in file.snapshots if each.path == file.path), None)
        path = file.path if snapshot is None or snapshot.blob is None else snapshot.blob
        yield path
        if os.path.islink(path):  # noqa: PTH114 - a Path costs more than the call
            yield os.path.realpath(path)


def _meant(tag: str, inventory: Inventory) -> Entry | None:
    """The entry of this tag, else the one whose model a download of the tag would choose."""
    entries = entries_of(inventory)
    for entry in entries:
        if entry.tag.casefold() == tag.casefold():
            return entry
    model = Offer(list(inventory.files)).find(tag)
    having = [entry for entry in entries if model in entry.shards]
    return min(having, key=lambda entry: entry.tag == LATEST, default=None)
