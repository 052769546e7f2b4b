"""The audit: rows are added, bounded, and a stranger cannot fill it."""

from __future__ import annotations

import sqlite3

import pytest

from llamactl.access.audit import ADDRESS_SECONDS, REFUSAL_SECONDS, Audit
from llamactl.database import Database
from tests.access.conftest import Clock


def do(audit: Audit, number: int) -> None:
    audit.done("management key abcdef", f"POST /thing/{number}", "name=x", 201, "192.0.2.1")


def test_a_row_says_who_did_what_from_where_when_and_how_it_ended(
    database: Database, clock: Clock
) -> None:
    audit = Audit(database, clock)
    do(audit, 1)
    (entry,) = audit.read(10).entries
    assert (entry.who, entry.what, entry.about) == (
        "management key abcdef",
        "POST /thing/1",
        "name=x",
    )
    assert (entry.status, entry.source, entry.at) == (201, "192.0.2.1", clock())
    assert not entry.refused


def test_rows_outlive_the_process(database: Database) -> None:
    do(Audit(database), 1)
    database.close()
    database.open()
    assert [entry.what for entry in Audit(database).read(10).entries] == ["POST /thing/1"]


def test_the_newest_are_kept_and_the_rest_is_counted(database: Database) -> None:
    audit = Audit(database, kept=5)
    for number in range(12):
        do(audit, number)
    page = audit.read(100)
    assert [entry.what for entry in page.entries] == [f"POST /thing/{n}" for n in range(11, 6, -1)]
    assert (page.kept, page.forgotten) == (5, 7)


def test_pages_follow_each_other_without_a_gap(database: Database) -> None:
    audit = Audit(database)
    for number in range(7):
        do(audit, number)
    seen: list[int] = []
    before = None
    while entries := audit.read(3, before).entries:
        seen += [entry.id for entry in entries]
        before = entries[-1].id
    assert seen == [7, 6, 5, 4, 3, 2, 1]


def test_refusals_cannot_push_out_what_was_done(database: Database, clock: Clock) -> None:
    audit = Audit(database, clock, kept=5, kept_refusals=3)
    for number in range(4):
        do(audit, number)
    for number in range(50):
        clock.now += ADDRESS_SECONDS
        audit.refused("unknown", "GET /v1/models", 401, f"192.0.2.{number}")
    page = audit.read(100)
    assert sum(entry.refused for entry in page.entries) == 3
    assert sum(not entry.refused for entry in page.entries) == 4
    assert page.forgotten == 47


def test_a_flood_of_refusals_is_counted_and_not_written(database: Database, clock: Clock) -> None:
    audit = Audit(database, clock)
    for number in range(5_000):
        audit.refused("unknown", "GET /v1/models", 401, f"10.0.{number >> 8}.{number & 255}")
    assert len(audit.read(100).entries) == 1
    clock.now += REFUSAL_SECONDS
    audit.refused("unknown", "GET /v1/models", 401, "192.0.2.9")
    newest = audit.read(100).entries[0]
    assert (newest.source, newest.unwritten) == ("192.0.2.9", 4_999)


def test_one_address_is_written_down_once_a_minute(database: Database, clock: Clock) -> None:
    audit = Audit(database, clock)
    for _ in range(int(ADDRESS_SECONDS) + 1):
        audit.refused("unknown", "POST /login", 401, "192.0.2.1")
        clock.now += 1
    assert len(audit.read(100).entries) == 2


def test_a_clock_that_is_set_back_does_not_end_the_audit(database: Database, clock: Clock) -> None:
    audit = Audit(database, clock)
    audit.refused("unknown", "POST /login", 401, "192.0.2.1")
    clock.now -= 86_400
    audit.refused("unknown", "POST /login", 401, "192.0.2.2")
    assert len(audit.read(100).entries) == 2


def test_a_row_of_any_length_is_cut(database: Database) -> None:
    audit = Audit(database)
    audit.done("w" * 10_000, "x" * 10_000, "y" * 10_000, 200, "z" * 10_000)
    (entry,) = audit.read(1).entries
    assert all(len(text) == 500 for text in (entry.who, entry.what, entry.about, entry.source))


def test_a_database_that_is_closed_is_said_and_not_passed_over(database: Database) -> None:
    audit = Audit(database)
    database.close()
    with pytest.raises((sqlite3.Error, RuntimeError)):
        do(audit, 1)
