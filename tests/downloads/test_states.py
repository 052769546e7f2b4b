"""The table of a job's states, cell by cell."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from llamactl.downloads.states import ACTIVE, FINISHED, TRANSITIONS, Job, JobEvent, JobStatus
from llamactl.errors import InvalidState

STATUSES: tuple[JobStatus, ...] = get_args(JobStatus)
EVENTS: tuple[JobEvent, ...] = get_args(JobEvent)


def job(status: JobStatus) -> Job:
    return Job("0123456789abcdef", "download", "org/name", "latest", status, 1.0, 1)


@pytest.mark.parametrize(("status", "event"), [*itertools.product(STATUSES, EVENTS)])
def test_each_event_in_each_state_does_what_the_table_says(
    status: JobStatus, event: JobEvent
) -> None:
    before = job(status)
    target = TRANSITIONS.get((status, event))
    if target is None:
        with pytest.raises(InvalidState, match=status):
            before.after(event)
    else:
        assert before.after(event, error="x").status == target
    assert before.status == status, "a job is never changed in place"


def test_every_state_is_either_active_or_finished() -> None:
    assert set(STATUSES) == ACTIVE | FINISHED
    assert not ACTIVE & FINISHED


def test_nothing_leads_out_of_completed_and_cancelled() -> None:
    assert not [key for key in TRANSITIONS if key[0] in ("completed", "cancelled")]


def test_changes_come_with_the_event() -> None:
    ended = job("downloading").after("fail", error="no", error_code="network", completed_at=2.0)
    assert (ended.status, ended.error_code, ended.completed_at) == ("failed", "network", 2.0)
