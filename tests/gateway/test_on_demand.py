"""Requests for instances that do not run yet, with the real supervisor in a real server."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.processes import PATIENCE, LlamactlProcess, wait_for
from tests.fakes.llama import FakeLlama
from tests.ports import instance_ports

CHAT = {"messages": [{"role": "user", "content": "hello"}], "fake": {"tokens": 2}}


@pytest.fixture
def fake(tmp_path: Path) -> FakeLlama:
    """A llama-server that takes a moment to load."""
    return FakeLlama(tmp_path / "fake", load=0.5)


@pytest.fixture
def server(tmp_path: Path, fake: FakeLlama) -> Iterator[LlamactlProcess]:
    running = LlamactlProcess(
        tmp_path / "server", {**fake.settings, "instances.port_range": instance_ports(22000, 22499)}
    )
    try:
        running.start()
        yield running
    finally:
        running.kill_everything()


def create(server: LlamactlProcess, fake: FakeLlama, name: str, **options: object) -> None:
    body = {"backend_type": "llama_cpp", "backend_options": {"model": str(fake.model)}, **options}
    answer = server.api("POST", f"/instances/{name}", json=body)
    assert answer.status_code == 201, answer.text


def ask(server: LlamactlProcess, model: str, **more: object) -> requests.Response:
    return requests.post(
        f"{server.url}/v1/chat/completions",
        json={"model": model, **CHAT, **more},
        headers=server.headers,
        timeout=PATIENCE,
    )


def instance(server: LlamactlProcess, name: str) -> Any:
    return server.api("GET", f"/instances/{name}").json()


def test_sixteen_first_requests_start_one_process(server: LlamactlProcess, fake: FakeLlama) -> None:
    create(server, fake, "one")
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(server, "one").status_code))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == [200] * 16
    assert len(fake.events("start")) == 1
    wait_for("every lease to be back", lambda: instance(server, "one")["in_flight"] == 0)


def test_a_first_client_that_leaves_does_not_take_the_start_with_it(
    server: LlamactlProcess, fake: FakeLlama
) -> None:
    create(server, fake, "one")
    with pytest.raises(requests.ReadTimeout):
        requests.post(
            f"{server.url}/v1/chat/completions",
            json={"model": "one", **CHAT},
            headers=server.headers,
            timeout=0.2,
        )
    assert ask(server, "one").status_code == 200
    assert len(fake.events("start")) == 1


def test_an_instance_that_does_not_start_on_demand_is_told_so(
    server: LlamactlProcess, fake: FakeLlama
) -> None:
    create(server, fake, "manual", on_demand_start=False)
    answer = ask(server, "manual")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "instance_not_running"
    assert fake.events("start") == []


def test_an_instance_that_cannot_start_tells_why(tmp_path: Path) -> None:
    broken = FakeLlama(tmp_path / "fake", fail="error: no such tensor")
    settings = {**broken.settings, "instances.port_range": instance_ports(22500, 22599)}
    server = LlamactlProcess(
        tmp_path / "server", {**settings, "instances.default_restart_delay": 0.1}
    )
    try:
        server.start()
        create(server, broken, "broken", max_restarts=0)
        answer = ask(server, "broken")
        assert answer.status_code == 503
        error = answer.json()["error"]
        assert error["code"] == "start_failed"
        assert "no such tensor" in error["message"]
    finally:
        server.kill_everything()


def test_a_killed_instance_ends_its_stream_and_comes_back_for_the_next(
    server: LlamactlProcess, fake: FakeLlama
) -> None:
    create(server, fake, "one", restart_delay=0.1)
    received, killed = b"", 0
    with requests.post(
        f"{server.url}/v1/chat/completions",
        json={"model": "one", **CHAT, "stream": True, "fake": {"tokens": 1000, "gap": 0.05}},
        headers=server.headers,
        stream=True,
        timeout=PATIENCE,
    ) as answer:
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            for piece in answer.iter_content(None):
                if not received:
                    killed = instance(server, "one")["pid"]
                    os.kill(killed, signal.SIGKILL)
                received += piece
    last = received.strip().split(b"\n")[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_gone"
    # The kernel takes connections for a process that is dying: such a request is a 503.
    wait_for("the end to be noticed", lambda: instance(server, "one")["pid"] != killed)
    assert ask(server, "one").status_code == 200
    assert len(fake.events("start")) == 2
    wait_for("every lease to be back", lambda: instance(server, "one")["in_flight"] == 0)


def test_who_gets_no_answer_from_a_killed_instance_is_told_why_and_when_to_ask_again(
    server: LlamactlProcess, fake: FakeLlama
) -> None:
    create(server, fake, "one", restart_delay=0.1)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, server, "one", fake={"prefill": 600})
        fake.wait_for("request")
        os.kill(instance(server, "one")["pid"], signal.SIGKILL)
        answer = asking.result(PATIENCE)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    error = answer.json()["error"]
    assert error["code"] == "instance_not_running"
    assert "The instance one ended before it answered: it was killed (SIGKILL)" in error["message"]
    assert ask(server, "one").status_code == 200


def test_a_server_that_is_stopped_twice_ends_its_streams_with_a_word(
    server: LlamactlProcess, fake: FakeLlama
) -> None:
    create(server, fake, "one")
    received = b""
    with requests.post(
        f"{server.url}/v1/chat/completions",
        json={"model": "one", **CHAT, "stream": True, "fake": {"tokens": 10_000, "gap": 0.05}},
        headers=server.headers,
        stream=True,
        timeout=PATIENCE,
    ) as answer:
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            for piece in answer.iter_content(None):
                if not received:
                    worker = server.worker
                    server.process.terminate()
                    wait_for("new requests to be refused", lambda: refused(server))
                    os.kill(worker, signal.SIGTERM)
                received += piece
    last = received.strip().split(b"\n")[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "shutting_down"
    assert server.process.wait(PATIENCE) == 0
    assert server.processes() == set()


def refused(server: LlamactlProcess) -> bool:
    """Whether the server lets nobody in any more, by a word or by taking no connection."""
    try:
        return ask(server, "one").status_code == 503
    except requests.ConnectionError:
        return True


def test_what_no_memory_of_this_machine_holds_is_told_with_the_figures(
    tmp_path: Path, fake: FakeLlama
) -> None:
    settings = {**fake.settings, "instances.port_range": instance_ports(22000, 22499)}
    server = LlamactlProcess(
        tmp_path / "server", {**settings, "instances.memory_admission": "enforce"}
    )
    huge = tmp_path / "huge.gguf"
    with huge.open("wb") as file:
        file.write(fake.model.read_bytes())
        file.truncate(2**42)  # a hole, which takes no disk
    try:
        server.start()
        create(server, fake, "huge", backend_options={"model": str(huge), "mmap": False})
        plan = server.api("GET", "/instances/huge/plan").json()
        assert (plan["needs"], plan["fits"], plan["starts"]) == (2**42, False, False)
        refused = server.api("POST", "/instances/huge/start")
        assert (refused.status_code, refused.json()["error"]) == (409, "insufficient_memory")
        asked = ask(server, "huge")
        assert asked.status_code == 503 and asked.headers["Retry-After"]
        for told in (plan["why"], refused.json()["details"], asked.json()["error"]["message"]):
            assert "It takes about 4.4 TB" in told
        assert not fake.events("start")
    finally:
        server.kill_everything()
