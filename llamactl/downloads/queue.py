"""The queue of jobs: durable, in order, so many at a time, and what can be asked of each job.

A job's own thread (``download JOB_ID``) says how it ended; everybody else asks it to stop and
waits. Only if it does not answer in time (a disk that hangs) is the state written over its head;
it then ends without a say.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from llamactl.config import Config
from llamactl.database import Database
from llamactl.downloads.attempt import Attempt, Services, resting_progress
from llamactl.downloads.bandwidth import Bandwidth
from llamactl.downloads.checkup import Checkup, Order
from llamactl.downloads.leftovers import is_about, over, plan_of, remove_leftovers
from llamactl.downloads.limits import Limits, LimitStore
from llamactl.downloads.plan import Plan
from llamactl.downloads.progress import Progress
from llamactl.downloads.run import Run, end_of
from llamactl.downloads.snapshots import JobSnapshot
from llamactl.downloads.space import Space
from llamactl.downloads.states import FINISHED, Job, JobEvent
from llamactl.downloads.store import JobStore
from llamactl.downloads.table import Entry, JobTable
from llamactl.downloads.tuning import TUNING, Tuning
from llamactl.errors import (
    Interrupted,
    InvalidState,
    ModelInUse,
    ModelNotFound,
    ShuttingDown,
)
from llamactl.hub.client import HubClient
from llamactl.models.cache import ModelCache
from llamactl.models.reference import ModelRef

log = logging.getLogger(__name__)

#: A run that was told to stop has this long to say how it ended.
_ANSWER_TIME = 0.7
#: After these a retry asks the hub again which files there are.
_ASK_AGAIN = frozenset({"bad_metadata", "checksum_mismatch", "incomplete_set", "not_found"})


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
        #: What the configuration says; it holds unless other limits were set.
        self.configured = Limits(limits.max_concurrent, limits.bandwidth_limit)
        self._limit_store = LimitStore(database)
        self._set: Limits | None = None
        self._table = JobTable(JobStore(database))
        self._changed = self._table.changed
        self._cache = cache
        self._bandwidth = Bandwidth(limits.bandwidth_limit)
        space = Space(cache.free_space, limits.min_free_space)
        self._services = Services(hub, cache, limits, self._bandwidth, space, tuning)
        self._started = False
        self._stopping = False
        self._threads: set[threading.Thread] = set()
        self._repos_in_removal: list[str] = []

    def start(self, *, transfers: bool = True) -> None:
        """Load the jobs; those that were queued or running go on by themselves.

        Without ``transfers`` no job runs.
        """
        with self._changed:
            self._set = self._limit_store.load()
            self._bandwidth.set_limit(self.limits.bandwidth_limit)
            self._table.load(self._look)
            self._started = transfers
            self._fill()

    def request_stop(self) -> None:
        """Let every running job put its bytes in order and go back to the queue."""
        with self._changed:
            self._stopping = True
            for entry in self._table.running():
                if entry.run is not None:
                    entry.run.stop("requeue")
            self._table.touch()

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
            for entry in self._table.active():
                job = entry.job
                if job.kind == "download" and ModelRef(job.repo_id, job.tag).key == ref.key:
                    if job.status == "paused":
                        self._requeue(entry, "resume")
                    return entry.snapshot()
            entry = self._table.add("download", ref.repo_id, ref.tag)
            self._fill()
            return entry.snapshot()

    def verify(self, repo_id: str, tag: str | None = None, *, repair: bool) -> JobSnapshot:
        """Queue a check of cached models against their digests; with ``repair`` they are mended.

        An active check of the same is that job, and a paused one goes on. Raises
        ``ModelNotFound`` when nothing is cached.
        """
        order = Order(repo_id, tag, repair)
        if not any(order.covers(model) for model in self._cache.list()):
            raise ModelNotFound(f"{repo_id}{f':{tag}' if tag else ''} is not in the cache")
        with self._changed:
            self._check_accepting()
            for entry in self._table.active():
                job = entry.job
                if job.kind == "verify" and Order.from_json(job.repo_id, job.plan or "") == order:
                    if job.status == "paused":
                        self._requeue(entry, "resume")
                    return entry.snapshot()
            entry = self._table.add("verify", repo_id, tag or "", plan=order.to_json())
            self._fill()
            return entry.snapshot()

    def jobs(
        self, choose: Callable[[Sequence[Job]], Iterable[Job]] | None = None
    ) -> list[JobSnapshot]:
        """Every job, newest first, or those of them that ``choose`` picks."""
        with self._changed:
            entries = {entry.job.id: entry for entry in self._table.newest_first()}
            if choose is None:
                return [entry.snapshot() for entry in entries.values()]
            chosen = choose([entry.job for entry in entries.values()])
            return [entries[job.id].snapshot() for job in chosen]

    def job(self, job_id: str) -> JobSnapshot:
        """One job; raises ``JobNotFound``."""
        with self._changed:
            return self._table.get(job_id).snapshot()

    def pause(self, job_id: str) -> JobSnapshot:
        """Stop a job and keep its bytes; raises ``InvalidState`` when it has ended."""
        with self._changed:
            entry = self._table.get(job_id)
            if entry.job.status == "downloading":
                self._stop_run(entry, "pause")
            if entry.job.status != "paused":
                self._table.apply(entry, "pause")
            return entry.snapshot()

    def resume(self, job_id: str) -> JobSnapshot:
        """Put a paused or failed job at the end of the queue."""
        return self._let_go_on(job_id, "resume")

    def retry(self, job_id: str) -> JobSnapshot:
        """Put a failed or paused job at the end of the queue."""
        return self._let_go_on(job_id, "retry")

    def delete(self, job_id: str) -> None:
        """Cancel an active job, take a finished one off the list; its partial data goes."""
        with self._changed:
            entry = self._table.get(job_id)
            if entry.job.status == "downloading":
                self._stop_run(entry, "cancel")
                return
            if entry.job.status in FINISHED:
                self._table.remove(entry)
            else:
                self._table.apply(entry, "cancel", **end_of("cancel"))
            self._remove_leftovers(entry.job)

    def clear(self) -> tuple[int, int]:
        """Take what has ended off the list; how many jobs went, and how many such stay.

        A failed download that can go on from bytes on the disk stays, unless a later one brought
        the model.
        """
        with self._changed:
            jobs = [entry.job for entry in self._table.newest_first()]
            gone, kept = over(jobs, lambda job: self._look(job).bytes_downloaded > 0)
            self._table.remove(*(self._table.get(job.id) for job in gone))
            going_on = [entry.job for entry in self._table.newest_first()]
            for job in gone:
                if job.status == "failed":
                    remove_leftovers(job, going_on, self._cache)
            return len(gone), kept

    def uses(self, repo_id: str, tag: str | None = None) -> bool:
        """Whether an active job is about this model, or any of the repository."""
        with self._changed:
            return any(is_about(entry.job, repo_id, tag) for entry in self._table.active())

    @contextlib.contextmanager
    def removing(self, repo_id: str, tag: str | None) -> Iterator[None]:
        """Inside, cached models go: no job about the repository begins before it is over.

        Raises ``ModelInUse`` while an active job is about what shall go.
        """
        with self._changed:
            if self.uses(repo_id, tag):
                raise ModelInUse(
                    f"A download of {repo_id} is using it", hint="Cancel the download first."
                )
            self._repos_in_removal.append(repo_id)
        try:
            yield
        finally:
            with self._changed:
                self._repos_in_removal.remove(repo_id)
                self._fill()

    def wait(self, job_id: str, timeout: float | None = None) -> JobSnapshot:
        """The job once it has ended or is paused, or after ``timeout`` seconds as it is then."""
        with self._changed:
            entry = self._table.get(job_id)
            self._changed.wait_for(
                lambda: entry.job.status in FINISHED or entry.job.status == "paused", timeout
            )
            return entry.snapshot()

    def version(self) -> int:
        """A number that grows whenever anything about any job changed."""
        return self._table.version

    @property
    def limits(self) -> Limits:
        """What holds now."""
        return self._set or self.configured

    @property
    def limits_are_set(self) -> bool:
        """Whether somebody set them, rather than the configuration."""
        return self._set is not None

    def set_limits(self, limits: Limits | None) -> None:
        """At once and over restarts, until they are set again; None: as the configuration says.

        Jobs that run already are not stopped.
        """
        with self._changed:
            self._limit_store.save(limits)
            self._set = limits
            self._bandwidth.set_limit(self.limits.bandwidth_limit)
            self._fill()
            self._table.touch()

    def _look(self, job: Job) -> Progress:
        """How far a job is that does not run, by what lies on the disk."""
        return resting_progress(job.repo_id, plan_of(job), self._cache)

    def _check_accepting(self) -> None:
        if self._stopping:
            raise ShuttingDown("llamactl is stopping", hint="Try again when it is back.")

    def _progressed(self) -> None:
        with self._changed:
            self._table.touch()

    def _let_go_on(self, job_id: str, event: JobEvent) -> JobSnapshot:
        with self._changed:
            self._check_accepting()
            entry = self._table.get(job_id)
            self._requeue(entry, event)
            return entry.snapshot()

    def _requeue(self, entry: Entry, event: JobEvent) -> None:
        ask_again = entry.job.error_code in _ASK_AGAIN
        self._table.requeue(entry, event)
        entry.ask_again = ask_again
        self._fill()

    def _fill(self) -> None:
        """Start what may run."""
        if self._started and not self._stopping:
            free = self.limits.max_concurrent - len(self._table.running())
            waiting = self._table.queued()
            ready = [each for each in waiting if each.job.repo_id not in self._repos_in_removal]
            for entry in ready[: max(0, free)]:
                self._claim(entry)

    def _claim(self, entry: Entry) -> None:
        self._table.apply(entry, "claim")
        job, halt = entry.job, threading.Event()
        work = self._checkup(job, halt) if job.kind == "verify" else self._attempt(entry, halt)
        run = entry.run = Run(
            job.id, work, halt, lambda run, event, changes: self._ended(entry, run, event, changes)
        )
        self._threads.add(run.thread)
        run.start()

    def _attempt(self, entry: Entry, halt: threading.Event) -> Attempt:
        job = entry.job
        attempt = Attempt(
            job.id,
            ModelRef(job.repo_id, job.tag),
            plan_of(job),
            self._services,
            halt,
            ask_again=entry.ask_again,
            keep=lambda plan: self._keep_plan(entry, attempt, plan),
            progressed=self._progressed,
        )
        return attempt

    def _checkup(self, job: Job, halt: threading.Event) -> Checkup:
        order = Order.from_json(job.repo_id, job.plan or "")
        return Checkup(job.id, order, self._services, halt, self._progressed)

    def _keep_plan(self, entry: Entry, attempt: Attempt, plan: Plan) -> None:
        with self._changed:
            if entry.run is None or entry.run.work is not attempt:
                raise Interrupted
            before = entry.job
            job = replace(before, plan=plan.to_json(), commit_hash=plan.commit)
            if job.tag.casefold() == plan.selection.tag.casefold():
                job = replace(job, tag=plan.selection.tag)
            self._table.replace(entry, job)
            if before.commit_hash not in (None, plan.commit):
                self._remove_leftovers(before)

    def _ended(self, entry: Entry, run: Run, event: JobEvent, changes: dict[str, Any]) -> None:
        """A run's last word, in its own thread."""
        with self._changed:
            self._threads.discard(run.thread)
            if entry.run is run:
                self._end_run(entry, run, event, changes)
            elif run.intent == "cancel":
                self._remove_leftovers(entry.job)

    def _end_run(self, entry: Entry, run: Run, event: JobEvent, changes: dict[str, Any]) -> None:
        entry.rest(replace(run.work.progress(), bytes_per_second=0.0, detail=None, retry_at=None))
        if event == "complete" and (plan := plan_of(entry.job)) is not None:
            changes = {**changes, "plan": plan.chosen_only().to_json()}
        self._table.end(entry, event, **changes)
        if event == "cancel":
            self._remove_leftovers(entry.job)
        self._fill()

    def _stop_run(self, entry: Entry, event: JobEvent) -> None:
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
        remove_leftovers(job, [entry.job for entry in self._table.active()], self._cache)
