"""Instances by REST, as docs/api.md tells it, over a real supervisor and fake llama-servers."""

from __future__ import annotations

import time

import pytest
from flask.testing import FlaskClient

from llamactl.runtime import Runtime
from tests.web.conftest import PATIENCE, Instances

FIELDS = {
    "id", "name", "status", "created", "options", "port", "pid", "health", "restarts", "exit_code",
    "error", "in_flight", "requests", "last_used", "memory_bytes", "tokens_per_second",
}  # fmt: skip
ODD_NAMES = [
    "new", "NEW-is-fine-but-%20", "-x", ".x", "_x", "..", ".", "%2e%2e", "a%0A", "%0Aa", "a%00",
    "a%20b", "a;b", "ä", "a\u200bb", "x" * 51, "x" * 5000, "a%5Cb", "a:b", "%7E", "a*b",
]  # fmt: skip


def test_a_new_instance_is_stopped_and_has_every_field(instances: Instances, model: str) -> None:
    before = time.time()
    answer = instances.create("one", backend_options={"model": model})
    told = answer.get_json()
    assert answer.status_code == 201
    assert told.pop("warnings") == [] and set(told) == FIELDS
    assert (told["name"], told["status"], told["port"], told["pid"]) == (
        "one",
        "stopped",
        None,
        None,
    )
    assert (told["restarts"], told["exit_code"], told["error"]) == (0, None, None)
    assert before - 1 <= told["created"] <= time.time() + 1
    assert isinstance(told["id"], int)
    assert told["options"]["backend_type"] == "llama_cpp"
    assert told["options"]["backend_options"]["model"] == model
    assert instances.get("one") == told


def test_instances_are_listed(instances: Instances, client: FlaskClient, model: str) -> None:
    assert client.get("/api/v1/instances").get_json() == []
    for name in ("one", "two"):
        instances.create(name, backend_options={"model": model})
    for path in ("/api/v1/instances", "/api/v1/instances/"):
        listed = client.get(path).get_json()
        assert sorted(each["name"] for each in listed) == ["one", "two"]
        assert all(set(each) == FIELDS for each in listed)


def test_a_second_instance_of_one_name_is_a_conflict(instances: Instances) -> None:
    assert instances.create("one").status_code == 201
    answer = instances.create("one")
    assert (answer.status_code, answer.get_json()["error"]) == (409, "instance_exists")


def test_an_odd_name_is_refused(instances: Instances, client: FlaskClient) -> None:
    for name in ODD_NAMES:
        answer = client.post(f"/api/v1/instances/{name}", json={})
        assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_instance_name")
        assert len(answer.data) < 1000
    assert client.get("/api/v1/instances").get_json() == []


def test_a_good_name_is_taken_as_it_is(instances: Instances) -> None:
    for name in ("a", "0", "x" * 50, "Llama-3.2_3B.Q4", "new2"):
        assert instances.create(name).get_json()["name"] == name


def test_a_name_with_a_slash_is_no_address(client: FlaskClient) -> None:
    for name in ("a%2Fb", "a/b", "a/b/c"):
        answer = client.post(f"/api/v1/instances/{name}", json={})
        assert answer.status_code == 404
        assert set(answer.get_json()) == {"error", "details"}


def test_an_instance_that_does_not_exist_is_a_404(client: FlaskClient) -> None:
    for name in ("nobody", "..", "a%0A", "new", "x" * 51):
        for method, suffix in (
            ("GET", ""), ("DELETE", ""), ("GET", "/logs"), ("GET", "/logs?follow=true"),
            ("POST", "/start"), ("POST", "/stop"), ("POST", "/restart"), ("PUT", ""),
        ):  # fmt: skip
            path = f"/api/v1/instances/{name}{suffix}"
            answer = client.open(path, method=method, json={} if method == "PUT" else None)
            assert (answer.status_code, answer.get_json()["error"]) == (404, "instance_not_found")


WRONG_OPTIONS: list[tuple[dict[str, object], str]] = [
    ({"backend_options": []}, "backend_options"),
    ({"backend_options": "model.gguf"}, "backend_options"),
    ({"backend_options": {"model": {}}}, "model"),
    ({"backend_options": {"model": ["a", "b"]}}, "model"),
    ({"backend_options": {"model": "a\x00b"}}, "model"),
    ({"environment": {"A": "x\x00"}}, "environment"),
    ({"backend_options": {"extra_args": {"--x": "\x00"}}}, "extra_args"),
    ({"backend_options": {"port": 80}}, "port"),
    ({"backend_options": {"extra_args": {"--host": "0.0.0.0"}}}, "host"),
    ({"preset_ini": 5}, "preset_ini"),
    ({"command_override": "/bin/sh"}, "command_override"),
    ({"environment": {"LD_PRELOAD": "x"}}, "LD_PRELOAD"),
    ({"backend_options": {"no_such_flag": 1}}, "no_such_flag"),
    ({"backend_options": {"ctx_size": "many"}}, "ctx_size"),
    ({"auto_restart": "perhaps"}, "auto_restart"),
    ({"max_restarts": -1}, "max_restarts"),
    ({"max_restarts": 1.5}, "max_restarts"),
    ({"restart_delay": "soon"}, "restart_delay"),
    ({"idle_timeout": "1h"}, "idle_timeout"),
    ({"idle_timeout": -1}, "idle_timeout"),
    ({"on_demand_start": 1}, "on_demand_start"),
    ({"aliases": {"a": 1}}, "aliases"),
    ({"aliases": [1]}, "aliases"),
    ({"environment": {"A": ["x"]}}, "environment"),
    ({"environment": {"A=B": "x"}}, "environment"),
    ({"environment": ["A=1"]}, "environment"),
    ({"colour": "blue"}, "colour"),
]


def test_a_wrong_option_is_named(instances: Instances, client: FlaskClient) -> None:
    for options, field in WRONG_OPTIONS:
        answer = instances.create("one", **options)
        told = answer.get_json()
        assert (answer.status_code, told["error"]) == (400, "invalid_request"), options
        assert field in told["details"]
    assert client.get("/api/v1/instances").get_json() == []


def test_a_model_that_is_not_cached_is_said_to_be_when_it_is_saved(
    instances: Instances, client: FlaskClient
) -> None:
    answer = instances.create("one", backend_options={"model": "org/name:Q4_K_M"})
    assert answer.status_code == 201
    (warning,) = answer.get_json()["warnings"]
    assert "org/name:Q4_K_M is not in the cache" in warning
    assert "`llamactl download org/name:Q4_K_M`" in warning
    assert warning == client.get("/api/v1/instances/one/plan").get_json()["why"]
    changed = client.put(
        "/api/v1/instances/one", json={"backend_options": {"hf_repo": "org/name:Q8_0"}}
    )
    (warning,) = changed.get_json()["warnings"]
    assert "fetches it at the first start" in warning
    assert "`llamactl download org/name:Q8_0`" in warning
    changed = client.put("/api/v1/instances/one", json={"backend_options": {"ctx_size": 1}})
    assert changed.get_json()["warnings"] == []


def test_a_secret_variable_is_masked_and_kept_when_the_mask_comes_back(
    instances: Instances, client: FlaskClient, runtime: Runtime
) -> None:
    variables = {"MY_TOKEN": "s3cret", "CUDA_VISIBLE_DEVICES": "0"}
    made = instances.create("one", environment=variables).get_json()
    assert made["options"]["environment"] == {"MY_TOKEN": "***", "CUDA_VISIBLE_DEVICES": "0"}
    options = client.get("/api/v1/instances/one").get_json()["options"]
    options["environment"]["CUDA_VISIBLE_DEVICES"] = "1"
    changed = client.put("/api/v1/instances/one", json=options)
    assert changed.status_code == 200 and "s3cret" not in changed.text
    kept = runtime.supervisor.get("one").options.environment
    assert kept == {"MY_TOKEN": "s3cret", "CUDA_VISIBLE_DEVICES": "1"}
    copy = instances.create("two", environment={"MY_TOKEN": "***"})
    assert copy.status_code == 400 and "environment.MY_TOKEN" in copy.get_json()["details"]


def test_another_backend_is_refused_by_its_own_code(instances: Instances) -> None:
    for kind in ("vllm", "mlx_lm", "", 17):
        answer = instances.create("one", backend_type=kind)
        assert (answer.status_code, answer.get_json()["error"]) == (400, "unsupported_backend")


def test_a_body_that_is_no_options_is_refused(client: FlaskClient) -> None:
    path = "/api/v1/instances/one"
    for raw in (b"", b"[]", b"{", b'{"backend_options": {"a": 1, "a": 2}}'):
        answer = client.post(path, data=raw, content_type="application/json")
        assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_request")
    assert client.post(path, data=b"{}", content_type="text/plain").status_code == 415


def test_put_replaces_the_options_and_restarts_what_ran(instances: Instances, model: str) -> None:
    instances.create("one", backend_options={"model": model}, aliases=["first"])
    first = instances.do("one", "start", wait=PATIENCE).get_json()
    body = {"backend_options": {"model": model, "ctx_size": 512}}
    answer = instances.client.put(f"{instances.base}/one", json=body)
    assert answer.status_code == 200
    assert answer.get_json()["options"]["backend_options"]["ctx_size"] == 512
    assert not answer.get_json()["options"]["aliases"]
    deadline = time.monotonic() + PATIENCE
    while (now := instances.get("one"))["pid"] in (first["pid"], None):
        assert time.monotonic() < deadline, now
        time.sleep(0.01)
    assert instances.wait("one", "running")["id"] == first["id"]


def test_put_leaves_a_stopped_instance_stopped(instances: Instances, model: str) -> None:
    instances.create("one")
    answer = instances.client.put(
        f"{instances.base}/one", json={"backend_options": {"model": model}}
    )
    assert (answer.status_code, answer.get_json()["status"]) == (200, "stopped")


def test_a_running_instance_is_not_deleted_and_a_stopped_one_is(
    instances: Instances, client: FlaskClient, model: str
) -> None:
    instances.create("one", backend_options={"model": model})
    instances.do("one", "start", wait=PATIENCE)
    answer = client.delete(f"{instances.base}/one")
    assert (answer.status_code, answer.get_json()["error"]) == (409, "instance_running")
    instances.do("one", "stop", wait=PATIENCE)
    answer = client.delete(f"{instances.base}/one")
    assert (answer.status_code, answer.data) == (204, b"")
    assert client.get(f"{instances.base}/one").status_code == 404


def test_an_instance_of_the_same_name_has_another_id(instances: Instances) -> None:
    first = instances.create("one").get_json()["id"]
    instances.client.delete(f"{instances.base}/one")
    assert instances.create("one").get_json()["id"] != first


def test_logs_are_plain_text_and_lines_takes_the_last(
    instances: Instances, client: FlaskClient, model: str
) -> None:
    text = "<b>alpha</b>\\nbeta\\ngamma"
    instances.create(
        "one",
        backend_options={"model": model},
        environment={"FAKE_LLAMA": f"--fake-print '{text}'"},
    )
    assert client.get(f"{instances.base}/one/logs").status_code == 200
    instances.do("one", "start", wait=PATIENCE)
    instances.do("one", "stop", wait=PATIENCE)
    everything = client.get(f"{instances.base}/one/logs")
    assert everything.mimetype == "text/plain"
    assert everything.headers["X-Content-Type-Options"] == "nosniff"
    assert "<b>alpha</b>" in everything.text
    for lines in (1, 2):
        last = client.get(f"{instances.base}/one/logs?lines={lines}").text
        assert last.splitlines() == everything.text.splitlines()[-lines:]
    assert client.get(f"{instances.base}/one/logs?lines=0").text == everything.text


def test_a_whole_log_is_given_whatever_its_size(
    instances: Instances, client: FlaskClient, model: str
) -> None:
    instances.create(
        "one",
        backend_options={"model": model},
        environment={"FAKE_LLAMA": "--fake-spam 9000000"},
    )
    instances.do("one", "start", wait=PATIENCE)
    instances.do("one", "stop", wait=PATIENCE)
    whole = client.get(f"{instances.base}/one/logs")
    assert whole.content_length == len(whole.data) > 9_000_000
    assert whole.data.startswith(b"--- llamactl starts")


def test_a_wrong_question_for_logs_is_refused(instances: Instances, client: FlaskClient) -> None:
    instances.create("one")
    for query in ("lines=-1", "lines=x", "lines=1.5", "follow=perhaps", "tail=3"):
        answer = client.get(f"{instances.base}/one/logs?{query}")
        assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_request")


def test_followed_logs_come_as_events_while_they_are_written(
    instances: Instances, client: FlaskClient, model: str
) -> None:
    instances.create(
        "one",
        backend_options={"model": model},
        environment={"FAKE_LLAMA": "--fake-print unmistakable"},
    )
    answer = client.get(f"{instances.base}/one/logs?follow=true", buffered=False)
    assert answer.mimetype == "text/event-stream"
    assert answer.headers["X-Accel-Buffering"] == "no"
    instances.do("one", "start")
    received = b""
    for chunk in answer.response:
        assert isinstance(chunk, bytes)
        received += chunk
        if b"unmistakable" in received:
            break
    answer.close()
    assert b"data: " in received


class TestLimits:
    @pytest.fixture
    def settings(self) -> dict[str, object]:
        return {
            "instances.max_running_instances": 1,
            "instances.max_instances": 2,
            "instances.enable_lru_eviction": False,
        }

    def test_no_room_to_run_is_a_conflict(self, instances: Instances, model: str) -> None:
        for name in ("one", "two"):
            instances.create(name, backend_options={"model": model})
        instances.do("one", "start", wait=PATIENCE)
        answer = instances.do("two", "start", wait=PATIENCE)
        assert (answer.status_code, answer.get_json()["error"]) == (409, "max_instances_reached")
        assert instances.do("one", "start").status_code == 200

    def test_no_room_to_exist_is_a_conflict(self, instances: Instances) -> None:
        assert [instances.create(name).status_code for name in ("a", "b", "c")] == [201, 201, 409]


def test_options_come_back_from_a_command_line(client: FlaskClient) -> None:
    answer = client.post(
        "/api/v1/backends/llama-cpp/parse-command",
        json={"command": "llama-server -m ~/models/m.gguf -c 4096 -ngl 99 --flash-attn on"},
    )
    told = answer.get_json()
    assert answer.status_code == 200
    assert told["backend_type"] == "llama_cpp"
    options = told["backend_options"]
    assert options["model"] == "~/models/m.gguf"
    assert (options["ctx_size"], options["gpu_layers"]) == (4096, 99)


def test_a_command_that_is_none_of_llama_server_is_refused(client: FlaskClient) -> None:
    for command in ("", 'llama-server -m "unclosed', 17, "vllm serve x"):
        answer = client.post("/api/v1/backends/llama-cpp/parse-command", json={"command": command})
        assert answer.status_code == 400
        assert "command" in answer.get_json()["details"]


def test_a_plan_says_what_a_start_would_do_and_starts_nothing(
    client: FlaskClient, instances: Instances, model: str
) -> None:
    made = instances.create("planned", backend_options={"model": model})
    assert made.status_code == 201
    plan = client.get("/api/v1/instances/planned/plan")
    assert plan.status_code == 200
    assert {"needs", "free", "fits", "evicts", "why"} <= set(plan.get_json())
    assert plan.get_json()["evicts"] == [] and plan.get_json()["why"].endswith(".")
    assert client.get("/api/v1/instances/planned").get_json()["status"] == "stopped"
    assert client.get("/api/v1/instances/nobody/plan").status_code == 404


def test_an_instance_like_another_has_its_secrets(client: FlaskClient, runtime: Runtime) -> None:
    options = {"backend_options": {"model": "/m.gguf"}, "environment": {"API_TOKEN": "secret"}}
    assert client.post("/api/v1/instances/one", json=options).status_code == 201
    shown = client.get("/api/v1/instances/one").get_json()["options"]
    assert shown["environment"] == {"API_TOKEN": "***"}
    assert client.post("/api/v1/instances/two", json=shown).status_code == 400
    assert client.post("/api/v1/instances/two?like=one", json=shown).status_code == 201
    assert runtime.supervisor.get("two").options == runtime.supervisor.get("one").options
    assert client.post("/api/v1/instances/three?like=none", json=shown).status_code == 404
