"""The curl calls of the documentation, one by one, typed into a shell against a running server.

Only the address, the key and the repository differ from what the page shows.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.processes import PATIENCE, LlamactlProcess, wait_for
from tests.fakes.fake_hub import FakeHub
from tests.fakes.gguf_files import tiny_gguf_bytes
from tests.requirements import require

REPO = "bartowski/Llama-3.2-3B-Instruct-GGUF"
FILE = "model-Q4_K_M.gguf"
FLAT = "bartowski_Llama-3.2-3B-Instruct-GGUF_model-Q4_K_M.gguf"

DOWNLOAD = """\
curl -X POST http://localhost:8080/api/v1/backends/llama-cpp/models/download \\
  -H "Content-Type: application/json" \\
  -H "Authorization: Bearer YOUR_MANAGEMENT_KEY" \\
  -d '{
    "repo": "bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M"
  }'
"""
LIST = """\
curl http://localhost:8080/api/v1/backends/llama-cpp/models \\
  -H "Authorization: Bearer YOUR_MANAGEMENT_KEY"
"""
DELETE = """\
curl -X DELETE "http://localhost:8080/api/v1/backends/llama-cpp/models?repo=bartowski/Llama-3.2-3B-Instruct-GGUF&tag=Q4_K_M" \\
  -H "Authorization: Bearer YOUR_MANAGEMENT_KEY"
"""  # noqa: E501  # a call as people copy it
CREATE_ON_PATH = """\
curl -X POST http://localhost:8080/api/v1/instances/my-llama-instance \\
  -H "Content-Type: application/json" \\
  -H "Authorization: Bearer YOUR_MANAGEMENT_KEY" \\
  -d '{
    "backend_type": "llama_cpp",
    "backend_options": {
      "model": "~/.cache/llama.cpp/bartowski_Llama-3.2-3B-Instruct-GGUF_model-Q4_K_M.gguf"
    }
  }'
"""
CREATE_FROM_HUB = """\
curl -X POST http://localhost:8080/api/v1/instances/my-llama-instance \\
  -H "Content-Type: application/json" \\
  -H "Authorization: Bearer YOUR_MANAGEMENT_KEY" \\
  -d '{
    "backend_type": "llama_cpp",
    "backend_options": {
      "hf_repo": "bartowski/Llama-3.2-3B-Instruct-GGUF",
      "hf_file": "model-Q4_K_M.gguf"
    }
  }'
"""


class Shell(NamedTuple):
    """Types a documented call; gives the status and the body."""

    server: LlamactlProcess

    def __call__(self, call: str) -> tuple[int, Any]:
        require("curl")
        address = self.server.url.replace("127.0.0.1", "localhost")
        line = call.strip().replace("http://localhost:8080", address)
        line = line.replace("YOUR_MANAGEMENT_KEY", self.server.key)
        line = re.sub(r"^curl ", r"curl --silent --show-error -w '\\n%{http_code}' ", line)
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body) if body else None

    def download(self) -> Any:
        """The documented download, waited for; the finished job."""
        status, accepted = self(DOWNLOAD)
        assert status == 202
        path = f"/backends/llama-cpp/models/jobs/{accepted['job_id']}"
        return wait_for(
            "the end of the download",
            lambda: next(
                (
                    job
                    for job in [self.server.api("GET", path).json()]
                    if job["status"] not in {"queued", "downloading"}
                ),
                None,
            ),
        )


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A server with its caches where the documentation says that they are."""
    folder = tmp_path_factory.mktemp("documented")
    with FakeHub() as hub:
        hub.add_repo(REPO, {FILE: tiny_gguf_bytes(name="documented"), "README.md": b"# Llama\n"})
        server = LlamactlProcess(
            folder,
            {
                "backends.llama-cpp.cache_dir": "~/.cache/llama.cpp",
                "backends.llama-cpp.hub_dir": "~/.cache/huggingface/hub",
            },
            environment={"HF_ENDPOINT": hub.endpoint},
        )
        try:
            server.start()
            yield Shell(server)
        finally:
            server.kill_everything()


@pytest.fixture(autouse=True)
def empty(shell: Shell) -> None:
    """Nothing that another test left behind."""
    api = shell.server.api
    for job in api("GET", "/models/jobs").json()["jobs"]:
        api("DELETE", f"/models/jobs/{job['id']}")
    for instance in api("GET", "/instances").json():
        api("POST", f"/instances/{instance['name']}/stop", params={"wait": PATIENCE})
        assert api("DELETE", f"/instances/{instance['name']}").status_code == 204
    for model in api("GET", "/models").json():
        answer = api("DELETE", "/models", params={"repo": model["repo"], "tag": model["tag"]})
        assert answer.status_code == 204


def test_the_download_call_answers_with_the_job_the_repo_and_the_tag(shell: Shell) -> None:
    status, answer = shell(DOWNLOAD)
    assert status == 202
    assert answer == {"job_id": answer["job_id"], "repo": REPO, "tag": "Q4_K_M"}
    assert re.fullmatch(r"[0-9a-f]{16}", answer["job_id"])
    assert shell.download()["id"]


def test_the_list_call_shows_what_was_downloaded(shell: Shell) -> None:
    assert shell.download()["status"] == "completed"
    status, models = shell(LIST)
    assert status == 200
    (model,) = models
    size = len(tiny_gguf_bytes(name="documented"))
    assert (model["repo"], model["tag"]) == (REPO, "Q4_K_M")
    assert (model["total_size"], model["file_count"]) == (size, 1)
    (file,) = model["files"]
    assert (file["name"], file["size"]) == (FILE, size)
    assert isinstance(file["modified"], int)
    assert file["path"] == str(shell.server.folder / ".cache/llama.cpp" / FLAT)


def test_the_delete_call_removes_every_file_of_the_model(shell: Shell) -> None:
    path = Path(shell.download()["model_path"])
    assert path.is_file()
    assert shell(DELETE) == (204, None)
    assert shell(LIST) == (200, [])
    assert not path.exists()
    assert not list(shell.server.folder.glob(".cache/huggingface/hub/models--*/blobs/*"))
    status, answer = shell(DELETE)
    assert (status, answer["error"]) == (404, "model_not_found")


def test_the_instance_call_takes_the_path_with_a_tilde(shell: Shell) -> None:
    shell.download()
    status, instance = shell(CREATE_ON_PATH)
    assert status == 201
    assert (instance["name"], instance["status"]) == ("my-llama-instance", "stopped")
    status, answer = shell(CREATE_ON_PATH)
    assert (status, answer["error"]) == (409, "instance_exists")
    started = shell.server.api(
        "POST", "/instances/my-llama-instance/start", params={"wait": PATIENCE}
    )
    assert (started.status_code, started.json()["status"]) == (200, "running")
    status, answer = shell(DELETE)
    assert (status, answer["error"]) == (409, "model_in_use")


def test_the_instance_call_takes_a_repo_and_a_file_of_the_hub(shell: Shell) -> None:
    status, instance = shell(CREATE_FROM_HUB)
    assert status == 201
    options = instance["options"]["backend_options"]
    assert (options["hf_repo"], options["hf_file"]) == (REPO, FILE)


@pytest.mark.parametrize(
    ("repo", "status", "code"),
    [
        ("bartowski/Llama-3.2-3B-Instruct-GGUF", 202, None),
        ("bartowski/Llama-3.2-3B-Instruct-GGUF:latest", 202, None),
        ("../../x", 400, "invalid_request"),
        ("bartowski", 400, "invalid_request"),
        ("a/" + "b" * 10_000, 400, "invalid_request"),
        ("a/b\\nc", 400, "invalid_request"),
    ],
)
def test_the_model_format_is_the_documented_one(
    shell: Shell, repo: str, status: int, code: str | None
) -> None:
    call = DOWNLOAD.replace(f"{REPO}:Q4_K_M", repo)
    got, answer = shell(call)
    assert got == status
    if code:
        assert answer["error"] == code
        assert answer["details"]
    else:
        assert answer["tag"] == "latest"


def test_a_wrong_key_opens_nothing(shell: Shell) -> None:
    for call in (DOWNLOAD, LIST, DELETE, CREATE_ON_PATH):
        status, answer = shell(call.replace("YOUR_MANAGEMENT_KEY", "x" * 40))
        assert (status, answer["error"]) == (401, "invalid_key")


def test_a_private_model_wants_the_token_and_says_how_to_set_it(shell: Shell) -> None:
    status, accepted = shell(DOWNLOAD.replace(REPO, "someone/private-GGUF"))
    assert status == 202
    path = f"/backends/llama-cpp/models/jobs/{accepted['job_id']}"

    def failed() -> Any:
        job = shell.server.api("GET", path).json()
        return job if job["status"] == "failed" else None

    job = wait_for("the failure", failed)
    assert job["error_code"] in {"not_found", "unauthorized"}
    assert "HF_TOKEN" in job["error"]
