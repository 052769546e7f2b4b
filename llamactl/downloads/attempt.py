"""One run of a job, from the question what to fetch to the model under its names.

Whatever ends a run (an error, a pause, a kill) the next one goes on: with the commit and the
files that were chosen first, and with the bytes that the partials' sidecars vouch for.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from llamactl.config import DownloadsConfig
from llamactl.downloads.bandwidth import Bandwidth
from llamactl.downloads.partfile import PartBusy, PartFile, recorded_bytes, remove_partial
from llamactl.downloads.plan import Plan, make_plan
from llamactl.downloads.progress import FileProgress, FileStatus, Progress
from llamactl.downloads.source import Source
from llamactl.downloads.space import Space
from llamactl.downloads.target import Target
from llamactl.downloads.transfer import Activity, Transfer
from llamactl.downloads.tuning import Tuning
from llamactl.downloads.worker import Patience
from llamactl.errors import EntryNotFound, Interrupted, LlamactlError, NetworkError, RateLimited
from llamactl.hub.client import HubClient
from llamactl.hub.limits import ATTEMPTS, LONGEST, UNNAMED_WAIT
from llamactl.models.cache import ModelCache
from llamactl.models.hubfile import HubFile
from llamactl.models.reference import ModelRef

log = logging.getLogger(__name__)

T = TypeVar("T")

#: While another job writes the only partial that is left, look whether it is done so often.
_LOOK_AGAIN = 0.2


@dataclass(frozen=True)
class Services:
    """What the runs of all jobs share."""

    hub: HubClient
    cache: ModelCache
    limits: DownloadsConfig
    bandwidth: Bandwidth
    space: Space
    tuning: Tuning


class Attempt:
    """``run`` is called once, by one thread; ``progress`` by any, at any time."""

    def __init__(
        self,
        job_id: str,
        ref: ModelRef,
        plan: Plan | None,
        services: Services,
        halt: threading.Event,
        *,
        ask_again: bool,
        keep: Callable[[Plan], None],
        progressed: Callable[[], None],
    ) -> None:
        """``plan`` is the one of an earlier run; with ``ask_again`` the hub is asked for another.

        ``keep`` stores the plan, at once and whenever a file is complete.
        """
        self._job_id = job_id
        self._ref = ref
        self._plan = plan
        self._services = services
        self._halt = halt
        self._ask_again = ask_again
        self._keep = keep
        self._progressed = progressed
        self._transfer: Transfer | None = None
        self._targets: dict[str, Target] = {}
        self._resting = resting_progress(ref.repo_id, plan, services.cache)
        self._activity = Activity()
        self.discard = False

    def run(self) -> Path:
        """Fetch and publish; the path of the model's (first) GGUF.

        Raises what ended it, or ``Interrupted``; partials stay, unless ``discard`` was set.
        """
        resumed = self._plan is not None and not self._ask_again
        plan = self._plan if self._plan is not None and resumed else self._make_plan()
        try:
            return self._fetch_and_publish(plan)
        except EntryNotFound:
            if not resumed:
                raise
            log.info("%s: the hub has no %s any more", self._ref.repo_id, plan.commit)
            return self._fetch_and_publish(self._make_plan())
        finally:
            self._services.space.release(self._job_id)

    def progress(self) -> Progress:
        """How far it is now."""
        plan, transfer = self._plan, self._transfer
        if plan is None:
            return Progress(detail=self._activity.detail, retry_at=self._activity.retry_at)
        activity = self._activity if transfer is None else transfer.activity()
        known = {file.name: file for file in self._resting.files}
        files = [self._file_progress(file, known) for file in plan.selection.files]
        return Progress(
            tuple(files),
            plan.size,
            0.0 if transfer is None else transfer.pace.bytes_per_second(),
            activity.detail,
            activity.retry_at,
        )

    def _file_progress(self, file: HubFile, known: dict[str, FileProgress]) -> FileProgress:
        plan, target = self._plan, self._targets.get(file.filename)
        if plan is not None and file.filename in plan.done:
            return FileProgress(file.filename, file.size, file.size, "completed")
        if target is None:
            return known.get(file.filename) or FileProgress(file.filename, file.size, 0, "pending")
        part = target.part
        if part.complete:
            return FileProgress(file.filename, file.size, part.durable, "verifying")
        status: FileStatus = "downloading" if target.claims or part.received else "pending"
        return FileProgress(file.filename, file.size, part.durable, status)

    def _make_plan(self) -> Plan:
        hub = self._services.hub
        plan = self._patiently(lambda: make_plan(hub, self._ref, self._halt))
        self._resting = resting_progress(self._ref.repo_id, plan, self._services.cache)
        self._remember(plan)
        return plan

    def _remember(self, plan: Plan) -> None:
        self._plan = plan
        self._keep(plan)
        self._progressed()

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Wait out the hub's rate limits; bear with a bad line as long as the limit allows."""
        failures = 0
        while True:
            try:
                return ask()
            except RateLimited as error:
                until = error.retry_at or time.time() + UNNAMED_WAIT
                self._activity = Activity("rate_limited", until)
            except NetworkError:
                failures += 1
                if failures >= max(1, self._services.limits.retry_limit // ATTEMPTS):
                    raise
                until = time.time() + self._services.tuning.first_pause
                self._activity = Activity("retrying", until)
            self._progressed()
            # A clock that is set back must not make a day of it.
            if self._halt.wait(min(max(0.0, until - time.time()), LONGEST)):
                raise Interrupted
            self._activity = Activity()

    def _fetch_and_publish(self, plan: Plan) -> Path:
        cache, repo_id = self._services.cache, self._ref.repo_id
        cache.check_collision(repo_id, [file.filename for file in plan.selection.files])
        cache.check_writable(repo_id)
        pending: Sequence[HubFile] = plan.selection.files
        while pending := [file for file in pending if not self._is_cached(file)]:
            rooms = [(cache.partial_path(repo_id, file.oid), file.size) for file in pending]
            self._services.space.reserve(self._job_id, rooms)
            pending = self._fetch(pending, plan.commit)
        if self._halt.is_set():
            raise Interrupted
        return cache.publish(
            self._ref, plan.commit, plan.selection, plan.manifest, listing=plan.listing
        )

    def _is_cached(self, file: HubFile) -> bool:
        repo_id = self._ref.repo_id
        try:
            found = self._services.cache.has(
                repo_id, file, halt=self._halt, on_bytes=self._found_in_the_cache
            )
        finally:
            self._activity = Activity()
        if found is None:
            return False
        remove_partial(self._services.cache.partial_path(repo_id, file.oid))
        self._settle(file)
        return True

    def _found_in_the_cache(self, _count: int) -> None:
        """Somebody else's copy is being hashed."""
        self._activity = Activity("verifying")

    def _fetch(self, files: Sequence[HubFile], commit: str) -> list[HubFile]:
        """Fetch the files; those that somebody else is fetching at this moment are returned."""
        stop = threading.Event()
        targets = self._open(files, commit, stop)
        if not targets:
            if self._halt.wait(_LOOK_AGAIN):
                raise Interrupted
            return list(files)
        limits = self._services.limits
        transfer = Transfer(
            targets,
            connections=limits.connections,
            patience=Patience(limits.stall_timeout, limits.retry_limit),
            bandwidth=self._services.bandwidth,
            halt=self._halt,
            stop=stop,
            verified=self._publish_file,
            progressed=self._progressed,
            tuning=self._services.tuning,
        )
        self._targets |= {target.file.filename: target for target in targets}
        self._transfer = transfer
        try:
            transfer.run()
        finally:
            for target in targets:
                self._put_away(target)
            self._transfer = None
        fetched = {target.file for target in targets}
        return [file for file in files if file not in fetched]

    def _open(self, files: Sequence[HubFile], commit: str, stop: threading.Event) -> list[Target]:
        """Take the partials, with room for all bytes, before the first of them comes."""
        targets: list[Target] = []
        try:
            for file in files:
                path = self._services.cache.partial_path(self._ref.repo_id, file.oid)
                try:
                    part = PartFile(path, file.size, file.oid)
                except PartBusy:
                    continue
                targets.append(Target(file, part, self._source(file, commit, stop)))
        except BaseException:
            for target in targets:
                self._put_away(target)
            raise
        return targets

    def _source(self, file: HubFile, commit: str, stop: threading.Event) -> Source:
        hub, repo_id = self._services.hub, self._ref.repo_id
        return Source(
            file.filename,
            lambda halt: hub.resolve(repo_id, commit, file.filename, halt, expected=file),
            stop,
        )

    def _publish_file(self, target: Target) -> None:
        if self._halt.is_set():
            raise Interrupted
        plan, part = self._plan, target.part
        if os.name == "nt":
            part.close()  # a file that is open cannot be renamed there
        commit = plan.commit if plan is not None else ""
        etag = part.etag or f'"{target.file.oid}"'
        self._services.cache.publish_file(self._ref.repo_id, commit, target.file, part.path, etag)
        part.close()
        remove_partial(part.path)
        self._services.space.settled(self._job_id, part.path)
        self._settle(target.file)

    def _settle(self, file: HubFile) -> None:
        plan = self._plan
        if plan is not None and file.filename not in plan.done:
            self._remember(plan.with_done(file.filename))

    def _put_away(self, target: Target) -> None:
        """Let a partial go, with a record of all that came; one without a byte is removed."""
        part = target.part
        if target.verified:
            return
        try:
            if not self.discard:
                part.record()
        except LlamactlError as error:
            log.warning("%s: %s", part.path.name, error)
        finally:
            part.close()
        if self.discard or not part.durable:
            remove_partial(part.path)


def resting_progress(repo_id: str, plan: Plan | None, cache: ModelCache) -> Progress:
    """How far a job is that does not run, by what lies on the disk."""
    if plan is None:
        return Progress()
    files = []
    for file in plan.selection.files:
        if file.filename in plan.done:
            files.append(FileProgress(file.filename, file.size, file.size, "completed"))
        else:
            path = cache.partial_path(repo_id, file.oid)
            there = recorded_bytes(path, file.size, file.oid)
            files.append(FileProgress(file.filename, file.size, there, "pending"))
    return Progress(tuple(files), plan.size)
