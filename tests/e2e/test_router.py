"""Router mode through llamactl: what it downloaded is listed, loaded, answers and is unloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests

from tests.e2e.conftest import Make
from tests.e2e.processes import PATIENCE, LlamactlProcess, wait_for
from tests.fakes.fake_hub import FakeHub
from tests.fakes.gguf_files import tiny_gguf_bytes
from tests.requirements import require, require_module

REPO = "acme/Tiny-Chat-GGUF"
MODELS = "/backends/llama-cpp/models"


def download(server: LlamactlProcess, reference: str) -> None:
    job = server.api("POST", f"{MODELS}/download", json={"repo": reference}).json()["job_id"]
    path = f"{MODELS}/jobs/{job}"
    wait_for(reference, lambda: server.api("GET", path).json()["status"] == "completed")


def statuses(server: LlamactlProcess) -> dict[str, str]:
    listed = server.api("GET", "/llama-cpp/router/models").json()["data"]
    return {entry["id"]: entry["status"]["value"] for entry in listed}


def remove(server: LlamactlProcess, tag: str) -> requests.Response:
    return server.api("DELETE", MODELS, params={"repo": REPO, "tag": tag})


def chat(server: LlamactlProcess, model: str, key: str) -> requests.Response:
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 3,
    }
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{server.url}/v1/chat/completions"
    return requests.post(url, json=body, headers=headers, timeout=PATIENCE)


def test_a_router_serves_what_llamactl_downloaded(make_server: Make, tmp_path: Path) -> None:
    require_module("gguf")
    settings = {"backends.llama-cpp.command": require("llama-server")}
    quants = ("Q4_K_M", "Q8_0")
    with FakeHub() as hub:
        files = {
            f"Tiny-Chat-{quant}.gguf": tiny_gguf_bytes(seed=n) for n, quant in enumerate(quants)
        }
        hub.add_repo(REPO, files)
        server = make_server(settings, environment={"HF_ENDPOINT": hub.endpoint}).start()
        for quant in quants:
            download(server, f"{REPO}:{quant}")
        made = server.api("POST", "/instances/router", json={"backend_options": {"ctx_size": 512}})
        assert made.status_code == 201, made.text
        started = server.api("POST", "/instances/router/start", params={"wait": PATIENCE})
        assert started.status_code == 200, started.text
        small, large = (f"{REPO}:{quant}" for quant in quants)
        assert statuses(server) == {small: "unloaded", large: "unloaded"}

        loaded = server.api("POST", f"/llama-cpp/router/models/{small}/load")
        assert loaded.status_code == 200, loaded.text
        wait_for("loaded", lambda: statuses(server)[small] == "loaded")
        in_use = remove(server, "Q4_K_M")
        assert (in_use.status_code, in_use.json()["error"]) == (409, "model_in_use")
        assert "router" in in_use.json()["details"]

        key = server.api(
            "POST", "/auth/keys", json={"name": "k", "permission_mode": "allow_all"}
        ).json()["key"]
        for model in (small, large):
            answer = chat(server, f"router/{model}", key)
            assert answer.status_code == 200 and answer.json()["choices"], answer.text
        assert chat(server, f"router/{small}", "wrong-key").status_code == 401
        assert chat(server, "router/acme/none:Q1", key).status_code in {400, 404}

        for model in (small, large):
            unloaded = server.api("POST", f"/llama-cpp/router/models/{model}/unload")
            assert unloaded.status_code == 200, unloaded.text
        wait_for("unloaded", lambda: set(statuses(server).values()) == {"unloaded"})
        assert remove(server, "Q4_K_M").status_code == 204
        assert server.stop() == 0
    assert server.processes() == set()
