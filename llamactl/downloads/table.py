"""All jobs of the queue in memory, each change on the disk first."""

from __future__ import annotations

import itertools
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from llamactl.downloads.progress import Progress
from llamactl.downloads.run import Run
from llamactl.downloads.snapshots import JobSnapshot
from llamactl.downloads.states import ACTIVE, FINISHED, Job, JobEvent, JobKind
from llamactl.downloads.store import JobStore
from llamactl.errors import JobNotFound, QueueFull

log = logging.getLogger(__name__)

MOST_QUEUED = 1000
_KEPT_DAYS = 30


@dataclass(eq=False)
class Entry:
    """A job, how far it is while it does not run, and its run while it does.

    ``look`` finds out how far a job of an earlier process is, once somebody asks: thousands that
    have ended may be listed, and a start waits for none of them. ``ask_again``: the plan led
    nowhere, so the next run asks the hub for another.
    """

    job: Job
    progress: Progress
    run: Run | None = None
    ask_again: bool = False
    look: Callable[[Job], Progress] | None = None

    def rest(self, progress: Progress) -> None:
        """It does not run any more, and came so far."""
        self.run, self.look, self.progress = None, None, progress

    def snapshot(self) -> JobSnapshot:
        if self.run is None and self.look is not None:
            self.rest(self.look(self.job))
        progress = self.progress if self.run is None else self.run.work.progress()
        return JobSnapshot(self.job, progress)


class JobTable:
    """Whoever calls a method holds ``changed``, which is notified of everything."""

    def __init__(self, store: JobStore) -> None:
        self.changed = threading.Condition()
        self.version = 0
        self._store = store
        self._entries: dict[str, Entry] = {}
        self._positions = itertools.count(1)

    def load(self, look: Callable[[Job], Progress]) -> None:
        """Read the jobs of earlier processes; one that ran goes back to the queue."""
        forgotten = time.time() - _KEPT_DAYS * 86400
        for job in self._store.load():
            if job.status in FINISHED and (job.completed_at or 0.0) < forgotten:
                self._store.delete(job.id)
                continue
            if job.status == "downloading":
                job = job.after("requeue")
                self._store.save(job)
            self._entries[job.id] = Entry(job, Progress(), look=look)
        last = max((entry.job.position for entry in self._entries.values()), default=0)
        self._positions = itertools.count(last + 1)

    def get(self, job_id: str) -> Entry:
        """One job; raises ``JobNotFound``."""
        entry = self._entries.get(job_id)
        if entry is None:
            raise JobNotFound(f"There is no job {job_id[:40]!r}")
        return entry

    def newest_first(self) -> list[Entry]:
        return sorted(
            self._entries.values(),
            key=lambda entry: (entry.job.created_at, entry.job.position),
            reverse=True,
        )

    def active(self) -> Iterator[Entry]:
        return (entry for entry in self._entries.values() if entry.job.status in ACTIVE)

    def running(self) -> list[Entry]:
        return [entry for entry in self._entries.values() if entry.run is not None]

    def queued(self) -> list[Entry]:
        """What waits, first come first served."""
        waiting = [entry for entry in self._entries.values() if entry.job.status == "queued"]
        return sorted(waiting, key=lambda entry: entry.job.position)

    def add(self, kind: JobKind, repo_id: str, tag: str, plan: str | None = None) -> Entry:
        """A new job at the end of the queue; raises ``QueueFull``."""
        waiting = len(self.queued())
        if waiting >= MOST_QUEUED:
            raise QueueFull(
                f"{waiting} jobs are waiting already",
                hint="Ask again when some of them are done, or cancel some.",
            )
        job = Job(
            id=secrets.token_hex(8),
            kind=kind,
            repo_id=repo_id,
            tag=tag,
            status="queued",
            created_at=time.time(),
            position=next(self._positions),
            plan=plan,
        )
        self._store.save(job)
        entry = self._entries[job.id] = Entry(job, Progress())
        self.touch()
        return entry

    def apply(self, entry: Entry, event: JobEvent, **changes: Any) -> None:
        """Change a job's state; raises ``InvalidState``."""
        self.replace(entry, entry.job.after(event, **changes))

    def requeue(self, entry: Entry, event: JobEvent) -> None:
        """Put a job that had stopped at the end of the queue, without what stopped it."""
        ended: dict[str, Any] = {"error": None, "error_code": None, "completed_at": None}
        self.apply(entry, event, position=next(self._positions), **ended)

    def end(self, entry: Entry, event: JobEvent, **changes: Any) -> None:
        """Change a job's state as its run ended, even if the disk does not take it."""
        try:
            self.apply(entry, event, **changes)
        except (sqlite3.Error, RuntimeError) as error:
            # A full disk, or a database that was closed: the next start finds the job running
            # and goes on with it.
            log.error("%s: its end cannot be stored: %s", entry.job.id, error)
            entry.job = entry.job.after(event, **changes)
            self.touch()

    def replace(self, entry: Entry, job: Job) -> None:
        self._store.save(job)
        entry.job = job
        self.touch()

    def remove(self, *entries: Entry) -> None:
        self._store.delete(*(entry.job.id for entry in entries))
        for entry in entries:
            del self._entries[entry.job.id]
        self.touch()

    def touch(self) -> None:
        """Tell everybody who waits that something is different."""
        self.version += 1
        self.changed.notify_all()
