"""``llamactl keys``: the calls that it makes, and what it prints of them."""

from __future__ import annotations

import json
import time

import pytest

from llamactl.cli.keys import moment
from tests.cli.conftest import Run
from tests.cli.rest import FakeRest

TINY = {"id": 7, "name": "tiny"}


def test_no_keys_is_a_message_and_no_result(run: Run, rest: FakeRest) -> None:
    rest.answers["GET /auth/keys"] = (200, [])
    outcome = run("keys")
    assert (outcome.code, outcome.out) == (0, "")
    assert "llamactl keys create" in outcome.err


def test_json_is_the_servers_own_answer(run: Run, rest: FakeRest) -> None:
    made = {"id": 1, "name": "laptop", "key": "llc_secret"}
    rest.answers["GET /auth/keys"] = (200, [{"id": 1, "name": "laptop"}])
    rest.answers["POST /auth/keys"] = (201, made)
    assert json.loads(run("keys", "list", "--json").out) == [{"id": 1, "name": "laptop"}]
    assert json.loads(run("keys", "create", "laptop", "--json").out) == made
    assert rest.asked[-1].body["permission_mode"] == "allow_all"


def test_the_key_is_printed_alone_on_standard_output(run: Run, rest: FakeRest) -> None:
    rest.answers["GET /instances/tiny"] = (200, TINY)
    rest.answers["POST /auth/keys"] = (201, {"id": 1, "key": "llc_secret"})
    outcome = run("keys", "create", "laptop", "--instance", "tiny", "--expires", "1h")
    assert (outcome.code, outcome.out) == (0, "llc_secret\n")
    body = rest.asked[-1].body
    assert (body["permission_mode"], body["instance_ids"]) == ("per_instance", [7])
    assert 3500 < body["expires_at"] - time.time() <= 3600


def test_keys_are_listed_with_the_names_of_their_instances(run: Run, rest: FakeRest) -> None:
    rest.answers["GET /instances"] = (200, [TINY])
    record = {"id": 3, "name": "laptop", "created_at": 1, "expires_at": None, "last_used_at": None}
    rest.answers["GET /auth/keys"] = (
        200,
        [
            {**record, "permission_mode": "per_instance", "instance_ids": [7, 9]},
            {**record, "permission_mode": "allow_all", "instance_ids": []},
        ],
    )
    _, first, second = run("keys").out.splitlines()
    assert "tiny, (deleted 9)" in first
    assert "all instances" in second


def test_a_key_is_deleted_by_its_number(run: Run, rest: FakeRest) -> None:
    rest.answers["DELETE /auth/keys/3"] = (204, b"")
    assert run("keys", "rm", "3").code == 0
    assert run("keys", "rm", "4").code == 1


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("12h", 43200), ("2w", 1209600)])
def test_a_moment_can_be_an_age(text: str, seconds: int) -> None:
    assert moment(text, 1000.0) == 1000 + seconds


def test_a_moment_can_be_a_date() -> None:
    assert moment("2030-01-31", 0.0) > 1_895_000_000


def test_a_key_is_deleted_by_its_number_only(run: Run, rest: FakeRest) -> None:
    assert run("keys", "rm", "laptop").code == 2
    assert rest.asked == []


def test_a_key_that_would_be_dead_at_once_is_bad_usage(run: Run, rest: FakeRest) -> None:
    outcome = run("keys", "create", "x", "--expires", "2020-01-01")
    assert outcome.code == 2
    assert "2020-01-01 is in the past" in outcome.err
    assert rest.asked == []
