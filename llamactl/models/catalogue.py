"""From the files of a repository to its models, each once, by tag."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llamactl.models.filenames import is_model, plain_tag_of, primaries, split_of, tag_of
from llamactl.models.flatscan import StoredManifest
from llamactl.models.inventory import Inventory, StoredFile
from llamactl.models.offer import Offer, tag_of_path
from llamactl.models.reference import LATEST, ModelRef, is_tag
from llamactl.models.selection import PRESET
from llamactl.models.snapshots import CachedFile, CachedModel, FileType
from llamactl.models.verified import VerifiedRows

#: By what all files of a set share: the place and the name of each.
Sets = Mapping[tuple[str, int], list[tuple[int, str]]]


@dataclass(frozen=True)
class Entry:
    """A model of a repository: its tag, the files that belong to it, the manifests that say so.

    ``shards`` are the present ones of ``count``. ``mmproj`` may be absent while it is fetched.
    """

    tag: str
    shards: tuple[str, ...]
    count: int
    mmproj: str | None
    manifests: tuple[StoredManifest, ...] = ()

    @property
    def filenames(self) -> tuple[str, ...]:
        return self.shards if self.mmproj is None else (*self.shards, self.mmproj)


def entries_of(inventory: Inventory) -> list[Entry]:
    """The models that ``inventory`` holds, whole or not, by tag.

    A manifest names a model by the tag that somebody asked for. What no manifest covers is named
    by its quant, or by its path where another model has that quant.
    """
    names = list(inventory.files)
    offer = Offer(names)
    sets = _sets(names)
    entries: dict[str, Entry] = {}
    covered: set[tuple[str, int]] = set()
    for tag, manifests in _asked_for(inventory):
        entry = _entry(inventory, offer, sets, tag, manifests[0].gguf, manifests)
        if entry.shards:
            entries.setdefault(tag.casefold(), entry)
            covered.add(split_of(manifests[0].gguf).key)
    for primary in dict.fromkeys(primaries([name for name in names if is_model(name)]).values()):
        if split_of(primary).key in covered:
            continue
        tag = tag_of(primary)
        if not is_tag(tag) or tag.casefold() in entries:
            tag = tag_of_path(primary)
        entries.setdefault(tag.casefold(), _entry(inventory, offer, sets, tag, primary, ()))
    return [entries[key] for key in sorted(entries)]


def cached_model(inventory: Inventory, entry: Entry, verified: VerifiedRows) -> CachedModel:
    """The entry as the world sees it."""
    files = [_file(inventory.files[name], "gguf", verified) for name in entry.shards]
    complete = len(entry.shards) == entry.count and inventory.unfinished.isdisjoint(entry.filenames)
    extras: tuple[tuple[str | None, FileType], ...] = ((entry.mmproj, "mmproj"), (PRESET, "preset"))
    for name, type_ in extras:
        stored = inventory.files.get(name or "")
        if stored is not None:
            files.append(_file(stored, type_, verified))
    return CachedModel(ModelRef(inventory.repo_id, entry.tag), tuple(files), complete)


def _asked_for(inventory: Inventory) -> Iterator[tuple[str, tuple[StoredManifest, ...]]]:
    """The tags of the manifests, each with all manifests that mean it.

    A model that was asked for in several spellings, or by its file's name as well, has one tag;
    only ``latest`` stands beside another one.
    """
    groups: dict[tuple[bool, tuple[str, int]], list[StoredManifest]] = {}
    for manifest in sorted(inventory.manifests, key=_plainest_first):
        key = (manifest.ref.tag == LATEST, split_of(manifest.gguf).key)
        groups.setdefault(key, []).append(manifest)
    for (is_latest, _key), manifests in groups.items():
        yield LATEST if is_latest else _shown_tag(manifests[0]), tuple(manifests)


def _plainest_first(manifest: StoredManifest) -> tuple[bool, str]:
    return _shown_tag(manifest) != tag_of(manifest.gguf), manifest.path.name


def _shown_tag(manifest: StoredManifest) -> str:
    """The tag in the spelling of the file that it means."""
    wanted = manifest.ref.tag.casefold()
    for spelling in (tag_of(manifest.gguf), manifest.gguf):
        if spelling.casefold() == wanted:
            return spelling
    same = plain_tag_of(manifest.gguf).casefold() == wanted
    return tag_of(manifest.gguf) if same else manifest.ref.tag


def _sets(names: Iterable[str]) -> Sets:
    """The files of each split set with their places in it; a file of its own is a set too."""
    sets: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for split in map(split_of, names):
        sets.setdefault(split.key, []).append((split.index, split.filename))
    return sets


def _entry(
    inventory: Inventory,
    offer: Offer,
    sets: Sets,
    tag: str,
    primary: str,
    manifests: tuple[StoredManifest, ...],
) -> Entry:
    split = split_of(primary)
    shards = tuple(name for _index, name in sorted(sets.get(split.key, ())))
    named = (manifest.mmproj for manifest in manifests)
    present = (name for name in named if name in inventory.files or name in inventory.unfinished)
    mmproj = next(present, None) or offer.mmproj_for(primary)
    return Entry(tag, shards, split.count, mmproj, manifests)


def _file(stored: StoredFile, type_: FileType, verified: VerifiedRows) -> CachedFile:
    oid = stored.oid if stored.oid is not None and len(stored.oid) == 64 else None
    if oid is None:
        oid = verified.oid(stored.path, stored.status)
    return CachedFile(
        stored.filename,
        Path(stored.path),
        stored.status.st_size,
        int(stored.status.st_mtime),
        type_,
        oid if oid is not None and len(oid) == 64 else None,
    )
