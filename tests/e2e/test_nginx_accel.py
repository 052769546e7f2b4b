"""nginx carries the answers, llamactl decides: a real nginx with the shipped configuration."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.processes import PATIENCE, LlamactlProcess, wait_for
from tests.e2e.test_nginx import DEPLOY, NAME, Front, Nginx, certificate
from tests.fakes.llama import FakeLlama
from tests.ports import free_port

MESSAGES = [{"role": "user", "content": "Hello"}]


class Accelerated(Front):
    """A way to the server through an nginx that carries answers."""

    def __init__(self, nginx: Nginx, *parts: Any) -> None:
        super().__init__(*parts)
        self.nginx = nginx


@contextlib.contextmanager
def accelerated(base: Path) -> Iterator[Accelerated]:
    """The shipped configuration in front of a server whose llama.cpp is a scripted one."""
    llama = FakeLlama(base)
    settings = {
        **llama.settings,
        "server.port": free_port(),
        "server.accel": "nginx",
        "server.allowed_hosts": [NAME],
        "server.allowed_origins": ["https://chat.example"],
        "server.trusted_proxies": ["127.0.0.1"],
        "gateway.max_streams_per_key": 2,
    }
    folder = base / "nginx"
    folder.mkdir()
    certificate(folder)
    plain, tls = free_port(), free_port()
    server = LlamactlProcess(base / "server", settings)
    try:
        server.start()
        sites = (DEPLOY / "nginx-accel.conf").read_text()
        for shipped, ours in (
            ("127.0.0.1:8080", server.url.removeprefix("http://")),
            ("listen 80;", f"listen 127.0.0.1:{plain};"),
            ("listen 443 ssl;", f"listen 127.0.0.1:{tls} ssl;"),
            (f"/etc/ssl/{NAME}", str(folder)),
            ("/var/lib/llamactl", str(server.data_dir)),
            ("/var/log/nginx", str(folder)),
        ):
            assert shipped in sites
            sites = sites.replace(shipped, ours)
        with Nginx(folder, tls, sites) as nginx:
            front = Accelerated(nginx, server, llama, folder, plain, tls)
            front.instance("chat")
            yield front
    finally:
        server.kill_everything()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accelerated]:
    """One for all tests that leave it as it was."""
    with accelerated(tmp_path_factory.mktemp("front")) as made:
        yield made


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Accelerated]:
    """One of which something will be killed."""
    with accelerated(tmp_path) as made:
        yield made


def activity(front: Accelerated) -> Any:
    return front.server.api("GET", "/activity").json()["requests"]


def in_flight(front: Accelerated) -> int:
    held: int = front.server.api("GET", "/instances/chat").json()["in_flight"]
    return held


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        chunk = connection.recv(65536)
        assert chunk, seen
        seen += chunk
    return seen


def test_an_answer_comes_from_the_instance_through_nginx_alone(front: Accelerated) -> None:
    words = '[{"role": "user", "content": "grüße \\u00e9 12345678901234567890"}]'
    body = '{"messages": ' + words + ',  "model": "chat", "stream": true}'
    answer = front.ask("/v1/chat/completions", body.encode())
    head, _, payload = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200")
    assert "text/event-stream" in head
    assert "data: [DONE]" in payload
    request = front.llama.events("request")[-1]
    assert request["body"] == body
    assert request["path"] == "/v1/chat/completions"
    sent = {name.lower(): value for name, value in request["headers"]}
    assert sent["content-type"] == "application/json"
    assert sent["accept-encoding"] == "identity"
    assert front.server.key not in json.dumps(request)
    assert not {"cookie", "x-api-key", "x-llamactl-accel", "x-forwarded-for"} & set(sent)
    wait_for("the end to be told", lambda: in_flight(front) == 0)
    entry = activity(front)[0]
    assert (entry["carrier"], entry["status"], entry["instance"]) == ("nginx", "200", "chat")
    assert 0 < entry["first_byte_seconds"] <= entry["seconds"]


def test_no_header_tells_the_client_how_an_instance_is_reached(front: Accelerated) -> None:
    body = json.dumps({"model": "chat", "messages": MESSAGES}).encode()
    head = front.ask("/v1/chat/completions", body).partition("\r\n\r\n")[0].lower()
    assert "content-security-policy: sandbox" in head
    for name in ("x-accel", "x-llamactl", "authorization", "access-control", "set-cookie"):
        assert name not in head, head
    headers = {
        "Content_Type": "application/json",
        "Authorization": f"Bearer {front.server.key}",
        "Origin": "https://chat.example",
        "Connection": "close",
    }
    with front.send("POST", "/v1/chat/completions", body, **headers) as connection:
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode().lower()
    assert answer.count("access-control-allow-origin: https://chat.example") == 1


def test_each_event_of_a_carried_stream_leaves_as_it_comes(front: Accelerated) -> None:
    # The second event is ten minutes away: whatever holds the first one back holds it for ever.
    with front.chat(tokens=2, gap=600) as connection:
        read_until(connection, b"word0")
        wait_for("no other request", lambda: in_flight(front) == 1)
        entry = activity(front)[0]
        assert (entry["carrier"], entry["status"]) == ("nginx", "running")


@pytest.mark.parametrize("shape", [{"prefill": 600}, {"tokens": 10_000, "gap": 0.05}], ids=str)
def test_a_client_that_leaves_ends_the_generation_and_gives_the_lease_back(
    front: Accelerated, shape: dict[str, float]
) -> None:
    asked, aborts = (len(front.llama.events(kind)) for kind in ("request", "abort"))
    connection = front.chat(**shape)
    wait_for("the request", lambda: len(front.llama.events("request")) > asked)
    if "tokens" in shape:
        read_until(connection, b"word0")
    connection.close()
    wait_for("the abort", lambda: len(front.llama.events("abort")) > aborts)
    wait_for("the lease", lambda: in_flight(front) == 0)
    expected = "cut_short" if "tokens" in shape else "client_gone"
    assert activity(front)[0]["status"] == expected


def test_keys_and_limits_hold(front: Accelerated) -> None:
    wrong = json.dumps({"model": "chat", "messages": MESSAGES}).encode()
    headers = {"Content_Type": "application/json", "Authorization": "Bearer wrong"}
    with front.send("POST", "/v1/chat/completions", wrong, **headers) as connection:
        assert b" 401 " in read_until(connection, b"\r\n\r\n")
    made = front.server.api("POST", "/auth/keys", json={"name": "one"}).json()
    headers["Authorization"] = f"Bearer {made['key']}"
    endless = {"model": "chat", "stream": True, "messages": MESSAGES, "fake": {"gap": 600}}
    asked = [
        front.send("POST", "/v1/chat/completions", json.dumps(endless).encode(), **headers)
        for _ in range(2)
    ]
    for connection in asked:
        read_until(connection, b"word0")
    with front.send("POST", "/v1/chat/completions", wrong, **headers) as connection:
        refused = read_until(connection, b"}")
    assert b" 429 " in refused
    assert b"too_many_requests" in refused
    for connection in asked:
        connection.close()
    wait_for("both places", lambda: in_flight(front) == 0)
    with front.send("POST", "/v1/chat/completions", wrong, **headers) as connection:
        assert b" 200 " in read_until(connection, b"\r\n\r\n")
    wait_for("the count", lambda: key_requests(front, made["id"]) >= 3)


def key_requests(front: Accelerated, key_id: int) -> int:
    counted: int = front.server.api("GET", f"/auth/keys/{key_id}").json()["requests"]
    return counted


def test_a_stopped_instance_is_started_and_a_renamed_model_is_carried_here(
    front: Accelerated,
) -> None:
    front.server.api("POST", "/instances/chat/stop", params={"wait": PATIENCE})
    body = json.dumps({"model": "chat", "messages": MESSAGES}).encode()
    assert front.ask("/v1/chat/completions", body).startswith("HTTP/1.1 200")
    inner = json.dumps({"model": "chat/inner", "messages": MESSAGES}).encode()
    assert front.ask("/v1/chat/completions", inner).startswith("HTTP/1.1 200")
    assert '"model": "inner"' in front.llama.events("request")[-1]["body"]
    wait_for("both to end", lambda: in_flight(front) == 0)
    assert [each["carrier"] for each in activity(front)[:2]] == ["llamactl", "nginx"]


def test_without_the_proof_nobody_is_told_an_instances_key(front: Accelerated) -> None:
    for proof in ({}, {"X-Llamactl-Accel": "0" * 64}):
        answer = requests.post(
            f"{front.server.url}/v1/chat/completions",
            json={"model": "chat", "messages": MESSAGES},
            headers={**front.server.headers, **proof},
            timeout=PATIENCE,
        )
        assert (answer.status_code, answer.json()["object"]) == (200, "chat.completion")
        assert not [name for name in answer.headers if name.lower().startswith("x-")][1:]
    proof_file = front.server.data_dir / "nginx-proof.conf"
    assert proof_file.stat().st_mode & 0o777 == 0o600


def test_an_instance_that_died_is_told_in_the_form_of_clients(doomed: Accelerated) -> None:
    with doomed.chat(prefill=600) as connection:
        wait_for("the request", lambda: doomed.llama.events("request"))
        os.kill(doomed.server.api("GET", "/instances/chat").json()["pid"], signal.SIGKILL)
        answer = read_until(connection, b"}}")
    assert b" 502 " in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "upstream_gone"
    wait_for("the end to be told", lambda: activity(doomed)[0]["status"] == "502")


def test_what_nginx_never_said_is_given_back_all_the_same(doomed: Accelerated) -> None:
    with doomed.chat(tokens=2, gap=600) as connection:
        read_until(connection, b"word0")
        assert in_flight(doomed) == 1
        # A kill lets nginx write nothing any more.
        doomed.nginx.kill()
        wait_for("the lease", lambda: in_flight(doomed) == 0)
    assert activity(doomed)[0]["status"] == "unknown"


def test_a_stop_waits_for_no_stream_longer_than_its_grace(doomed: Accelerated) -> None:
    with doomed.chat(tokens=2, gap=600) as connection:
        read_until(connection, b"word0")
        worker = doomed.server.worker
        doomed.server.process.terminate()
        wait_for("new requests to be refused", lambda: refused(doomed))
        os.kill(worker, signal.SIGTERM)
        assert doomed.server.process.wait(PATIENCE) == 0
        assert doomed.server.processes() == set()


def refused(front: Accelerated) -> bool:
    body = json.dumps({"model": "chat", "messages": MESSAGES}).encode()
    return "HTTP/1.1 50" in front.ask("/v1/chat/completions", body)


def test_the_instances_own_counts_are_in_the_metrics(front: Accelerated) -> None:
    body = json.dumps({"model": "chat", "messages": MESSAGES}).encode()
    assert front.ask("/v1/chat/completions", body).startswith("HTTP/1.1 200")
    text = requests.get(
        f"{front.server.url}/metrics", headers=front.server.headers, timeout=PATIENCE
    ).text
    assert 'llamactl_instance_tokens_total{instance="chat",kind="generated"} 7.0' in text
    assert "--metrics" in front.llama.events("start")[0]["argv"]


def named_locations(text: str) -> list[str]:
    """How an instance is asked, as a shipped file says it, line by line."""
    named = text[text.index("location @llamactl_instance") : text.rindex("return 502")]
    return [line.strip() for line in named.splitlines()]


def test_below_a_path_an_instance_is_asked_in_the_same_way() -> None:
    below, own = (
        named_locations((DEPLOY / name).read_text())
        for name in ("nginx-accel-subpath.conf", "nginx-accel.conf")
    )
    assert below == own


def test_below_a_path_nginx_carries_the_answers_too(tmp_path: Path) -> None:
    llama = FakeLlama(tmp_path)
    settings = {
        **llama.settings,
        "server.port": free_port(),
        "server.accel": "nginx",
        "server.url_prefix": "/llamactl",
        "server.trusted_proxies": ["127.0.0.1"],
    }
    folder = tmp_path / "nginx"
    folder.mkdir()
    port = free_port()
    server = LlamactlProcess(tmp_path / "server", settings)
    try:
        server.start()
        locations = (DEPLOY / "nginx-accel-subpath.conf").read_text()
        form = re.search(r"(?m)^#\s+(log_format .*;)$", locations)
        assert form is not None
        for shipped, ours in (
            ("127.0.0.1:8080", f"127.0.0.1:{settings['server.port']}"),
            ("/var/lib/llamactl", str(server.data_dir)),
            ("/var/log/nginx", str(folder)),
        ):
            assert shipped in locations
            locations = locations.replace(shipped, ours)
        site = f"{form[1]} server {{ listen 127.0.0.1:{port}; {locations} }}"
        with Nginx(folder, port, site):
            options = {"model": str(llama.model)}
            body = {"backend_type": "llama_cpp", "backend_options": options}
            assert server.api("POST", "/instances/chat", json=body).status_code == 201
            answer = requests.post(
                f"http://127.0.0.1:{port}/llamactl/v1/chat/completions",
                # More than an nginx allows where nothing else is said.
                json={"model": "chat", "messages": MESSAGES, "padding": "x" * (2 << 20)},
                headers=server.headers,
                timeout=PATIENCE,
            )
            assert (answer.status_code, answer.json()["object"]) == (200, "chat.completion")
            wait_for(
                "the end to be told",
                lambda: (
                    [
                        (each["carrier"], each["status"])
                        for each in server.api("GET", "/activity").json()["requests"]
                    ]
                    == [("nginx", "200")]
                ),
            )
    finally:
        server.kill_everything()
