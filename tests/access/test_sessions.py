"""Sessions: opened, found, run out, ended."""

from __future__ import annotations

import pytest

from llamactl.access.sessions import ABSOLUTE_SECONDS, IDLE_SECONDS, Sessions
from llamactl.config import Config
from llamactl.database import Database
from tests.access.conftest import Clock
from tests.conftest import ConfigFactory


def test_a_session_is_found_by_its_cookie_also_after_a_restart(
    sessions: Sessions, config: Config, database: Database, clock: Clock
) -> None:
    cookie, session = sessions.create()
    assert sessions.find(cookie.reveal()) == session
    assert Sessions(config, database, clock).find(cookie.reveal()) == session


@pytest.mark.parametrize("cookie", [None, "", "x", "é", "x" * 43, "x" * 100_000])
def test_another_cookie_finds_nothing(sessions: Sessions, cookie: str | None) -> None:
    sessions.create()
    assert sessions.find(cookie) is None


def test_a_logout_ends_this_session_and_no_other(sessions: Sessions) -> None:
    mine, _ = sessions.create()
    other, _ = sessions.create()
    sessions.end(mine.reveal())
    assert sessions.find(mine.reveal()) is None
    assert sessions.find(other.reveal()) is not None


def test_all_sessions_can_be_ended_at_once(sessions: Sessions, clock: Clock) -> None:
    sessions.create()
    clock.now += IDLE_SECONDS + 1
    cookies = [sessions.create()[0].reveal() for _ in range(2)]
    assert sessions.count() == 2, "one that has run out is none"
    assert sessions.end_all() >= 2
    assert sessions.count() == 0
    assert [sessions.find(cookie) for cookie in cookies] == [None, None]


def test_an_unused_session_runs_out(sessions: Sessions, clock: Clock) -> None:
    cookie, _ = sessions.create()
    clock.now += IDLE_SECONDS + 1
    assert sessions.find(cookie.reveal()) is None
    clock.now -= IDLE_SECONDS
    assert sessions.find(cookie.reveal()) is None


def test_a_used_session_lives_on_but_not_for_ever(sessions: Sessions, clock: Clock) -> None:
    cookie, _ = sessions.create()
    opened = clock.now
    while clock.now - opened <= ABSOLUTE_SECONDS - 3600:
        clock.now += IDLE_SECONDS / 2
        assert sessions.find(cookie.reveal()) is not None
    clock.now = opened + ABSOLUTE_SECONDS + 1
    assert sessions.find(cookie.reveal()) is None


def test_looking_again_and_again_writes_nothing(
    sessions: Sessions, database: Database, clock: Clock
) -> None:
    cookie, _ = sessions.create()
    before = database.read("SELECT total_changes() AS n")[0]["n"]
    for _ in range(50):
        clock.now += 1
        assert sessions.find(cookie.reveal()) is not None
    assert database.read("SELECT total_changes() AS n")[0]["n"] == before


def test_sessions_that_ran_out_are_swept(
    sessions: Sessions, database: Database, clock: Clock
) -> None:
    sessions.create()
    clock.now += IDLE_SECONDS + 1
    sessions.create()
    assert database.read("SELECT count(*) AS n FROM sessions")[0]["n"] == 1


def test_new_management_keys_end_the_sessions_of_the_old_ones(
    sessions: Sessions,
    config: Config,
    database: Database,
    clock: Clock,
    make_config: ConfigFactory,
) -> None:
    cookie, _ = sessions.create()
    configured = make_config({"auth.management_keys": "another-key-" + "k" * 32})
    assert Sessions(configured, database, clock).find(cookie.reveal()) is None


def test_the_database_holds_neither_cookie_nor_anything_that_opens(
    sessions: Sessions, config: Config, database: Database
) -> None:
    cookie, _ = sessions.create()
    database.read("PRAGMA wal_checkpoint")
    stored = b"".join(file.read_bytes() for file in config.data_dir.rglob("*") if file.is_file())
    assert cookie.reveal().encode() not in stored


def test_the_form_token_of_another_session_does_not_match(sessions: Sessions) -> None:
    _, mine = sessions.create()
    _, other = sessions.create()
    assert mine.csrf_matches(mine.csrf)
    for wrong in (other.csrf, "", None, "\udcff", "é"):
        assert not mine.csrf_matches(wrong)
