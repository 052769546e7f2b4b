"""What a job is, and how it may change: a frozen record and the table of its transitions.

| From           | event          | to                | what it means                       |
|----------------|----------------|-------------------|-------------------------------------|
| (none)         | submit         | queued            | an active reference: that job       |
| queued         | claim          | downloading       |                                     |
| queued         | pause, cancel  | paused, cancelled |                                     |
| downloading    | requeue        | queued            | the server stops; partials stay     |
| downloading    | complete       | completed         | published                           |
| downloading    | fail           | failed            | partials stay, the reason is named  |
| downloading    | pause, cancel  | paused, cancelled | partials stay, are removed          |
| paused, failed | resume, retry  | queued            |                                     |
| paused         | cancel         | cancelled         | partials are removed                |

A job found ``downloading`` when the server starts was cut off; it is requeued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from llamactl.errors import InvalidState

JobStatus = Literal["queued", "downloading", "paused", "completed", "failed", "cancelled"]
JobEvent = Literal["claim", "requeue", "complete", "fail", "pause", "cancel", "resume", "retry"]
JobKind = Literal["download", "verify"]

#: A job in one of these may still move bytes: its reference is taken, its files are in use.
ACTIVE: frozenset[JobStatus] = frozenset({"queued", "downloading", "paused"})
#: A job in one of these never changes by itself again.
FINISHED: frozenset[JobStatus] = frozenset({"completed", "failed", "cancelled"})

TRANSITIONS: Mapping[tuple[JobStatus, JobEvent], JobStatus] = {
    ("queued", "claim"): "downloading",
    ("queued", "pause"): "paused",
    ("queued", "cancel"): "cancelled",
    ("downloading", "requeue"): "queued",
    ("downloading", "complete"): "completed",
    ("downloading", "fail"): "failed",
    ("downloading", "pause"): "paused",
    ("downloading", "cancel"): "cancelled",
    ("paused", "resume"): "queued",
    ("paused", "retry"): "queued",
    ("paused", "cancel"): "cancelled",
    ("failed", "resume"): "queued",
    ("failed", "retry"): "queued",
}


@dataclass(frozen=True)
class Job:
    """One request for a model's bytes, as it is stored.

    ``tag`` is spelled as it is shown; empty where a ``verify`` is about all of a repository.
    ``position`` orders the queue, the lowest first. ``plan`` is the JSON of what was chosen once
    the hub was asked, None before that; of a ``verify`` it is what was ordered.
    Times are unix seconds.
    """

    id: str
    kind: JobKind
    repo_id: str
    tag: str
    status: JobStatus
    created_at: float
    position: int
    error_code: str | None = None
    error: str | None = None
    completed_at: float | None = None
    model_path: str | None = None
    commit_hash: str | None = None
    plan: str | None = None

    def after(self, event: JobEvent, **changes: Any) -> Job:
        """The job as it is after ``event``; raises ``InvalidState`` where that cannot happen."""
        status = TRANSITIONS.get((self.status, event))
        if status is None:
            raise InvalidState(
                f"A job that is {self.status} cannot {event}",
                hint=_what_it_can(self.status),
            )
        return replace(self, status=status, **changes)


def _what_it_can(status: JobStatus) -> str:
    asked_for = ("pause", "resume", "cancel")
    possible = [event for event in asked_for if (status, event) in TRANSITIONS]
    return f"It can {' or '.join(possible)}." if possible else "Submit the model again."
