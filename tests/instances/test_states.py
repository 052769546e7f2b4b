from __future__ import annotations

import itertools
from typing import get_args

import pytest

from llamactl.errors import InvalidState
from llamactl.instances.states import AT_REST, TRANSITIONS, Event, Life, Status, backoff

EVERY = list(itertools.product(get_args(Status), get_args(Event)))


@pytest.mark.parametrize(("status", "event"), EVERY)
def test_only_the_transitions_of_the_table_exist(status: Status, event: Event) -> None:
    life = Life(status=status)
    if (status, event) in TRANSITIONS:
        assert life.after(event).status == TRANSITIONS[status, event]
    else:
        with pytest.raises(InvalidState, match=status):
            life.after(event)


def test_every_state_can_be_left_and_reached() -> None:
    assert {status for status, _ in TRANSITIONS} == set(get_args(Status))
    assert set(TRANSITIONS.values()) == set(get_args(Status))


def test_from_rest_only_a_start_leads_away_and_a_failure_can_be_cleared() -> None:
    away = {(s, e): to for (s, e), to in TRANSITIONS.items() if s in AT_REST}
    assert away == {
        ("stopped", "start"): "starting",
        ("failed", "start"): "starting",
        ("failed", "stop"): "stopped",
    }


def test_a_transition_keeps_what_it_does_not_change() -> None:
    life = Life(status="running", pid=5, port=8000, restarts=2)
    crashed = life.after("exited", pid=None, exit_code=-11)
    assert (crashed.pid, crashed.port, crashed.restarts, crashed.exit_code) == (None, 8000, 2, -11)


def test_the_backoff_doubles_up_to_its_limit() -> None:
    assert [backoff(1, n, 60) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff(5, 10_000, 60) == 60


def test_a_delay_beyond_the_limit_is_kept_as_it_was_asked() -> None:
    assert backoff(300, 1, 60) == 300 == backoff(300, 9, 60)


def test_a_delay_of_nothing_stays_nothing() -> None:
    assert backoff(0, 5, 60) == 0
