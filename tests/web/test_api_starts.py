"""Starts and stops by REST: what a wait answers, and why a start fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.fakes.fake_hub import FakeHub, seeded_bytes
from tests.web.conftest import INSTANCE_PORTS, PATIENCE, Instances, Models


def test_start_answers_at_once_and_repeats_are_no_error(instances: Instances, model: str) -> None:
    instances.create("one", backend_options={"model": model})
    for _ in range(2):
        answer = instances.do("one", "start")
        assert answer.status_code == 200
        assert answer.get_json()["status"] in {"starting", "running"}
    running = instances.wait("one", "running", "failed")
    assert running["status"] == "running"
    first, last = map(int, INSTANCE_PORTS.split("-"))
    assert first <= running["port"] <= last
    assert running["pid"] > 0
    for _ in range(2):
        answer = instances.do("one", "stop")
        assert answer.status_code == 200
        assert answer.get_json()["status"] in {"stopping", "stopped"}
    stopped = instances.wait("one", "stopped")
    assert (stopped["port"], stopped["pid"]) == (None, None)


def test_with_wait_the_answer_comes_when_it_is_there(instances: Instances, model: str) -> None:
    instances.create("one", backend_options={"model": model})
    started = instances.do("one", "start", wait=PATIENCE)
    assert (started.status_code, started.get_json()["status"]) == (200, "running")
    restarted = instances.do("one", "restart", wait=PATIENCE)
    assert (restarted.status_code, restarted.get_json()["status"]) == (200, "running")
    assert restarted.get_json()["pid"] != started.get_json()["pid"]
    stopped = instances.do("one", "stop", wait=PATIENCE)
    assert (stopped.status_code, stopped.get_json()["status"]) == (200, "stopped")


def test_a_wait_that_is_no_time_is_refused(instances: Instances) -> None:
    instances.create("one")
    for wait in ("-1", "nan", "inf", "soon", "1e9", ""):
        answer = instances.client.post(f"{instances.base}/one/start?wait={wait}")
        assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_request")
    assert instances.get("one")["status"] == "stopped"


def test_a_start_that_fails_is_a_503_with_the_last_log_lines(
    instances: Instances, model: str
) -> None:
    instances.create(
        "one",
        backend_options={"model": model},
        environment={"FAKE_LLAMA": "--fake-fail 'error loading model: out of luck'"},
        max_restarts=0,
    )
    answer = instances.do("one", "start", wait=PATIENCE)
    assert (answer.status_code, answer.get_json()["error"]) == (503, "start_failed")
    assert "out of luck" in answer.get_json()["details"]
    failed = instances.get("one")
    assert (failed["status"], failed["exit_code"]) == ("failed", 1)
    assert failed["error"]


def test_a_model_that_does_not_exist_fails_by_name(instances: Instances, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere" / "m.gguf"
    instances.create("one", backend_options={"model": str(missing)})
    answer = instances.do("one", "start", wait=PATIENCE)
    assert (answer.status_code, answer.get_json()["error"]) == (503, "start_failed")
    assert str(missing) in answer.get_json()["details"]


def test_a_reference_that_is_not_cached_fails_by_name(instances: Instances) -> None:
    instances.create("one", backend_options={"model": "org/name:Q4_K_M"})
    answer = instances.do("one", "start", wait=PATIENCE)
    assert (answer.status_code, answer.get_json()["error"]) == (503, "start_failed")
    assert "org/name" in answer.get_json()["details"]


def test_a_file_that_is_no_model_fails_by_name_and_nothing_is_started(
    instances: Instances, tmp_path: Path
) -> None:
    wrong = tmp_path / "notes.gguf"
    wrong.write_text("This is a letter.")
    for model in (wrong, tmp_path):
        name = f"of-{model.name}"[:50]
        instances.create(name, backend_options={"model": str(model)})
        answer = instances.do(name, "start", wait=PATIENCE)
        assert (answer.status_code, answer.get_json()["error"]) == (503, "start_failed")
        assert str(model) in answer.get_json()["details"]
        failed = instances.get(name)
        assert (failed["status"], failed["pid"], failed["restarts"]) == ("failed", None, 0)
        assert str(model) in failed["error"]


def test_a_tilde_in_a_path_is_the_home_directory(
    instances: Instances, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path(model).parent))
    instances.create("one", backend_options={"model": f"~/{Path(model).name}"})
    assert instances.do("one", "start", wait=PATIENCE).get_json()["status"] == "running"


def test_a_line_that_fetches_a_cached_model_is_told_with_the_model_itself(
    client: FlaskClient, models: Models, hub: FakeHub
) -> None:
    def told(flags: str) -> object:
        body = {"command": f"llama-server {flags} -c 512"}
        answer = client.post("/api/v1/backends/llama-cpp/parse-command", json=body)
        return answer.get_json()["backend_options"]

    reference = "org/small-GGUF:Q4_K_M"
    assert told(f"-hf {reference}") == {"hf_repo": reference, "ctx_size": 512}
    hub.add_repo("org/small-GGUF", {"small-Q4_K_M.gguf": b"GGUF" + seeded_bytes(50_000, 1)})
    models.fetch(reference)
    assert told(f"-hf {reference}") == {"model": reference, "ctx_size": 512}
    assert told("-hf org/small-GGUF:Q8_0") == {"hf_repo": "org/small-GGUF:Q8_0", "ctx_size": 512}


def test_a_cached_model_is_started_by_its_reference_and_in_use_while_it_runs(
    instances: Instances, models: Models, hub: FakeHub
) -> None:
    hub.add_repo("org/small-GGUF", {"small-Q4_K_M.gguf": b"GGUF" + seeded_bytes(50_000, 1)})
    path = models.fetch("org/small-GGUF:Q4_K_M")["model_path"]
    instances.create("one", backend_options={"model": "org/small-GGUF:Q4_K_M"})
    instances.create("two", backend_options={"model": path})
    for name in ("one", "two"):
        assert instances.do(name, "start", wait=PATIENCE).get_json()["status"] == "running"
        answer = models.delete("org/small-GGUF")
        assert (answer.status_code, answer.get_json()["error"]) == (409, "model_in_use")
        assert name in answer.get_json()["details"]
        instances.do(name, "stop", wait=PATIENCE)
    assert models.delete("org/small-GGUF").status_code == 204
