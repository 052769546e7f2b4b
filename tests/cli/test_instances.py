"""``llamactl instances``: the calls that it makes, and what it prints of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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


PLAN = {"needs": 2_100_000_000, "free": 4 * 10**9, "fits": True, "evicts": [], "why": "It fits."}


def test_instances_without_a_command_lists_them(run: Run, rest: FakeRest) -> None:
    failed = instance("broken", "failed", error="no such file: /x\nlast lines: …")
    running = instance(status="running", memory_bytes=2_100_000_000)
    rest.answers["GET /instances"] = (200, [running, failed])
    outcome = run("instances")
    assert outcome == run("instances", "list")
    heads, first, second = outcome.out.splitlines()
    assert heads.split() == ["NAME", "STATUS", "PORT", "MEMORY", "MODEL", "ERROR"]
    assert first.split() == ["tiny", "running", "8001", "2.1", "GB", "org/name:Q4_K_M"]
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
    rest.answers["GET /instances/tiny/plan"] = (200, PLAN)
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


def test_create_says_when_a_start_would_fail(run: Run, rest: FakeRest) -> None:
    why = "It takes about 9.0 GB, and 4.0 GB are free."
    rest.answers["POST /instances/tiny"] = (201, instance(warnings=[]))
    rest.answers["GET /instances/tiny/plan"] = (200, {**PLAN, "fits": False, "why": why})
    outcome = run("instances", "create", "tiny", "--model", "org/name:Q4_K_M")
    assert outcome == (0, "tiny stopped\n", f"{why}\n")


def test_create_says_what_the_server_warns_of_and_only_once(run: Run, rest: FakeRest) -> None:
    warning = "org/name is not cached; llama-server fetches it at the first start."
    rest.answers["POST /instances/tiny"] = (201, {**instance(), "warnings": [warning]})
    rest.answers["POST /instances/tiny/start"] = (200, instance(status="running"))
    told = run("instances", "create", "tiny", "--set", "hf_repo=org/name")
    assert told == (0, "tiny stopped\n", f"{warning}\n")
    started = run("instances", "create", "tiny", "--set", "hf_repo=org/name", "--start")
    assert started.err.startswith(f"{warning}\n")


def test_create_takes_a_pasted_line_and_says_what_it_leaves_out(run: Run, rest: FakeRest) -> None:
    line = "llama-server -m /m.gguf -c 4096 --port 8080"
    read = {"backend_type": "llama_cpp", "backend_options": {"model": "/m.gguf", "ctx_size": 4096}}
    rest.answers["POST /backends/llama-cpp/parse-command"] = (200, read)
    rest.answers["POST /instances/tiny"] = (201, instance())
    rest.answers["GET /instances/tiny/plan"] = (200, PLAN)
    outcome = run("instances", "create", "tiny", "--line", line, "--set", "ctx_size=512")
    assert outcome.err == "--port is left out: llamactl finds a free port by itself.\n"
    assert rest.asked[0].body == {"command": line}
    assert rest.asked[1].body["backend_options"] == {"model": "/m.gguf", "ctx_size": 512}


def test_create_says_that_a_cached_model_of_a_line_is_not_fetched(run: Run, rest: FakeRest) -> None:
    flags = {"model": "org/name:Q4_K_M", "ctx_size": 4096}
    read = {"backend_type": "llama_cpp", "backend_options": flags}
    rest.answers["POST /backends/llama-cpp/parse-command"] = (200, read)
    rest.answers["POST /instances/tiny"] = (201, instance())
    rest.answers["GET /instances/tiny/plan"] = (200, PLAN)
    line = "llama-server -hf org/name:Q4_K_M -c 4096"
    told = run("instances", "create", "tiny", "--line", line).err
    assert told == "--hf-repo is left out: org/name:Q4_K_M is cached, so nothing is fetched.\n"
    assert rest.asked[1].body["backend_options"] == flags


def test_set_changes_flags_and_options_and_keeps_the_rest(run: Run, rest: FakeRest) -> None:
    options = {
        "backend_type": "llama_cpp",
        "backend_options": {"model": "/m.gguf", "ctx_size": 4096, "threads": 2},
        "idle_timeout": 30.0,
        "group": "small",
    }
    rest.answers["GET /instances/tiny"] = (200, instance(options=options))
    rest.answers["PUT /instances/tiny"] = (200, instance())
    outcome = run("instances", "set", "tiny", "c=8192", "threads=", "idle_timeout=0.5", "group=")
    assert outcome == (0, "tiny stopped\n", "")
    assert rest.asked[-1].body == {
        "backend_type": "llama_cpp",
        "backend_options": {"model": "/m.gguf", "c": 8192},
        "idle_timeout": 0.5,
        "group": None,
    }


def test_set_of_one_that_runs_says_that_it_starts_again(run: Run, rest: FakeRest) -> None:
    rest.answers["GET /instances/tiny"] = (200, instance())
    rest.answers["PUT /instances/tiny"] = (200, {**instance(), "status": "stopping"})
    outcome = run("instances", "set", "tiny", "c=8192")
    assert outcome == (0, "tiny stopping\n", "It starts again, with these options.\n")


def test_a_warning_begins_as_a_sentence_does(run: Run, rest: FakeRest) -> None:
    warnings = ["there is no file /x.", "org/name:Q8_0 is not in the cache."]
    rest.answers["POST /instances/tiny"] = (201, {**instance(), "warnings": warnings})
    told = run("instances", "create", "tiny", "--model", "/x").err
    assert told == "There is no file /x.\norg/name:Q8_0 is not in the cache.\n"


def test_one_that_runs_is_refused_with_the_way_to_delete_it(run: Run, rest: FakeRest) -> None:
    refusal = {"error": "instance_running", "details": "tiny is running. Stop it first."}
    rest.answers["DELETE /instances/tiny"] = (409, refusal)
    outcome = run("instances", "rm", "tiny")
    assert outcome.code == 1
    assert "`llamactl instances rm --stop`" in outcome.err


def test_a_plan_is_told_in_figures_and_a_sentence(run: Run, rest: FakeRest) -> None:
    plan = {**PLAN, "evicts": ["old"], "why": "old stops for it."}
    rest.answers["GET /instances/tiny/plan"] = (200, plan)
    outcome = run("instances", "plan", "tiny")
    told = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert told == {"needs": "2.1 GB", "free": "4.0 GB", "fits": "yes", "stops": "old"}
    assert outcome.err == "old stops for it.\n"
    assert json.loads(run("instances", "plan", "tiny", "--json").out) == plan


def test_what_export_writes_import_reads(run: Run, rest: FakeRest, tmp_path: Path) -> None:
    rest.answers["GET /instances/tiny"] = (200, instance())
    rest.answers["GET /instances"] = (200, [instance(), instance("größe")])
    one, every = run("instances", "export", "tiny").out, run("instances", "export", "--all").out
    assert json.loads(one) == instance()["options"]
    assert list(json.loads(every)) == ["tiny", "größe"]
    rest.answers["GET /instances"] = (200, [])
    rest.answers["POST /instances/tiny"] = rest.answers["POST /instances/new"] = (201, instance())
    rest.answers["POST /instances/gr%C3%B6%C3%9Fe"] = (201, instance())
    for name, text, made in (
        ("tiny.json", one, ["tiny"]),
        ("all.json", every, ["tiny", "größe"]),
    ):
        (tmp_path / name).write_text(text)
        rest.asked.clear()
        outcome = run("instances", "import", str(tmp_path / name))
        assert outcome.err.splitlines() == [f"{each} is made." for each in made], outcome
        assert [each.body for each in rest.asked[1:]] == [instance()["options"]] * len(made)
    assert run("instances", "import", str(tmp_path / "tiny.json"), "--name", "new").code == 0


def test_import_of_a_name_that_is_taken_makes_nothing_unless_it_may_replace(
    run: Run, rest: FakeRest, tmp_path: Path
) -> None:
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"tiny": instance()["options"], "other": instance()["options"]}))
    rest.answers["GET /instances"] = (200, [instance()])
    outcome = run("instances", "import", str(file))
    assert outcome.code == 2 and "tiny" in outcome.err and "--replace" in outcome.err
    assert [each.method for each in rest.asked] == ["GET"]
    rest.answers["PUT /instances/tiny"] = (200, instance())
    rest.answers["POST /instances/other"] = (201, instance())
    assert run("instances", "import", str(file), "--replace").code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("[]", "no instance"),
        ("3", "neither"),
        ('{"a": 3}', "object"),
        ('[{"name": "a"}]', "name and options"),
    ],
)
def test_a_file_that_holds_no_instances_is_bad_usage(
    run: Run, rest: FakeRest, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "x.json").write_text(text)
    outcome = run("instances", "import", str(tmp_path / "x.json"))
    assert outcome.code == 2 and said in outcome.err
    assert rest.asked == []


def test_an_import_names_the_instance_that_is_wrong(
    run: Run, rest: FakeRest, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"tiny": instance()["options"]}))
    rest.answers["GET /instances"] = (200, [])
    refusal = {"error": "invalid_request", "details": "backend_options.c must be a number."}
    rest.answers["POST /instances/tiny"] = (400, refusal)
    outcome = run("instances", "import", str(tmp_path / "x.json"))
    assert outcome == (2, "", "tiny: backend_options.c must be a number.\n")


def test_a_duplicate_has_the_options_but_no_name_of_the_other(run: Run, rest: FakeRest) -> None:
    options = {**instance()["options"], "aliases": ["small"]}
    rest.answers["GET /instances/tiny"] = (200, instance(options=options))
    rest.answers["POST /instances/twin"] = (201, instance("twin"))
    assert run("instances", "duplicate", "tiny", "twin") == (0, "", "twin is made.\n")
    assert rest.asked[-1].body == {**options, "aliases": []}
    assert rest.asked[-1].target.endswith("/instances/twin?like=tiny")


def test_the_models_of_a_router_are_listed_loaded_and_unloaded(run: Run, rest: FakeRest) -> None:
    listed = {"data": [{"id": "org/name:Q4_K_M", "status": {"value": "loaded"}}, {"id": "b"}]}
    rest.answers["GET /llama-cpp/router/models"] = (200, listed)
    out = run("instances", "models", "router").out
    assert [line.split() for line in out.splitlines()[1:]] == [["org/name:Q4_K_M", "loaded"], ["b"]]
    for verb in ("load", "unload"):
        rest.answers[f"POST /llama-cpp/router/models/org/name:Q4_K_M/{verb}"] = (200, {})
        assert run("instances", verb, "router", "org/name:Q4_K_M").code == 0


def test_a_model_that_the_router_does_not_offer_is_told_with_those_it_does(
    run: Run, rest: FakeRest
) -> None:
    unknown = {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}
    rest.answers["POST /llama-cpp/router/models/nope/load"] = (404, unknown)
    outcome = run("instances", "load", "router", "nope")
    assert outcome.code == 1
    assert outcome.err.startswith("router offers no model nope. ")
    assert "`llamactl instances models router`" in outcome.err


def test_export_wants_one_name_or_all_and_not_both(run: Run, rest: FakeRest) -> None:
    for arguments in ([], ["tiny", "--all"]):
        outcome = run("instances", "export", *arguments)
        assert outcome.code == 2 and "--all" in outcome.err
    assert rest.asked == []


def test_an_import_that_the_server_refuses_names_the_instance(
    run: Run, rest: FakeRest, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"tiny": instance()["options"]}))
    rest.answers["GET /instances"] = (200, [])
    full = {"error": "max_instances_reached", "details": "There may be one instance."}
    rest.answers["POST /instances/tiny"] = (409, full)
    outcome = run("instances", "import", str(tmp_path / "x.json"))
    assert outcome == (1, "", "tiny: There may be one instance.\n")


def test_a_router_without_models_says_how_to_get_one(run: Run, rest: FakeRest) -> None:
    rest.answers["GET /llama-cpp/router/models"] = (200, {"data": []})
    outcome = run("instances", "models", "router")
    assert (outcome.code, outcome.out) == (0, "")
    assert "llamactl download" in outcome.err
    assert json.loads(run("instances", "models", "router", "--json").out) == {"data": []}


def test_a_router_that_is_not_there_is_told_as_the_server_tells_it(
    run: Run, rest: FakeRest
) -> None:
    gone = {"error": "instance_not_found", "details": "There is no instance 'router'."}
    rest.answers["POST /llama-cpp/router/models/m/load"] = (404, gone)
    assert run("instances", "load", "router", "m").err.startswith(gone["details"])


def test_an_instances_own_error_is_told_in_its_own_words(run: Run, rest: FakeRest) -> None:
    unknown = {"error": {"code": 400, "message": "model is not found"}}
    rest.answers["POST /llama-cpp/router/models/nope/unload"] = (400, unknown)
    assert "model is not found" in run("instances", "unload", "router", "nope").err


def test_a_router_that_runs_is_said_to_answer_for_its_models(run: Run, rest: FakeRest) -> None:
    router = instance("router", "running", options={"backend_options": {"threads": 2}})
    rest.answers["POST /instances/router/start"] = (200, router)
    told = run("instances", "start", "router").err
    assert "as models router/MODEL at" in told and "llamactl instances models router" in told


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
