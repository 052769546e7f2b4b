"""Jobs in the database."""

from __future__ import annotations

from dataclasses import replace

from llamactl.database import Database
from llamactl.downloads.states import Job
from llamactl.downloads.store import JobStore

JOB = Job("a" * 16, "download", "org/name", "Q4_K_M", "queued", 1.5, 7, plan='{"commit": "x"}')


def test_a_stored_job_comes_back_as_it_was(database: Database) -> None:
    store = JobStore(database)
    store.save(JOB)
    assert store.load() == [JOB]


def test_saving_again_replaces(database: Database) -> None:
    store = JobStore(database)
    store.save(JOB)
    failed = JOB.after("claim").after("fail", error="x", error_code="network", completed_at=3.0)
    store.save(failed)
    assert store.load() == [failed]


def test_jobs_come_in_the_order_of_their_positions(database: Database) -> None:
    store = JobStore(database)
    second, first = JOB, replace(JOB, id="b" * 16, position=3)
    store.save(second, first)
    assert store.load() == [first, second]


def test_a_deleted_job_is_gone(database: Database) -> None:
    store = JobStore(database)
    store.save(JOB)
    store.delete(JOB.id)
    assert store.load() == []
