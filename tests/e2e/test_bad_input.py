"""What people get wrong, against a running server: each ends in a sentence that says what to do."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Make
from tests.e2e.processes import PATIENCE, LlamactlProcess, wait_for
from tests.fakes.fake_hub import FakeHub
from tests.fakes.gguf_files import tiny_gguf_bytes
from tests.requirements import require_module

MODELS = "/backends/llama-cpp/models"
LARGE = random.Random(3).randbytes(8 << 20)


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    files = {"m-Q4_K_M.gguf": tiny_gguf_bytes(), "m-Q8_0.gguf": tiny_gguf_bytes(seed=2)}
    with FakeHub() as hub:
        hub.add_repo("org/open", files)
        hub.add_repo("org/private", files, private=True)
        hub.add_repo("org/gated", files, gated=True)
        hub.add_repo("org/large", {"m-Q4_K_M.gguf": LARGE})
        yield hub


@pytest.fixture(scope="module")
def server(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamactlProcess]:
    server = LlamactlProcess(
        tmp_path_factory.mktemp("bad-input"),
        {"downloads.retry_limit": 0, "instances.default_max_restarts": 0},
        environment={"HF_ENDPOINT": hub.endpoint},
    )
    try:
        yield server.start()
    finally:
        server.kill_everything()


def ended(server: LlamactlProcess, job_id: str) -> Any:
    """The job once it is done."""

    def probe() -> Any:
        job = server.api("GET", f"{MODELS}/jobs/{job_id}").json()
        return None if job["status"] in {"queued", "downloading"} else job

    return wait_for("the end of the job", probe)


def download(server: LlamactlProcess, reference: str) -> Any:
    answer = server.api("POST", f"{MODELS}/download", json={"repo": reference})
    assert answer.status_code == 202, answer.text
    return ended(server, answer.json()["job_id"])


@pytest.mark.parametrize(
    ("reference", "code", "told"),
    [
        ("org/none", "not_found", "HF_TOKEN"),
        ("org/private", "not_found", "HF_TOKEN"),
        ("org/gated", "gated", "licence"),
        ("org/open:Q2_K", "no_such_tag", "Q8_0"),
    ],
)
def test_a_download_that_cannot_be_has_a_code_and_a_remedy(
    server: LlamactlProcess, reference: str, code: str, told: str
) -> None:
    job = download(server, reference)
    assert (job["status"], job["error_code"]) == ("failed", code)
    assert told in job["error"]


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"repo": 7}', b'{"repo": null}', b"not json", b"[]", b'{"repo": "a/b", "x": 1}', b""],
    ids=repr,
)
def test_a_body_that_is_not_the_documented_one_is_a_400(
    server: LlamactlProcess, body: bytes
) -> None:
    answer = requests.post(
        f"{server.url}/api/v1{MODELS}/download",
        data=body,
        headers={**server.headers, "Content-Type": "application/json"},
        timeout=PATIENCE,
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert answer.json()["details"]


def test_two_posts_of_one_model_at_once_are_one_job_and_one_transfer(
    server: LlamactlProcess, hub: FakeHub
) -> None:
    hub.clear_log()
    barrier = threading.Barrier(4)
    job_ids: list[str] = []

    def post(reference: str) -> None:
        barrier.wait(PATIENCE)
        answer = server.api("POST", f"{MODELS}/download", json={"repo": reference})
        job_ids.append(answer.json()["job_id"])

    spellings = ("org/large:Q4_K_M", "org/large:q4_k_m") * 2
    threads = [threading.Thread(target=post, args=(spelling,)) for spelling in spellings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(set(job_ids)) == 1
    assert ended(server, job_ids[0])["status"] == "completed"
    assert hub.bytes_sent("cdn") == len(LARGE)


def test_a_model_that_downloads_cannot_be_deleted(server: LlamactlProcess, hub: FakeHub) -> None:
    hub.push("org/large", {"m-Q8_0.gguf": LARGE[::-1]})
    hub.throttle(16 << 10)
    accepted = server.api("POST", f"{MODELS}/download", json={"repo": "org/large:Q8_0"}).json()
    answer = server.api("DELETE", MODELS, params={"repo": "org/large", "tag": "Q8_0"})
    assert (answer.status_code, answer.json()["error"]) == (409, "model_in_use")
    job = f"{MODELS}/jobs/{accepted['job_id']}"
    assert server.api("DELETE", job).status_code == 204
    wait_for("the cancellation", lambda: server.api("GET", job).json()["status"] == "cancelled")
    hub.throttle(None)
    wait_for("its bytes to go", lambda: not list(server.folder.rglob("*.incomplete*")))


@pytest.mark.parametrize(
    "content", [None, b"this is no model", b"GGUF"], ids=["none", "text", "cut"]
)
def test_a_model_that_cannot_be_loaded_is_told_with_its_path(
    server: LlamactlProcess, content: bytes | None
) -> None:
    require_module("xllamacpp")
    path = server.folder / "broken.gguf"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    body = {"backend_type": "llama_cpp", "backend_options": {"model": str(path)}}
    created = server.api("POST", "/instances/broken", json=body)
    try:
        if created.status_code == 201:
            answer = server.api("POST", "/instances/broken/start", params={"wait": PATIENCE})
            assert (answer.status_code, answer.json()["error"]) == (503, "start_failed")
        else:
            answer = created
            assert answer.status_code == 400
        assert "broken.gguf" in answer.json()["details"]
    finally:
        server.api("POST", "/instances/broken/stop", params={"wait": PATIENCE})
        server.api("DELETE", "/instances/broken")


def test_a_hub_that_is_not_reached_fails_the_job_with_the_reason(make_server: Make) -> None:
    server = make_server({"downloads.retry_limit": 0}).start()
    job = download(server, "org/name")
    assert (job["status"], job["error_code"]) == ("failed", "network")
    assert "127.0.0.1" in job["error"]
    assert job["error"].endswith(".")


def test_a_cache_that_is_no_directory_fails_the_job_with_its_path(
    make_server: Make, hub: FakeHub
) -> None:
    server = make_server({"downloads.retry_limit": 0}, environment={"HF_ENDPOINT": hub.endpoint})
    server.flat.write_text("a file where the directory would be")
    server.start()
    job = download(server, "org/open:Q8_0")
    assert (job["status"], job["error_code"]) == ("failed", "cache_not_writable")
    assert str(server.flat) in job["error"]
    assert server.api("GET", MODELS).json() == []
    server.flat.unlink()
    assert server.api("POST", f"{MODELS}/jobs/{job['id']}/retry").status_code == 200
    assert ended(server, job["id"])["status"] == "completed"
    assert Path(ended(server, job["id"])["model_path"]).is_file()
