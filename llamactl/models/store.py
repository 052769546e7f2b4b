"""The bytes of files: where they go, whether they are there, under which names.

There is one copy of a file's bytes. Its names are the flat one and the blob: two hard links where
the system can do that, else one of them is a link to the other.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from llamactl.models import digest, disk
from llamactl.models.hubfile import HubFile
from llamactl.models.layout import FlatCache, HubCache
from llamactl.models.selection import PRESET
from llamactl.models.verified import VerifiedFiles
from llamactl.models.volume import Volume

#: How the name of a partial of ours ends.
PARTIAL_SUFFIX = ".llamactl.incomplete"
#: How the name of complete bytes ends that cannot have their final name yet.
_WAITING = ".llamactl-complete.incomplete"


class Store:
    """The bytes in both caches. The caller sees to it that one thread writes at a time."""

    def __init__(
        self, flat: FlatCache, hub: HubCache, volume: Volume, verified: VerifiedFiles
    ) -> None:
        self._flat = flat
        self._hub = hub
        self._volume = volume
        self._verified = verified
        self._etags: dict[Path, str] = {}

    def partial_path(self, repo_id: str, oid: str) -> Path:
        """Where the partial of these bytes lies: on the file system where they will stay."""
        blob = self._hub.blob(repo_id, oid)
        folder = blob.parent if self._volume.links else self._flat.root
        return folder / f"{oid}{PARTIAL_SUFFIX}"

    def check_folders(self, repo_id: str) -> None:
        """Raises ``CacheNotWritable`` where a planted link would lead bytes out of the cache."""
        hub = self._hub
        folders = (hub.repo_dir(repo_id), hub.blobs(repo_id), hub.snapshots(repo_id))
        with disk.named_errors(hub.root):
            for folder in (*folders, hub.ref(repo_id).parent):
                disk.check_folder(folder)

    def add(self, repo_id: str, file: HubFile, part: Path, etag: str) -> Path:
        """Take over the complete, verified and synced ``part``; where its bytes are now.

        They get their names at once, unless an older version of the file has the flat one: that
        is replaced with the rest of its model, so that no set is ever half old and half new.
        """
        flat, place = self._flat.path(repo_id, file.filename), self._place(repo_id, file)
        part.chmod(self._volume.file_mode())
        disk.make_dirs(place.parent, self._flat.root if self._waits(place) else self._hub.root)
        disk.move(part, place)
        disk.sync_dir(place.parent)
        self._verified.record([place], file.oid)
        self._etags[flat] = etag
        if flat.exists():
            return place
        self.name(repo_id, file, place)
        return flat

    def places(self, repo_id: str, file: HubFile) -> list[Path]:
        """Where bytes of the file may be, whether or not a model has them already."""
        flat = self._flat.path(repo_id, file.filename)
        return [self._hub.blob(repo_id, file.oid), self._waiting(file), flat]

    def leftovers(self, repo_id: str, file: HubFile) -> list[Path]:
        """The names that ``add`` gave the file; a flat file of other bytes is not among them."""
        blob, waiting, flat = self.places(repo_id, file)
        return [blob, waiting, flat] if _same_file(flat, blob) else [blob, waiting]

    def _place(self, repo_id: str, file: HubFile) -> Path:
        """Where complete bytes get their first name: the blob, if it can be linked from there."""
        if self._volume.links and file.filename != PRESET:
            return self._hub.blob(repo_id, file.oid)
        return self._waiting(file)

    def _waiting(self, file: HubFile) -> Path:
        return self._flat.root / f"{file.oid}{_WAITING}"

    @staticmethod
    def _waits(path: Path) -> bool:
        return path.name.endswith(_WAITING)

    def find(
        self,
        file: HubFile,
        candidates: Iterable[Path],
        halt: threading.Event | None,
        on_bytes: Callable[[int], None] | None,
    ) -> Path | None:
        """The first candidate whose bytes are known to be the file's, hashed now if need be."""
        known = self._verified.now()
        places: dict[tuple[int, int], list[Path]] = {}
        for path in dict.fromkeys(candidates):
            try:
                status = path.stat()
            except OSError:
                continue
            if status.st_size != file.size or not self._volume.is_inside(str(path)):
                continue
            if known.oid(str(path), status) == file.oid:
                return path
            places.setdefault((status.st_dev, status.st_ino), []).append(path)
        for paths in places.values():
            # What cannot be read is as good as not there.
            with contextlib.suppress(OSError):
                if digest.matches(paths[0], file.oid, halt=halt, on_bytes=on_bytes):
                    self._verified.record(paths, file.oid)
                    return paths[0]
        return None

    def name(self, repo_id: str, file: HubFile, source: Path) -> None:
        """Give right bytes, wherever they are in the caches, all the names that they should have.

        A preset has its flat name only.
        """
        flat, blob = self._flat.path(repo_id, file.filename), self._hub.blob(repo_id, file.oid)
        self._flat.root.mkdir(parents=True, exist_ok=True)
        if not _same_file(source, flat):
            # An ETag that stays beside other bytes would have older llama.cpp take them for new.
            disk.remove_file(self._flat.root, self._flat.etag_path(flat))
            if self._waits(source):
                self._verified.forget([str(source)])
                source = source.replace(flat)
                disk.sync_dir(flat.parent)
            else:
                self._give_name(source, flat, self._flat.root)
        if etag := self._etags.pop(flat, ""):
            disk.write_file(self._flat.etag_path(flat), etag.encode())
        if file.filename != PRESET and not _same_file(source, blob):
            disk.make_dirs(blob.parent, self._hub.root)
            self._give_name(source, blob, self._hub.repo_dir(repo_id))
        names = (flat,) if file.filename == PRESET else (flat, blob)
        self._verified.record(filter(Path.exists, names), file.oid)

    @staticmethod
    def _give_name(source: Path, name: Path, scratch: Path) -> None:
        real = Path(os.path.realpath(source))
        if not disk.hard_link(real, name, scratch):
            disk.symlink(str(source), name, scratch)
        disk.sync_dir(name.parent)


def _same_file(left: Path, right: Path) -> bool:
    try:
        return left.samefile(right)
    except FileNotFoundError:
        return False
