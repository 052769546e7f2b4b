"""The models on this machine: the one face of both caches.

Reading is free for every thread. Writing takes the cache's lock, so that a removal never meets a
publication half-way; hashing for a download happens outside it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from llamactl.database import Database
from llamactl.errors import ChecksumMismatch, ModelInUse, ModelNotFound
from llamactl.models import disk
from llamactl.models.catalogue import entries_of
from llamactl.models.hubfile import HubFile
from llamactl.models.hubscan import SnapshotFile
from llamactl.models.layout import FlatCache, HubCache
from llamactl.models.library import Library
from llamactl.models.names import check_commit
from llamactl.models.publication import Publisher
from llamactl.models.reference import ModelRef
from llamactl.models.removal import Removal, Remover, plan_removal
from llamactl.models.selection import Selection
from llamactl.models.snapshots import CachedModel
from llamactl.models.store import Store
from llamactl.models.verified import VerifiedFiles
from llamactl.models.volume import Volume

#: A temporary name lives for milliseconds; what is this old (seconds) was left by a killed process.
_ABANDONED = 3600.0


class ModelCache:
    """What lies in the flat cache below ``flat_root`` and in the Hub's cache below ``hub_root``.

    ``in_use`` is asked before a removal: it gets the paths that would go, and returns the names
    of those who use one.
    """

    def __init__(
        self,
        flat_root: Path,
        hub_root: Path,
        database: Database,
        in_use: Callable[[Sequence[Path]], list[str]],
    ) -> None:
        self.flat = FlatCache(flat_root)
        self.hub = HubCache(hub_root)
        self._in_use = in_use
        self._lock = threading.RLock()
        self._volume = Volume(flat_root, hub_root)
        self._verified = VerifiedFiles(database)
        self._library = Library(self.flat, self.hub, self._volume, self._verified)
        self._store = Store(self.flat, self.hub, self._volume, self._verified)
        self._publisher = Publisher(self.flat, self.hub, self._library)
        self._remover = Remover(self.flat, self.hub)
        self._halt = threading.Event()
        self._warming: threading.Thread | None = None

    def start(self, when_read: Callable[[], object] = lambda: None) -> None:
        """Read both caches in a thread of its own, so that the first list has them at hand.

        That thread calls ``when_read`` at its end.
        """
        self._warming = threading.Thread(
            target=self._warm, args=(when_read,), name="models-warm", daemon=False
        )
        self._warming.start()

    def stop(self, timeout: float | None = None) -> None:
        """End that thread, wherever it is; on a disk that hangs, wait ``timeout`` seconds only."""
        self._halt.set()
        if self._warming is not None:
            self._warming.join(timeout)

    def _warm(self, when_read: Callable[[], object]) -> None:
        self._library.models(self._halt)
        when_read()

    def list(self) -> list[CachedModel]:
        """Every model in either cache, whoever put it there, by repository and tag."""
        return self._library.models()

    def find(self, ref: ModelRef) -> CachedModel | None:
        """The cached model that ``ref`` means, by the rules of a download; None without one."""
        return self._library.find(ref)

    def gguf_path(self, ref: ModelRef) -> Path:
        """What ``llama-server -m`` takes. Raises ``ModelNotFound`` unless the model is whole."""
        return self._whole(ref).gguf.path

    def mmproj_path(self, ref: ModelRef) -> Path | None:
        """The model's projector, if it has one. Raises ``ModelNotFound``."""
        mmproj = self._whole(ref).first("mmproj")
        return None if mmproj is None else mmproj.path

    def has(
        self,
        repo_id: str,
        file: HubFile,
        *,
        halt: threading.Event | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Path | None:
        """Where exactly these bytes are, in either cache; None when they are not there.

        A file that is not known to be right is hashed now, which takes a second a gigabyte:
        ``on_bytes`` hears of the progress, and ``Interrupted`` is raised once ``halt`` is set.
        """
        candidates = self._store.places(repo_id, file)
        stored = self._library.inventory(repo_id).files.get(file.filename)
        if stored is not None:
            candidates += [Path(name) for name in stored.names()]
        return self._store.find(file, candidates, halt, on_bytes)

    def distrust(self, paths: Iterable[Path]) -> None:
        """Forget that these files were found right: ``has`` hashes them anew."""
        self._verified.forget([str(path) for path in paths])

    def confirm(self, path: Path, oid: str) -> None:
        """Remember that this file was hashed just now, and that ``oid`` is its digest."""
        self._verified.record([path], oid)

    def check_collision(self, repo_id: str, filenames: Iterable[str] = ()) -> None:
        """Raises ``NameCollision`` when a flat name would mean files of two repositories.

        Raises ``BadMetadata`` for a name that is too long for a file system.
        """
        self._library.check_collision(repo_id, filenames)

    def check_writable(self, repo_id: str | None = None) -> None:
        """Raises ``CacheNotWritable`` naming the directory that cannot be written.

        With ``repo_id`` also where something else than a folder is in place of one of its folders.
        """
        self._volume.check_writable()
        if repo_id is not None:
            self._store.check_folders(repo_id)

    def free_space(self) -> int:
        """Bytes that the caches' file system can still take."""
        return self._volume.free_space()

    def partial_path(self, repo_id: str, oid: str) -> Path:
        """Where the partial of these bytes lies. Its name ends in ``.incomplete``."""
        return self._store.partial_path(repo_id, oid)

    def publish_file(
        self, repo_id: str, commit: str, file: HubFile, part: Path, etag: str = ""
    ) -> Path:
        """Take over ``part``, which holds all bytes of ``file``, verified and synced.

        It is renamed to where no program takes it for a part of a model before ``publish``; that
        path is returned. ``etag`` is kept as it was received.
        """
        check_commit(commit)
        with self._lock, disk.named_errors(self.flat.root):
            self._library.check_collision(repo_id, [file.filename])
            return self._store.add(repo_id, file, part, etag)

    def publish(
        self,
        ref: ModelRef,
        commit: str,
        selection: Selection,
        manifest: bytes | None,
        listing: Sequence[HubFile] = (),
    ) -> Path:
        """Make a model visible to every program, all of its files at once; its flat path.

        ``manifest`` is kept as received. ``listing`` is all that the repository has at
        ``commit``: the unchanged files of other cached models move on with it. Raises
        ``ChecksumMismatch`` when a file of the selection is not there any more.
        """
        with self._lock, disk.named_errors(self.flat.root):
            sources = [self._source(ref.repo_id, file) for file in selection.files]
            old = self._library.superseded(ref.repo_id, selection.files)
            for file, source in zip(selection.files, sources, strict=True):
                self._store.name(ref.repo_id, file, source)
            self._publisher.publish(ref.repo_id, commit, selection, manifest, listing)
            self._retire(ref.repo_id, old)
            self._sweep(ref.repo_id)
            return self.flat.path(ref.repo_id, selection.ggufs[0].filename)

    def discard(self, repo_id: str, files: Iterable[HubFile]) -> None:
        """Remove what ``publish_file`` took over for a model that is not wanted any more."""
        with self._lock, disk.named_errors(self.flat.root):
            inventory = self._library.inventory(repo_id)
            kept = {name for file in inventory.files.values() for name in file.names()}
            kept |= {s.blob for s in self._library.snapshot_files(repo_id) if s.blob is not None}
            paths = [path for file in files for path in self._store.leftovers(repo_id, file)]
            self._remover.discard(repo_id, paths, frozenset(kept))
            self.distrust(path for path in paths if str(path) not in kept)

    def delete(self, repo_id: str, tag: str | None) -> None:
        """Remove one model, or all of a repository, from both caches.

        What another model needs stays, and so does what is no model. Raises ``ModelNotFound``,
        ``ModelInUse``.
        """
        with self._lock, disk.named_errors(self.flat.root):
            removal = self._removal(repo_id, tag)
            paths = removal.paths()
            users = self._in_use(paths) if paths else []
            if users:
                raise ModelInUse(
                    f"{repo_id} is used by {', '.join(users)}", hint="Stop that first, then delete"
                )
            gone_names = {name for file in removal.files for name in file.names()}
            staying = [
                file
                for file in self._library.snapshot_files(repo_id)
                if file.path not in gone_names
            ]
            self._remover.remove(repo_id, removal, staying)
            self._verified.forget(gone_names)
            self._sweep(repo_id)

    def leaving(self, repo_id: str, tag: str | None) -> frozenset[str]:
        """The names of the files that ``delete`` would remove. Raises ``ModelNotFound``."""
        return frozenset(file.filename for file in self._removal(repo_id, tag).files)

    def _removal(self, repo_id: str, tag: str | None) -> Removal:
        inventory = self._library.inventory(repo_id)
        entries = entries_of(inventory)
        gone = [e for e in entries if tag is None or e.tag.casefold() == tag.casefold()]
        if not gone:
            tags = [entry.tag for entry in entries]
            raise _not_found(repo_id, tag, tags, "Check the spelling")
        kept = [entry for entry in entries if entry not in gone]
        return plan_removal(inventory, gone, kept, self._library.shared_names(repo_id))

    def _whole(self, ref: ModelRef) -> CachedModel:
        model = self.find(ref)
        if model is None:
            tags = [entry.tag for entry in entries_of(self._library.inventory(ref.repo_id))]
            raise _not_found(ref.repo_id, ref.tag, tags)
        if not model.complete:
            raise ModelNotFound(
                f"{model.ref} is in the cache only in part", hint="Download it again to complete it"
            )
        return model

    def _source(self, repo_id: str, file: HubFile) -> Path:
        source = self.has(repo_id, file)
        if source is None:
            raise ChecksumMismatch(
                f"{file.filename} is no longer in the cache as it was downloaded",
                hint="Retry: only what is missing is fetched again",
            )
        return source

    def _retire(self, repo_id: str, old: Sequence[SnapshotFile]) -> None:
        if not old:
            return
        paths = [Path(name) for file in old for name in (file.path, file.blob) if name is not None]
        used = bool(self._in_use(paths))
        files = self._library.snapshot_files(repo_id)
        self._remover.retire(repo_id, old, files, used=used)
        self.distrust(paths)

    def _sweep(self, repo_id: str) -> None:
        for folder in (self.flat.root, self.hub.root, self.hub.repo_dir(repo_id)):
            disk.sweep(folder, older_than=time.time() - _ABANDONED)


def _not_found(
    repo_id: str, tag: str | None, tags: Sequence[str], remedy: str = "Download it first"
) -> ModelNotFound:
    name = repo_id if tag is None else f"{repo_id}:{tag}"
    hint = f"Cached are its tags {', '.join(tags)}" if tags else remedy
    shown = name if name.isprintable() else ascii(name)
    return ModelNotFound(f"{shown} is not in the cache", hint=hint)
