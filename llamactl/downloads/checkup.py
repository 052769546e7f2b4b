"""One run of a job of kind ``verify``: cached files hashed anew, damaged ones named or mended."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from llamactl.downloads.attempt import Attempt, Services
from llamactl.downloads.plan import Plan
from llamactl.downloads.progress import FileProgress, FileStatus, Pace, Progress
from llamactl.errors import ChecksumMismatch, ModelNotFound
from llamactl.models import digest
from llamactl.models.hubscan import read_ref
from llamactl.models.reference import ModelRef
from llamactl.models.selection import Selection
from llamactl.models.snapshots import CachedFile, CachedModel

_REPAIR = "Verify with repair to fetch them again, or delete the model."


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
        """Hash every file whose digest is known.

        Raises ``ChecksumMismatch`` naming the damaged files, with ``repair`` only when the hub
        does not have them any more; ``ModelNotFound``; ``Interrupted``.
        """
        models = self._models()
        if not models:
            raise ModelNotFound(f"{self._order.repo_id} is not in the cache")
        known = {file.path: file for model in models for file in model.files if file.sha256}
        self._files = {
            path: FileProgress(file.name, file.size, 0, "pending") for path, file in known.items()
        }
        damaged = {path: file for path, file in known.items() if not self._is_right(file)}
        cache, repo_id = self._services.cache, self._order.repo_id
        blobs = [cache.hub.blob(repo_id, file.sha256 or "") for file in damaged.values()]
        cache.distrust([*damaged, *blobs])
        if damaged and not self._order.repair:
            raise _damage([file.name for file in damaged.values()], _REPAIR)
        for model in models:
            if any(file.path in damaged for file in model.files):
                self._mend(model)
        for path, file in damaged.items():
            self._say(path, file.size, "completed")
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

    def _is_right(self, file: CachedFile) -> bool:
        position = 0

        def hashed(count: int) -> None:
            nonlocal position
            position += count
            self._say(file.path, min(position, file.size), "verifying")
            self._pace.note(sum(each.bytes_downloaded for each in self._files.values()))

        right = digest.matches(file.path, file.sha256 or "", halt=self._halt, on_bytes=hashed)
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
        repo_id, hub = model.ref.repo_id, self._services.hub
        cached = read_ref(self._services.cache.hub.ref(repo_id))
        commit = cached or hub.commit(repo_id, self._halt)
        listing = hub.tree(repo_id, commit, self._halt)
        offered = {(file.filename, file.oid): file for file in listing}
        wanted = [file for file in model.files if file.type != "preset"]
        lost = [file.name for file in wanted if (file.name, file.sha256) not in offered]
        if lost:
            raise _damage(lost, "The hub has other bytes by now: download the model again.")
        ggufs = [offered[file.name, file.sha256 or ""] for file in wanted if file.type == "gguf"]
        mmproj = [offered[file.name, file.sha256 or ""] for file in wanted if file.type == "mmproj"]
        selection = Selection(model.ref.tag, tuple(ggufs), next(iter(mmproj), None))
        manifest = self._manifest(model.ref)
        return Plan(commit, selection, manifest, tuple(listing))

    def _manifest(self, ref: ModelRef) -> bytes | None:
        path = self._services.cache.flat.manifest_path(ref)
        return path.read_bytes() if path.is_file() else None


def _damage(names: Iterable[str], hint: str) -> ChecksumMismatch:
    return ChecksumMismatch(f"Damaged: {', '.join(sorted(names))}", hint=hint)
