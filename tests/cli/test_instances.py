"""``llamactl instances`` and ``keys``: the calls that they make, and what they print of them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from llamactl.cli.keys import moment
from tests.cli.conftest import Run
from tests.cli.rest import FakeRest


def instance(name: str = "tiny", status: str = "stopped", **changes: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "name": name,
        "status": status,
        "created": 1,
        "options": {"backend_type": "llama_cpp", "backend_options": {"model": "org/name:Q4_K_M"}},
        "port": 8001 if status == "running" else None,
        "pid": None,
        "health": None,
        "restarts": 0,
        "exit_code": None,
        "error": None,
        "in_flight": 0,
        "last_used": None,
        **changes,
    }


def test_instances_without_a_command_lists_them(run: Run, rest: FakeRest) -> None:
    failed = instance("broken", "failed", error="no such file: /x\nlast lines: …")
    rest.answers["GET /instances"] = (200, [instance(status="running"), failed])
    outcome = run("instances")
    assert outcome == run("instances", "list")
    heads, first, second = outcome.out.splitlines()
    assert heads.split() == ["NAME", "STATUS", "PORT", "MODEL", "ERROR"]
    assert first.split() == ["tiny", "running", "8001", "org/name:Q4_K_M"]
    assert second.endswith("no such file: /x")


def test_no_instances_is_a_message_and_no_result(run: Run, rest: FakeRest) -> None:
    rest.answers["GET /instances"] = (200, [])
    outcome = run("instances")
    assert (outcome.code, outcome.out) == (0, "")
    assert "instances create" in outcome.err


def test_json_is_the_servers_own_answer(run: Run, rest: FakeRest) -> None:
    rest.answers["GET /instances"] = (200, [instance("größe")])
    assert json.loads(run("instances", "--json").out) == [instance("größe")]


def test_create_sends_flags_options_and_aliases_with_their_types(run: Run, rest: FakeRest) -> None:
    rest.answers["POST /instances/tiny"] = (201, instance())
    outcome = run(
        *("instances", "create", "tiny", "--model", "org/name:Q4_K_M"),
        *("--set", "ctx_size=8192", "--set", "flash_attn=on", "--set", 'lora=["a", "b"]'),
        *("--option", "idle_timeout=0.5", "--option", "auto_restart=false"),
        *("--alias", "small", "--alias", "org/other"),
    )
    assert outcome == (0, "tiny stopped\n", "")
    assert rest.asked[0].body == {
        "backend_type": "llama_cpp",
        "idle_timeout": 0.5,
        "auto_restart": False,
        "backend_options": {
            "ctx_size": 8192,
            "flash_attn": "on",
            "lora": ["a", "b"],
            "model": "org/name:Q4_K_M",
        },
        "aliases": ["small", "org/other"],
    }


def test_create_with_start_waits_until_it_answers(run: Run, rest: FakeRest) -> None:
    rest.answers["POST /instances/tiny"] = (201, instance())
    rest.answers["POST /instances/tiny/start"] = (200, instance(status="running"))
    outcome = run("instances", "create", "tiny", "--start")
    assert outcome.out == "tiny running\n"
    assert outcome.err == f"It answers as model tiny at {rest.url}/v1.\n"
    assert [asked.target for asked in rest.asked] == [
        "/api/v1/instances/tiny",
        "/api/v1/instances/tiny/start?wait=120.0",
    ]


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_a_change_waits_for_its_end_unless_told_not_to(run: Run, rest: FakeRest, verb: str) -> None:
    rest.answers[f"POST /instances/a b/{verb}"] = (404, {})
    rest.answers[f"POST /instances/a%20b/{verb}"] = (200, instance("a b", "running"))
    assert run("instances", verb, "a b", "--wait", "5").out == "a b running\n"
    assert run("instances", verb, "a b", "--wait", "0").code == 0
    assert [asked.target.partition("?")[2] for asked in rest.asked] == ["wait=5.0", ""]


def test_a_start_that_failed_is_exit_1_with_the_diagnosis(run: Run, rest: FakeRest) -> None:
    rest.answers["POST /instances/tiny/start"] = (
        503,
        {"error": "start_failed", "details": "The file is no GGUF.\nlast line"},
    )
    outcome = run("instances", "start", "tiny")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "The file is no GGUF.\nlast line\n"


def test_logs_are_printed_as_they_are_and_followed_event_by_event(run: Run, rest: FakeRest) -> None:
    rest.answers["GET /instances/tiny/logs"] = (200, b"one\ntwo")
    assert run("instances", "logs", "tiny", "-n", "2").out == "one\ntwo"
    assert rest.asked[-1].target.endswith("?lines=2")
    rest.answers["GET /instances/tiny/logs"] = (200, b"data: one\n\ndata: two\n\n")
    assert run("instances", "logs", "tiny", "-f").out == "one\ntwo\n"
    assert rest.asked[-1].target.endswith("?follow=true")


def test_rm_can_stop_first(run: Run, rest: FakeRest) -> None:
    rest.answers["POST /instances/tiny/stop"] = (200, instance())
    rest.answers["DELETE /instances/tiny"] = (204, b"")
    assert run("instances", "rm", "tiny", "--stop") == (0, "", "tiny is deleted.\n")
    assert [asked.method for asked in rest.asked] == ["POST", "DELETE"]


def test_show_prints_everything_as_json(run: Run, rest: FakeRest) -> None:
    rest.answers["GET /instances/tiny"] = (200, instance())
    assert json.loads(run("instances", "show", "tiny").out) == instance()


@pytest.mark.parametrize("text", ["ctx_size", "=1", ""])
def test_an_assignment_without_a_name_or_a_value_is_bad_usage(
    run: Run, rest: FakeRest, text: str
) -> None:
    assert run("instances", "create", "tiny", "--set", text).code == 2
    assert rest.asked == []


def test_the_key_is_printed_alone_on_standard_output(run: Run, rest: FakeRest) -> None:
    rest.answers["GET /instances/tiny"] = (200, instance())
    rest.answers["POST /auth/keys"] = (201, {"id": 1, "key": "llc_secret"})
    outcome = run("keys", "create", "laptop", "--instance", "tiny", "--expires", "1h")
    assert (outcome.code, outcome.out) == (0, "llc_secret\n")
    body = rest.asked[-1].body
    assert (body["permission_mode"], body["instance_ids"]) == ("per_instance", [7])
    assert 3500 < body["expires_at"] - time.time() <= 3600


def test_keys_are_listed_with_the_names_of_their_instances(run: Run, rest: FakeRest) -> None:
    rest.answers["GET /instances"] = (200, [instance()])
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


def test_an_instance_that_is_not_there_is_told_with_where_to_look(run: Run, rest: FakeRest) -> None:
    gone = {"error": "instance_not_found", "details": "There is no instance 'tny'."}
    rest.answers["GET /instances/tny"] = (404, gone)
    outcome = run("instances", "show", "tny")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == f"{gone['details']} See those there are with `llamactl instances`.\n"


def test_an_address_that_is_no_llamactl_is_told_apart(run: Run, rest: FakeRest) -> None:
    rest.answers["GET /instances"] = (404, b"<html>not here")
    outcome = run("instances")
    assert outcome.code == 1
    assert "Is this the address of a llamactl?" in outcome.err


def test_a_key_is_deleted_by_its_number_only(run: Run, rest: FakeRest) -> None:
    assert run("keys", "rm", "laptop").code == 2
    assert rest.asked == []


def test_a_key_that_would_be_dead_at_once_is_bad_usage(run: Run, rest: FakeRest) -> None:
    outcome = run("keys", "create", "x", "--expires", "2020-01-01")
    assert outcome.code == 2
    assert "2020-01-01 is in the past" in outcome.err
    assert rest.asked == []
