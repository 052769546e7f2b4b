"""With every place for inference taken, whoever looks after the server gets answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.e2e.processes import PATIENCE, LlamactlProcess, wait_for
from tests.fakes.llama import FakeLlama

PLACES = 8


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LlamactlProcess]:
    """A server with threads for eight streams, and one instance that takes its time."""
    fake = FakeLlama(tmp_path / "fake")
    running = LlamactlProcess(
        tmp_path / "server",
        {
            **fake.settings,
            "server.threads": PLACES + 16,
            "gateway.max_streams_per_key": PLACES - 2,
        },
    )
    try:
        running.start()
        options = {"backend_options": {"model": str(fake.model)}}
        assert running.api("POST", "/instances/one", json=options).status_code == 201
        yield running
    finally:
        running.kill_everything()


def stream(server: LlamactlProcess, key: str) -> requests.Response:
    return requests.post(
        f"{server.url}/v1/chat/completions",
        json={"model": "one", "stream": True, "fake": {"tokens": 100_000, "gap": 0.1}},
        headers={"Authorization": f"Bearer {key}"},
        stream=True,
        timeout=PATIENCE,
    )


def quickly(server: LlamactlProcess, method: str, path: str, body: object = None) -> int:
    """The status of an answer that waits for nobody: the streams go on for hours."""
    return requests.request(
        method, f"{server.url}{path}", headers=server.headers, timeout=PATIENCE, json=body
    ).status_code


def test_with_every_place_taken_the_rest_of_the_server_answers(server: LlamactlProcess) -> None:
    made = server.api("POST", "/auth/keys", json={"name": "greedy"}).json()
    with contextlib.ExitStack() as streams:
        first = [streams.enter_context(stream(server, made["key"])) for _ in range(PLACES - 2)]
        assert {answer.status_code for answer in first} == {200}
        one_more = streams.enter_context(stream(server, made["key"]))
        assert one_more.status_code == 429
        assert one_more.headers["X-Llamactl-Error"] == "too_many_requests"
        assert int(one_more.headers["Retry-After"]) >= 1
        others = [streams.enter_context(stream(server, server.key)) for _ in range(2)]
        assert {answer.status_code for answer in others} == {200}
        assert streams.enter_context(stream(server, server.key)).status_code == 429
        for path in ("/healthz", "/login", "/metrics", "/api/v1/instances", "/api/v1/activity"):
            assert quickly(server, "GET", path) == 200
        assert quickly(server, "PUT", "/api/v1/models/settings", {"max_concurrent": 3}) == 200
        assert quickly(server, "POST", "/api/v1/instances/one/stop") == 200
    wait_for(
        "every lease to be back",
        lambda: server.api("GET", "/instances/one").json()["in_flight"] == 0,
    )
