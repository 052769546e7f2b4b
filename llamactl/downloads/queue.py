"""The queue of jobs: durable, in order, so many at a time, and what can be asked of each job.

A job's own thread (``download JOB_ID``) writes its state while it runs; everybody else asks it to
stop and waits. Only if it does not answer in time (a disk that hangs) is the state written over
its head; it then ends without a say.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from llamactl.config import Config
from llamactl.database import Database
from llamactl.downloads.attempt import Attempt, Services, resting_progress
from llamactl.downloads.bandwidth import Bandwidth
from llamactl.downloads.leftovers import is_about, remove_leftovers
from llamactl.downloads.plan import Plan
from llamactl.downloads.progress import Progress
from llamactl.downloads.run import Run, end_of
from llamactl.downloads.snapshots import JobSnapshot
from llamactl.downloads.space import Space
from llamactl.downloads.states import ACTIVE, FINISHED, Job, JobEvent
from llamactl.downloads.store import JobStore
from llamactl.downloads.tuning import TUNING, Tuning
from llamactl.errors import (
    Interrupted,
    InvalidState,
    JobNotFound,
    QueueFull,
    ShuttingDown,
)
from llamactl.hub.client import HubClient
from llamactl.models.cache import ModelCache
from llamactl.models.reference import ModelRef

log = logging.getLogger(__name__)

MOST_QUEUED = 1000
_KEPT_DAYS = 30
#: A run that was told to stop has this long to say how it ended.
_ANSWER_TIME = 0.7
#: After these a retry asks the hub again which files there are.
_ASK_AGAIN = frozenset({"bad_metadata", "checksum_mismatch", "incomplete_set", "not_found"})


@dataclass(eq=False)
class _Entry:
    job: Job
    progress: Progress
    run: Run | None = None
    ask_again: bool = False


class DownloadQueue:
    """Every method may be called from any thread."""

    def __init__(
        self,
        config: Config,
        database: Database,
        hub: HubClient,
        cache: ModelCache,
        *,
        tuning: Tuning = TUNING,
    ) -> None:
        limits = config.downloads
        self._store = JobStore(database)
        self._cache = cache
        self._max_concurrent = limits.max_concurrent
        self._bandwidth = Bandwidth(limits.bandwidth_limit)
        space = Space(cache.free_space, limits.min_free_space)
        self._services = Services(hub, cache, limits, self._bandwidth, space, tuning)
        self._entries: dict[str, _Entry] = {}
        self._positions = itertools.count(1)
        self._changed = threading.Condition()
        self._version = 0
        self._started = False
        self._stopping = False
        self._threads: set[threading.Thread] = set()

    def start(self) -> None:
        """Load the jobs; those that were queued or running go on by themselves."""
        with self._changed:
            forgotten = time.time() - _KEPT_DAYS * 86400
            for job in self._store.load():
                if job.status in FINISHED and (job.completed_at or 0.0) < forgotten:
                    self._store.delete(job.id)
                    continue
                if job.status == "downloading":
                    job = job.after("requeue")
                    self._store.save(job)
                self._entries[job.id] = _Entry(job, self._resting(job))
            last = max((entry.job.position for entry in self._entries.values()), default=0)
            self._positions = itertools.count(last + 1)
            self._started = True
            self._fill()

    def request_stop(self) -> None:
        """Let every running job put its bytes in order and go back to the queue."""
        with self._changed:
            self._stopping = True
            for entry in self._entries.values():
                if entry.run is not None:
                    entry.run.stop("requeue")
            self._changed.notify_all()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until no job runs any more; False when ``timeout`` seconds did not suffice."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            threads = list(self._threads)
        for thread in threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def submit(self, ref: ModelRef) -> JobSnapshot:
        """Queue a model, durably; an active job for the same reference is that job.

        A paused one goes on. Raises ``QueueFull`` or ``ShuttingDown``.
        """
        with self._changed:
            self._check_accepting()
            for entry in self._active():
                same = ModelRef(entry.job.repo_id, entry.job.tag).key == ref.key
                if entry.job.kind == "download" and same:
                    if entry.job.status == "paused":
                        self._requeue(entry, "resume")
                    return self._snapshot(entry)
            waiting = sum(1 for entry in self._active() if entry.job.status == "queued")
            if waiting >= MOST_QUEUED:
                raise QueueFull(f"{waiting} downloads are waiting already")
            job = Job(
                secrets.token_hex(8),
                "download",
                ref.repo_id,
                ref.tag,
                "queued",
                time.time(),
                next(self._positions),
            )
            self._store.save(job)
            entry = self._entries[job.id] = _Entry(job, Progress())
            self._fill()
            self._notify()
            return self._snapshot(entry)

    def jobs(self) -> list[JobSnapshot]:
        """Every job, newest first."""
        with self._changed:
            entries = sorted(
                self._entries.values(),
                key=lambda entry: (entry.job.created_at, entry.job.position),
                reverse=True,
            )
            return [self._snapshot(entry) for entry in entries]

    def job(self, job_id: str) -> JobSnapshot:
        """One job; raises ``JobNotFound``."""
        with self._changed:
            return self._snapshot(self._entry(job_id))

    def pause(self, job_id: str) -> JobSnapshot:
        """Stop a job and keep its bytes; raises ``InvalidState`` when it has ended."""
        with self._changed:
            entry = self._entry(job_id)
            if entry.job.status == "downloading":
                self._stop_run(entry, "pause")
            if entry.job.status != "paused":
                self._apply(entry, "pause")
            return self._snapshot(entry)

    def resume(self, job_id: str) -> JobSnapshot:
        """Put a paused or failed job at the end of the queue."""
        with self._changed:
            self._check_accepting()
            entry = self._entry(job_id)
            self._requeue(entry, "resume")
            return self._snapshot(entry)

    def retry(self, job_id: str) -> JobSnapshot:
        """Put a failed or paused job at the end of the queue."""
        with self._changed:
            self._check_accepting()
            entry = self._entry(job_id)
            self._requeue(entry, "retry")
            return self._snapshot(entry)

    def delete(self, job_id: str) -> None:
        """Cancel an active job, take a finished one off the list; its partial data goes."""
        with self._changed:
            entry = self._entry(job_id)
            if entry.job.status == "downloading":
                self._stop_run(entry, "cancel")
                return
            if entry.job.status in FINISHED:
                self._store.delete(job_id)
                del self._entries[job_id]
                self._notify()
            else:
                self._apply(entry, "cancel", completed_at=time.time())
            self._remove_leftovers(entry.job)

    def uses(self, repo_id: str, tag: str | None = None) -> bool:
        """Whether an active job fetches this model, or any of the repository."""
        with self._changed:
            return any(is_about(entry.job, repo_id, tag) for entry in self._active())

    def wait(self, job_id: str, timeout: float | None = None) -> JobSnapshot:
        """The job once it has ended or is paused, or after ``timeout`` seconds as it is then."""
        with self._changed:
            entry = self._entry(job_id)
            self._changed.wait_for(
                lambda: entry.job.status in FINISHED or entry.job.status == "paused", timeout
            )
            return self._snapshot(entry)

    def version(self) -> int:
        """A number that grows whenever anything about any job changed."""
        return self._version

    @property
    def max_concurrent(self) -> int:
        """How many jobs run at a time."""
        return self._max_concurrent

    @property
    def bandwidth_limit(self) -> int | None:
        """Bytes per second for all jobs together, or None."""
        return self._bandwidth.limit

    def set_max_concurrent(self, count: int) -> None:
        """Takes effect at once; jobs that run already are not stopped."""
        with self._changed:
            self._max_concurrent = count
            self._fill()
            self._notify()

    def set_bandwidth_limit(self, limit: int | None) -> None:
        """Takes effect at once."""
        self._bandwidth.set_limit(limit)
        self._progressed()

    def _check_accepting(self) -> None:
        if self._stopping:
            raise ShuttingDown("llamactl is stopping", hint="Try again when it is back.")

    def _entry(self, job_id: str) -> _Entry:
        entry = self._entries.get(job_id)
        if entry is None:
            raise JobNotFound(f"There is no job {job_id[:40]!r}")
        return entry

    def _active(self) -> Iterator[_Entry]:
        return (entry for entry in self._entries.values() if entry.job.status in ACTIVE)

    def _snapshot(self, entry: _Entry) -> JobSnapshot:
        progress = entry.progress if entry.run is None else entry.run.attempt.progress()
        return JobSnapshot(entry.job, progress)

    def _resting(self, job: Job) -> Progress:
        plan = None if job.plan is None else Plan.from_json(job.plan)
        return resting_progress(job.repo_id, plan, self._cache)

    def _notify(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _progressed(self) -> None:
        with self._changed:
            self._notify()

    def _apply(self, entry: _Entry, event: JobEvent, **changes: Any) -> None:
        """Change a job's state, on the disk first."""
        job = entry.job.after(event, **changes)
        self._store.save(job)
        entry.job = job
        self._notify()

    def _requeue(self, entry: _Entry, event: JobEvent) -> None:
        entry.ask_again = entry.job.error_code in _ASK_AGAIN
        self._apply(
            entry,
            event,
            position=next(self._positions),
            error=None,
            error_code=None,
            completed_at=None,
        )
        self._fill()

    def _fill(self) -> None:
        """Start what may run, first come first served."""
        running = sum(1 for entry in self._entries.values() if entry.run is not None)
        queued = sorted(
            (entry for entry in self._entries.values() if entry.job.status == "queued"),
            key=lambda entry: entry.job.position,
        )
        if not self._started or self._stopping:
            return
        for entry in queued[: max(0, self._max_concurrent - running)]:
            self._claim(entry)

    def _claim(self, entry: _Entry) -> None:
        self._apply(entry, "claim")
        job, halt = entry.job, threading.Event()
        attempt = Attempt(
            job.id,
            ModelRef(job.repo_id, job.tag),
            None if job.plan is None else Plan.from_json(job.plan),
            self._services,
            halt,
            ask_again=entry.ask_again,
            keep=lambda plan: self._keep_plan(entry, attempt, plan),
            progressed=self._progressed,
        )
        run = entry.run = Run(
            job.id,
            attempt,
            halt,
            lambda run, event, changes: self._ended(entry, run, event, changes),
        )
        self._threads.add(run.thread)
        run.start()

    def _keep_plan(self, entry: _Entry, attempt: Attempt, plan: Plan) -> None:
        with self._changed:
            if entry.run is None or entry.run.attempt is not attempt:
                raise Interrupted
            before = entry.job
            job = replace(before, plan=plan.to_json(), commit_hash=plan.commit)
            if job.tag.casefold() == plan.selection.tag.casefold():
                job = replace(job, tag=plan.selection.tag)
            self._store.save(job)
            entry.job = job
            if before.commit_hash not in (None, plan.commit):
                self._remove_leftovers(before)

    def _ended(self, entry: _Entry, run: Run, event: JobEvent, changes: dict[str, Any]) -> None:
        """A run's last word, in its own thread."""
        with self._changed:
            self._threads.discard(run.thread)
            if entry.run is run:
                self._end_run(entry, run, event, changes)
            elif run.intent == "cancel":
                self._remove_leftovers(entry.job)

    def _end_run(self, entry: _Entry, run: Run, event: JobEvent, changes: dict[str, Any]) -> None:
        entry.progress = replace(
            run.attempt.progress(), bytes_per_second=0.0, detail=None, retry_at=None
        )
        entry.run = None
        try:
            self._apply(entry, event, **changes)
        except (sqlite3.Error, RuntimeError) as error:
            # A full disk, or a database that was closed: the next start finds the job running
            # and goes on with it.
            log.error("%s: its end cannot be stored: %s", entry.job.id, error)
            entry.job = entry.job.after(event, **changes)
            self._notify()
        if event == "cancel":
            self._remove_leftovers(entry.job)
        self._fill()

    def _stop_run(self, entry: _Entry, event: JobEvent) -> None:
        """Have a running job end by ``event``; without an answer in time it is said for it."""
        run = entry.run
        if run is None:
            raise InvalidState(f"The job is {entry.job.status}")
        run.stop(event)
        if self._changed.wait_for(lambda: entry.run is not run, _ANSWER_TIME):
            return
        log.warning("%s does not stop in time; left to end by itself", entry.job.id)
        self._end_run(entry, run, event, end_of(event))

    def _remove_leftovers(self, job: Job) -> None:
        remove_leftovers(job, [entry.job for entry in self._active()], self._cache)
