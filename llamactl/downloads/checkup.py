"""One run of a job of kind ``verify``: cached files hashed anew, damaged ones named or mended."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from llamactl.downloads.attempt import Attempt, Services
from llamactl.downloads.plan import Plan
from llamactl.downloads.progress import FileProgress, FileStatus, Pace, Progress
from llamactl.errors import ChecksumMismatch, ModelNotFound, TransferError
from llamactl.models import digest
from llamactl.models.flatscan import read_manifest
from llamactl.models.hubfile import HubFile
from llamactl.models.hubscan import read_ref
from llamactl.models.reference import ModelRef
from llamactl.models.selection import Selection
from llamactl.models.snapshots import CachedFile, CachedModel

log = logging.getLogger(__name__)

_REPAIR = "Verify with repair to fetch them again, or delete the model."


class NoDigest(TransferError):
    """Nobody can say which bytes a file should have."""

    code: ClassVar[str] = "no_digest"


@dataclass(frozen=True)
class Order:
    """What is to be checked; ``tag`` None means every model of the repository."""

    repo_id: str
    tag: str | None
    repair: bool

    def to_json(self) -> str:
        """The order as the jobs' table keeps it, in the place of a plan."""
        return json.dumps({"tag": self.tag, "repair": self.repair})

    @classmethod
    def from_json(cls, repo_id: str, text: str) -> Order:
        """Read what ``to_json`` wrote."""
        value = json.loads(text)
        return cls(repo_id, value["tag"], value["repair"])

    def covers(self, model: CachedModel) -> bool:
        """Whether a cached model is meant."""
        same_tag = self.tag is None or model.ref.tag.casefold() == self.tag.casefold()
        return model.ref.repo_id == self.repo_id and same_tag


class Checkup:
    """``run`` is called once, by one thread; ``progress`` by any, at any time."""

    def __init__(
        self,
        job_id: str,
        order: Order,
        services: Services,
        halt: threading.Event,
        progressed: Callable[[], None],
    ) -> None:
        self._job_id = job_id
        self._order = order
        self._services = services
        self._halt = halt
        self._progressed = progressed
        self._pace = Pace()
        self._files: dict[Path, FileProgress] = {}
        self._oids: Mapping[Path, str] = {}
        self._mending: Attempt | None = None
        self._discard = False

    @property
    def discard(self) -> bool:
        """Whether what a repair has fetched so far goes when the run ends."""
        return self._discard

    @discard.setter
    def discard(self, value: bool) -> None:
        self._discard = value
        mending = self._mending
        if mending is not None:
            mending.discard = value

    def run(self) -> Path | None:
        """Hash every file, but for a preset that only its owner can judge.

        Raises ``ChecksumMismatch`` naming the damaged files, with ``repair`` only when the hub
        does not have them any more; ``NoDigest`` naming those that nothing can be compared with;
        ``ModelNotFound``; ``Interrupted``.
        """
        models = self._models()
        if not models:
            raise ModelNotFound(f"{self._order.repo_id} is not in the cache")
        files = {
            file.path: file
            for model in models
            for file in model.files
            if file.sha256 or file.type != "preset"
        }
        self._files = {
            path: FileProgress(file.name, file.size, 0, "pending") for path, file in files.items()
        }
        self._oids = self._digests(files.values())
        known = {path: file for path, file in files.items() if path in self._oids}
        damaged = {path: file for path, file in known.items() if not self._is_right(file)}
        cache, repo_id = self._services.cache, self._order.repo_id
        blobs = [cache.hub.blob(repo_id, self._oids[path]) for path in damaged]
        cache.distrust([*damaged, *blobs])
        if damaged and not self._order.repair:
            raise _damage([file.name for file in damaged.values()], _REPAIR)
        for model in models:
            if any(file.path in damaged for file in model.files):
                self._mend(model)
        for path, file in damaged.items():
            self._say(path, file.size, "completed")
        unknown = sorted(file.name for path, file in files.items() if path not in known)
        if unknown:
            raise NoDigest(
                f"No digest is known of {', '.join(unknown)}",
                hint="Download the model: what is there is then compared with the hub's bytes.",
            )
        return None

    def progress(self) -> Progress:
        """How far it is now: bytes that were hashed, or fetched again."""
        mending = self._mending
        if mending is not None:
            return mending.progress()
        files = tuple(self._files.values())
        return Progress(
            files,
            sum(file.size for file in files) if files else None,
            self._pace.bytes_per_second(),
            "verifying",
        )

    def _models(self) -> list[CachedModel]:
        return [model for model in self._services.cache.list() if self._order.covers(model)]

    def _digests(self, files: Iterable[CachedFile]) -> Mapping[Path, str]:
        """The digest that each file should have: as it was recorded, else as the hub says it.

        A file that another program put there may have none, or the hub may have another version.
        """
        oids = {file.path: file.sha256 for file in files if file.sha256}
        unknown = [file for file in files if file.path not in oids]
        if unknown:
            try:
                offered = {file.filename: file for file in self._listing[1]}
            except TransferError as error:
                log.info("%s: its digests cannot be had: %s", self._order.repo_id, error)
                offered = {}
            for file in unknown:
                known = offered.get(file.name)
                if known is not None and known.size == file.size:
                    oids[file.path] = known.oid
        return oids

    @cached_property
    def _listing(self) -> tuple[str, list[HubFile]]:
        """The commit that is cached, else the newest, and what the hub has at it."""
        repo_id, hub = self._order.repo_id, self._services.hub
        cached = read_ref(self._services.cache.hub.ref(repo_id))
        commit = cached or hub.commit(repo_id, self._halt)
        return commit, hub.tree(repo_id, commit, self._halt)

    def _is_right(self, file: CachedFile) -> bool:
        position = 0

        def hashed(count: int) -> None:
            nonlocal position
            position += count
            self._say(file.path, min(position, file.size), "verifying")
            self._pace.note(sum(each.bytes_downloaded for each in self._files.values()))

        oid = self._oids[file.path]
        try:
            right = digest.matches(file.path, oid, halt=self._halt, on_bytes=hashed)
        except OSError as error:
            # A disk that cannot give the bytes back has lost them.
            log.warning("%s cannot be read: %s", file.path, error.strerror)
            right = False
        if right:
            self._services.cache.confirm(file.path, oid)
        self._say(file.path, file.size if right else 0, "completed" if right else "damaged")
        self._progressed()
        return right

    def _say(self, path: Path, count: int, status: FileStatus) -> None:
        self._files[path] = replace(self._files[path], bytes_downloaded=count, status=status)

    def _mend(self, model: CachedModel) -> None:
        """Fetch what is damaged of a model, from the commit that it is of."""
        ref = model.ref
        plan = self._plan(model)
        attempt = Attempt(
            self._job_id,
            ref,
            plan,
            self._services,
            self._halt,
            ask_again=False,
            keep=lambda plan: None,
            progressed=self._progressed,
        )
        attempt.discard = self._discard
        self._mending = attempt
        try:
            attempt.run()
        finally:
            self._mending = None

    def _plan(self, model: CachedModel) -> Plan:
        """The model as it is cached, as something to fetch; what is whole is not fetched."""
        commit, listing = self._listing
        offered = {(file.filename, file.oid): file for file in listing}
        wanted = [file for file in model.files if file.type != "preset"]
        lost = [file.name for file in wanted if self._key(file) not in offered]
        if lost:
            raise _damage(lost, "The hub has other bytes by now: download the model again.")
        ggufs = [offered[self._key(file)] for file in wanted if file.type == "gguf"]
        mmproj = [offered[self._key(file)] for file in wanted if file.type == "mmproj"]
        selection = Selection(model.ref.tag, tuple(ggufs), next(iter(mmproj), None))
        manifest = self._manifest(model.ref)
        return Plan(commit, selection, manifest, tuple(listing))

    def _key(self, file: CachedFile) -> tuple[str, str]:
        return file.name, self._oids.get(file.path, "")

    def _manifest(self, ref: ModelRef) -> bytes | None:
        return read_manifest(self._services.cache.flat.manifest_path(ref))


def _damage(names: Iterable[str], hint: str) -> ChecksumMismatch:
    return ChecksumMismatch(f"Damaged: {', '.join(sorted(names))}", hint=hint)
