"""What is there: both caches read together, by repository and by reference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from llamactl.errors import NameCollision
from llamactl.models.catalogue import Entry, cached_model, entries_of
from llamactl.models.flatscan import FlatFiles, FlatScanner
from llamactl.models.hubscan import HubScanner, SnapshotFile
from llamactl.models.inventory import Inventory, take_inventory
from llamactl.models.layout import FlatCache, HubCache, flat_name
from llamactl.models.offer import Offer
from llamactl.models.reference import LATEST, ModelRef
from llamactl.models.snapshots import CachedModel
from llamactl.models.verified import VerifiedFiles
from llamactl.models.volume import Volume


class Library:
    """The reading side of both caches. It keeps nothing but manifests that did not change."""

    def __init__(
        self, flat: FlatCache, hub: HubCache, volume: Volume, verified: VerifiedFiles
    ) -> None:
        self._flat = flat
        self._hub = hub
        self._verified = verified
        self._flat_scanner = FlatScanner(flat.root, volume.is_inside)
        self.scanner = HubScanner(hub.root, volume.is_inside)

    def models(self) -> list[CachedModel]:
        """Every model in either cache, by repository and tag."""
        flat, verified = self._flat_scanner.scan(), self._verified.now()
        return [
            cached_model(inventory, entry, verified)
            for repo_id in sorted(self._repos(flat), key=str.casefold)
            for inventory in [self._inventory(repo_id, flat)]
            for entry in entries_of(inventory)
        ]

    def find(self, ref: ModelRef) -> CachedModel | None:
        """The model that ``ref`` means; None when it is not there."""
        inventory = self.inventory(ref.repo_id)
        entry = _meant(ref.tag, inventory)
        return None if entry is None else cached_model(inventory, entry, self._verified.now())

    def inventory(self, repo_id: str) -> Inventory:
        """The files of one repository."""
        return self._inventory(repo_id, self._flat_scanner.scan())

    def snapshot_files(self, repo_id: str) -> Iterator[SnapshotFile]:
        """The files of all its snapshots, models and others."""
        return self.scanner.files(str(self._hub.repo_dir(repo_id)))

    def check_collision(self, repo_id: str, filenames: Iterable[str]) -> None:
        """Raises ``NameCollision`` when a flat name would mean two files."""
        paths: list[Path] = [self._flat.path(repo_id, filename) for filename in filenames]
        names = {path.name for path in paths}
        if len(names) != len(paths):
            raise NameCollision(f"Two files of {repo_id} would have one name in {self._flat.root}")
        flat, mine = self._flat_scanner.scan(), flat_name(repo_id, "")
        for other in self._repos(flat) - {repo_id}:
            theirs = flat_name(other, "")
            # Only where one begins as the other can two whole names be the same.
            if not (theirs.startswith(mine) or mine.startswith(theirs)):
                continue
            taken = {flat_name(other, name) for name in self._inventory(other, flat).files}
            if taken and (theirs == mine or names & taken):
                raise NameCollision(
                    f"{repo_id} and {other} would have the same names in {self._flat.root}",
                    hint=f"Delete {other} first, or use another cache_dir",
                )

    def _repos(self, flat: FlatFiles) -> set[str]:
        return self.scanner.repos() | flat.manifests.keys()

    def _inventory(self, repo_id: str, flat: FlatFiles) -> Inventory:
        return take_inventory(repo_id, self.snapshot_files(repo_id), flat)


def _meant(tag: str, inventory: Inventory) -> Entry | None:
    """The entry of this tag, else the one whose model a download of the tag would choose."""
    entries = entries_of(inventory)
    for entry in entries:
        if entry.tag.casefold() == tag.casefold():
            return entry
    model = Offer(list(inventory.files)).find(tag)
    having = [entry for entry in entries if model in entry.shards]
    return min(having, key=lambda entry: entry.tag == LATEST, default=None)
