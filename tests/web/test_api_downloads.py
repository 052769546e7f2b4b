"""Downloads by REST, as docs/api.md tells it, over a real queue, hub and cache."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from llamactl.config import Config
from tests.fakes.fake_hub import FakeHub, seeded_bytes
from tests.web.conftest import PATIENCE, Q4, REPO, Models, with_key

BASES = ["/api/v1/backends/llama-cpp/models", "/api/v1/models"]


def test_a_download_answers_at_once_with_its_job(models: Models, repo: str) -> None:
    answer = models.download(f"{repo}:Q4_K_M")
    told = answer.get_json()
    assert answer.status_code == 202
    assert set(told) == {"job_id", "repo", "tag"}
    assert re.fullmatch(r"[0-9a-f]{16}", told["job_id"])
    assert (told["repo"], told["tag"]) == (REPO, "Q4_K_M")


def test_the_tag_is_latest_when_it_is_left_out(models: Models, repo: str) -> None:
    assert models.download(repo).get_json()["tag"] == "latest"
    assert models.download(f"{repo}:latest").get_json()["tag"] == "latest"


def test_a_completed_job_has_every_field_of_the_contract(
    models: Models, repo: str, web_config: Config
) -> None:
    before = time.time()
    job = models.fetch(f"{repo}:q4_k_m")
    assert set(job) == {
        "id", "kind", "repo", "tag", "status", "detail", "retry_at", "progress", "error",
        "error_code", "created_at", "completed_at", "model_path",
    }  # fmt: skip
    assert (job["kind"], job["repo"], job["status"]) == ("download", REPO, "completed")
    assert job["tag"].casefold() == "q4_k_m"
    assert (job["detail"], job["error"], job["error_code"]) == (None, None, None)
    assert before - 1 <= job["created_at"] <= job["completed_at"] <= time.time() + 1
    flat = web_config.llama_cpp.cache_dir / f"{REPO.replace('/', '_')}_{Q4}"
    assert job["model_path"] == str(flat)
    assert flat.read_bytes() == seeded_bytes(200_000, 1)
    progress = job["progress"]
    assert set(progress) == {
        "bytes_downloaded", "total_bytes", "current_file", "bytes_per_second", "eta_seconds",
        "files",
    }  # fmt: skip
    assert progress["bytes_downloaded"] == progress["total_bytes"] >= 200_000
    for file in progress["files"]:
        assert set(file) == {"name", "size", "bytes_downloaded", "status"}
    assert Q4 in [file["name"] for file in progress["files"]]


def test_the_total_is_known_and_the_bytes_grow_while_it_downloads(
    models: Models, slow: str
) -> None:
    job_id = models.download(slow).get_json()["job_id"]
    deadline = time.monotonic() + PATIENCE
    while not (job := models.job(job_id))["progress"]["bytes_downloaded"]:
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
    assert job["status"] == "downloading"
    assert job["progress"]["total_bytes"] == 4_000_000
    assert job["progress"]["current_file"] == "model-Q4_K_M.gguf"
    assert (job["model_path"], job["completed_at"]) == (None, None)


@pytest.mark.parametrize("base", BASES)
def test_what_has_ended_is_cleared(
    client: FlaskClient, models: Models, repo: str, slow: str, base: str
) -> None:
    models.fetch(f"{repo}:q4_k_m")
    going_on = models.download(slow).get_json()["job_id"]
    answer = client.delete(f"{base}/jobs")
    assert (answer.status_code, answer.get_json()) == (200, {"removed": 1, "kept": 0})
    jobs = client.get(f"{base}/jobs").get_json()["jobs"]
    assert [job["id"] for job in jobs] == [going_on]
    assert client.get(base).get_json() != []


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("base", BASES)
def test_each_route_has_two_addresses_with_and_without_a_slash(
    client: FlaskClient, models: Models, repo: str, base: str, slash: str
) -> None:
    job = models.fetch(f"{repo}:Q4_K_M")
    posted = client.post(f"{base}/download{slash}", json={"repo": f"{repo}:Q4_K_M"})
    assert posted.status_code == 202
    models.wait(posted.get_json()["job_id"], "completed")
    assert job["id"] in [one["id"] for one in client.get(f"{base}/jobs{slash}").get_json()["jobs"]]
    assert client.get(f"{base}/jobs/{job['id']}{slash}").get_json()["id"] == job["id"]
    assert len(client.get(f"{base}{slash}").get_json()) == 1
    assert client.delete(f"{base}/jobs/{job['id']}{slash}").status_code == 204
    assert client.delete(f"{base}{slash}", query_string={"repo": repo}).status_code == 204


def test_jobs_are_listed_newest_first(models: Models, repo: str, client: FlaskClient) -> None:
    first = models.fetch(f"{repo}:Q4_K_M")["id"]
    second = models.fetch(f"{repo}:Q8_0")["id"]
    listed = client.get(f"{models.base}/jobs").get_json()
    assert list(listed) == ["jobs"]
    assert [job["id"] for job in listed["jobs"]] == [second, first]


NO_MODELS: list[object] = [
    17, None, True, [REPO], {"org": "name"}, "", " ", "name", "/", "org/", "/name", "a/b/c",
    "../../x", "../x", "org/..", "org/.", "org/name:", "org/name:a:b", "org/name\n", "a/\nb",
    "org/name:tag\n", "org/na me", "org/name:../x", "org/name:/x", "org/name\x00", "org\\name",
    "-org/name", "https://huggingface.co/org/name", "x" * 10_000, "x/" + "y" * 10_000,
    f"org/name:{'t' * 10_000}", "org/näme", "org/name:\u202e",
]  # fmt: skip


def test_what_is_no_model_is_a_400_that_names_repo(models: Models, client: FlaskClient) -> None:
    for sent in NO_MODELS:
        answer = models.download(sent)
        told = answer.get_json()
        assert (answer.status_code, told["error"]) == (400, "invalid_request"), sent
        assert len(told["details"]) < 2000
    assert client.get(f"{models.base}/jobs").get_json() == {"jobs": []}


BODIES = [
    (b"", "application/json", 400),
    (b"repo", "application/json", 400),
    (b"{}", "application/json", 400),
    (b'{"repo": "a/b", "repo": "c/d"}', "application/json", 400),
    (b'{"repo": "a/b", "tag": "Q4"}', "application/json", 400),
    (b'{"model": "a/b"}', "application/json", 400),
    (b'{"repo": "a/b"}', "text/plain", 415),
    (b"repo=a/b", "application/x-www-form-urlencoded", 415),
    (b'{"repo": "' + b"x" * 2_000_000 + b'"}', "application/json", 413),
]


def test_a_body_that_does_not_fit_is_refused_with_a_sentence(
    models: Models, client: FlaskClient
) -> None:
    for raw, content_type, status in BODIES:
        answer = client.post(f"{models.base}/download", data=raw, content_type=content_type)
        assert (answer.status_code, answer.mimetype) == (status, "application/json"), raw[:50]
        assert set(answer.get_json()) == {"error", "details"}


def failed(models: Models, repo: str) -> Any:
    job = models.wait(models.download(repo).get_json()["job_id"], "failed", "completed")
    assert job["status"] == "failed"
    assert job["error"]
    assert job["completed_at"]
    return job


def test_a_repo_that_does_not_exist_fails_as_not_found(models: Models, repo: str) -> None:
    assert failed(models, "nobody/nothing-GGUF")["error_code"] == "not_found"


def test_a_private_repo_fails_and_tells_of_the_token(models: Models, hub: FakeHub) -> None:
    hub.add_repo("secret/model-GGUF", {"m-Q4_K_M.gguf": b"GGUF" * 100}, private=True)
    job = failed(models, "secret/model-GGUF")
    # Without a token the hub answers alike for what does not exist and what is private.
    assert job["error_code"] == "not_found"
    assert "HF_TOKEN" in job["error"]


def test_a_gated_repo_fails_and_tells_where_to_accept(models: Models, hub: FakeHub) -> None:
    hub.add_repo("meta/gated-GGUF", {"m-Q4_K_M.gguf": b"GGUF" * 100}, gated="manual")
    job = failed(models, "meta/gated-GGUF")
    assert job["error_code"] == "gated"
    assert "meta/gated-GGUF" in job["error"]


def test_a_tag_that_does_not_exist_fails_and_lists_those_that_do(models: Models, repo: str) -> None:
    job = failed(models, f"{repo}:Q5_K_S")
    assert job["error_code"] == "no_such_tag"
    assert "Q4_K_M" in job["error"]
    assert "Q8_0" in job["error"]


def test_two_posts_of_one_model_at_once_are_one_job(
    app: Flask, management_key: str, slow: str
) -> None:
    barrier = threading.Barrier(8)
    told: list[Any] = []

    def post() -> None:
        models = Models(with_key(app, management_key))
        barrier.wait()
        told.append(models.download(slow).get_json()["job_id"])

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 8
    assert len(set(told)) == 1


def test_a_tag_in_another_case_is_the_same_job(models: Models, slow: str) -> None:
    first = models.download(slow).get_json()["job_id"]
    assert models.download(slow.replace("Q4_K_M", "q4_k_m")).get_json()["job_id"] == first


def test_pause_resume_and_a_second_post_go_on_with_the_same_job(
    models: Models, client: FlaskClient, slow: str, hub: FakeHub
) -> None:
    job_id = models.download(slow).get_json()["job_id"]
    models.wait(job_id, "downloading")
    paused = client.post(f"{models.base}/jobs/{job_id}/pause")
    assert (paused.status_code, paused.get_json()["id"]) == (200, job_id)
    models.wait(job_id, "paused")
    resumed = client.post(f"{models.base}/jobs/{job_id}/resume")
    assert resumed.status_code == 200
    models.wait(job_id, "downloading")
    client.post(f"{models.base}/jobs/{job_id}/pause")
    models.wait(job_id, "paused")
    hub.throttle(None)
    assert models.download(slow).get_json()["job_id"] == job_id
    assert models.wait(job_id, "completed", "failed")["status"] == "completed"


def test_a_failed_job_can_be_tried_again(models: Models, client: FlaskClient, hub: FakeHub) -> None:
    job = failed(models, "late/model-GGUF")
    hub.add_repo("late/model-GGUF", {"m-Q4_K_M.gguf": b"GGUF" * 100})
    assert client.post(f"{models.base}/jobs/{job['id']}/retry").status_code == 200
    again = models.wait(job["id"], "completed")
    assert (again["error"], again["error_code"]) == (None, None)


def test_a_completed_job_cannot_go_on(models: Models, client: FlaskClient, repo: str) -> None:
    job = models.fetch(f"{repo}:Q4_K_M")
    for verb in ("pause", "resume", "retry"):
        answer = client.post(f"{models.base}/jobs/{job['id']}/{verb}")
        assert (answer.status_code, answer.get_json()["error"]) == (409, "invalid_state")


def test_delete_cancels_a_running_job_and_removes_its_partial_data(
    models: Models, client: FlaskClient, slow: str, web_config: Config
) -> None:
    job_id = models.download(slow).get_json()["job_id"]
    models.wait(job_id, "downloading")
    assert client.delete(f"{models.base}/jobs/{job_id}").status_code == 204
    assert models.wait(job_id, "cancelled")["completed_at"]
    assert not leftovers(web_config)


def test_delete_removes_a_finished_job_from_the_list(
    models: Models, client: FlaskClient, repo: str
) -> None:
    job = models.fetch(f"{repo}:Q4_K_M")
    assert client.delete(f"{models.base}/jobs/{job['id']}").status_code == 204
    assert client.get(f"{models.base}/jobs").get_json() == {"jobs": []}
    assert Path(job["model_path"]).exists()


def test_a_job_that_does_not_exist_is_a_404(client: FlaskClient, models: Models) -> None:
    for job_id in ("0" * 16, "nonsense", "..", "%00", "a%0A", "x" * 3000):
        for method, suffix in (
            ("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/retry")
        ):  # fmt: skip
            answer = client.open(f"{models.base}/jobs/{job_id}{suffix}", method=method)
            assert (answer.status_code, answer.get_json()["error"]) == (404, "job_not_found")


def test_limits_are_shown_and_changed_at_once(models: Models, client: FlaskClient) -> None:
    path = f"{models.base}/settings"
    configured = {"bandwidth_limit": None, "max_concurrent": 2}
    as_configured = {**configured, "changed": False, "configured": configured}
    assert client.get(path).get_json() == as_configured
    answer = client.put(path, json={"bandwidth_limit": 1_000_000})
    assert answer.get_json() == {
        "bandwidth_limit": 1_000_000,
        "max_concurrent": 2,
        "changed": True,
        "configured": configured,
    }
    client.put(path, json={"max_concurrent": 5})
    shown = client.get(path).get_json()
    assert (shown["bandwidth_limit"], shown["max_concurrent"]) == (1_000_000, 5)
    client.put(path, json={"bandwidth_limit": None})
    assert client.get(path).get_json()["bandwidth_limit"] is None
    assert client.delete(path).get_json() == as_configured
    assert client.get(path).get_json() == as_configured


def test_a_limit_that_is_none_changes_nothing(models: Models, client: FlaskClient) -> None:
    path = f"{models.base}/settings"
    for body in (
        {"bandwidth_limit": 0}, {"bandwidth_limit": -1}, {"bandwidth_limit": "1MB"},
        {"bandwidth_limit": 1e6}, {"max_concurrent": 0}, {"max_concurrent": 65},
        {"max_concurrent": None}, {"max_concurrent": True}, {"speed": 1},
    ):  # fmt: skip
        answer = client.put(path, json=body)
        assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_request"), body
    shown = client.get(path).get_json()
    assert (shown["bandwidth_limit"], shown["max_concurrent"]) == (None, 2)
    assert shown["changed"] is False


def leftovers(config: Config) -> list[Path]:
    """Partial files and their sidecars, in both caches."""
    roots = (config.llama_cpp.cache_dir, config.llama_cpp.hub_dir)
    return [path for root in roots for path in root.rglob("*incomplete*")]
