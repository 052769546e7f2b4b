"""From a model's name to an answer, on real parts: hub clients, llama.cpp, the openai client."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from huggingface_hub import scan_cache_dir

from tests.e2e.conftest import Make
from tests.e2e.processes import PATIENCE, LlamactlProcess, wait_for
from tests.fakes.fake_hub import FakeHub
from tests.fakes.gguf_files import tiny_gguf, tiny_gguf_bytes
from tests.ports import free_port
from tests.requirements import require, require_module

REPO = "acme/Tiny-Chat-GGUF"
MODELS = "/backends/llama-cpp/models"
PROMPT: Any = [{"role": "user", "content": "Say something."}]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    """A hub with one small model that really runs, in two quants, one of them in shards."""
    shards = tiny_gguf(tmp_path / "made/Tiny-Chat-F16.gguf", shards=3, name="shards")
    with FakeHub() as hub:
        hub.add_repo(
            REPO,
            {
                "Tiny-Chat-Q4_K_M.gguf": tiny_gguf_bytes(seed=1),
                **{f"F16/{shard.name}": shard for shard in shards},
                "README.md": b"# Tiny\n",
            },
        )
        yield hub


def backend(kind: str) -> dict[str, object]:
    """The settings that choose this llama.cpp, if it is there."""
    if kind == "embedded":
        require_module("xllamacpp")
        return {}
    return {"backends.llama-cpp.command": require("llama-server")}


def download(server: LlamactlProcess, reference: str) -> Path:
    """Download a model through the REST interface; the path that the job names."""
    accepted = server.api("POST", f"{MODELS}/download", json={"repo": reference})
    assert accepted.status_code == 202, accepted.text
    path = f"{MODELS}/jobs/{accepted.json()['job_id']}"

    def ended() -> Any:
        job = server.api("GET", path).json()
        return None if job["status"] in {"queued", "downloading"} else job

    job = wait_for(f"the download of {reference}", ended)
    assert job["status"] == "completed", job
    return Path(job["model_path"])


def create(server: LlamactlProcess, name: str, model: str) -> None:
    body = {"backend_type": "llama_cpp", "backend_options": {"model": model, "ctx_size": 512}}
    answer = server.api("POST", f"/instances/{name}", json=body)
    assert answer.status_code == 201, answer.text


@contextlib.contextmanager
def client(server: LlamactlProcess, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=key, timeout=PATIENCE, max_retries=0
    ) as made:
        yield made


def streamed(api: openai.OpenAI, model: str) -> str:
    """A chat's answer, put together from its events."""
    with api.chat.completions.create(
        model=model, messages=PROMPT, max_tokens=12, stream=True
    ) as stream:
        return "".join(choice.delta.content or "" for event in stream for choice in event.choices)


@pytest.mark.parametrize("kind", ["embedded", "llama-server"])
def test_a_models_name_becomes_an_answer(make_server: Make, hub: FakeHub, kind: str) -> None:
    server = make_server(backend(kind), environment={"HF_ENDPOINT": hub.endpoint}).start()
    path = download(server, f"{REPO}:q4_k_m")
    assert path.read_bytes() == tiny_gguf_bytes(seed=1)
    assert path.name == "acme_Tiny-Chat-GGUF_Tiny-Chat-Q4_K_M.gguf"

    create(server, "by-path", str(path))
    create(server, "by-reference", f"{REPO}:Q4_K_M")
    made = server.api("POST", "/auth/keys", json={"name": "test", "permission_mode": "allow_all"})
    assert made.status_code == 201, made.text
    for key in (server.key, made.json()["key"]):
        with client(server, key) as api:
            assert {model.id for model in api.models.list()} == {"by-path", "by-reference"}
            assert streamed(api, "by-path")
            assert streamed(api, "by-reference")
            whole = api.completions.create(model="by-path", prompt="Once", max_tokens=8)
            assert whole.choices[0].text
    assert server.stop() == 0
    assert server.processes() == set()


def test_a_split_model_in_a_folder_runs_by_its_reference(make_server: Make, hub: FakeHub) -> None:
    server = make_server(backend("embedded"), environment={"HF_ENDPOINT": hub.endpoint}).start()
    path = download(server, f"{REPO}:F16")
    assert path.name == "acme_Tiny-Chat-GGUF_F16_Tiny-Chat-F16-00001-of-00003.gguf"
    create(server, "split", f"{REPO}:F16")
    with client(server, server.key) as api:
        assert streamed(api, "split")


def test_the_cache_is_the_one_that_hf_makes_and_has_one_copy_of_the_bytes(
    make_server: Make, hub: FakeHub, tmp_path: Path
) -> None:
    server = make_server(environment={"HF_ENDPOINT": hub.endpoint}).start()
    flat = download(server, f"{REPO}:Q4_K_M")
    (repo,) = scan_cache_dir(server.hub_dir).repos
    assert (repo.repo_id, repo.nb_files) == (REPO, 1)
    (revision,) = repo.revisions
    (file,) = revision.files
    assert revision.refs == {"main"}
    assert file.file_name == "Tiny-Chat-Q4_K_M.gguf"
    assert file.blob_path.stat().st_ino == flat.stat().st_ino

    theirs = tmp_path / "theirs"
    subprocess.run(
        (require("hf"), "download", REPO, file.file_name, "--cache-dir", str(theirs), "--quiet"),
        env={
            **os.environ,
            "HF_ENDPOINT": hub.endpoint,
            "HOME": str(tmp_path),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        },
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert tree(server.hub_dir) == tree(theirs)


def tree(root: Path) -> dict[str, bytes | str]:
    """Models' files and links below a Hub cache, without the bookkeeping of ``hf`` itself."""
    found: dict[str, bytes | str] = {}
    for repo in root.glob("models--*"):
        for path in repo.rglob("*"):
            name = str(path.relative_to(root))
            if path.is_symlink():
                found[name] = str(path.readlink())
            elif path.is_file():
                found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("tag", ["Q4_K_M", "F16"])
def test_a_real_llama_server_finds_it_offline_by_the_same_name(
    make_server: Make, hub: FakeHub, tmp_path: Path, tag: str
) -> None:
    program = require("llama-server")
    server = make_server(environment={"HF_ENDPOINT": hub.endpoint}).start()
    download(server, f"{REPO}:{tag}")
    assert server.stop() == 0
    port = free_port()
    log = tmp_path / "llama.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            (program, "-hf", f"{REPO}:{tag}", "--offline", "--port", str(port), "-c", "256"),
            env={
                **os.environ,
                "HOME": str(tmp_path),
                "HF_HUB_CACHE": str(server.hub_dir),
                "HF_ENDPOINT": "http://127.0.0.1:9",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:

        def healthy() -> bool:
            assert process.poll() is None, log.read_text(errors="replace")
            with contextlib.suppress(requests.RequestException):
                return requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
            return False

        wait_for("llama-server to be ready", healthy)
        answer = requests.post(
            f"http://127.0.0.1:{port}/completion",
            json={"prompt": "Once", "n_predict": 4},
            timeout=PATIENCE,
        )
        assert answer.json()["content"]
    finally:
        process.terminate()
        process.wait(PATIENCE)
