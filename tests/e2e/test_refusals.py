"""Requests that are refused while their bodies are still on the way."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import Make
from tests.e2e.processes import PATIENCE
from tests.e2e.test_nginx import DEPLOY, Nginx
from tests.ports import free_port


@pytest.mark.parametrize(("known", "statuses"), [(True, {413}), (False, {401, 429})])
def test_nginx_hands_on_the_answer_to_a_request_that_it_still_sends(
    make_server: Make, tmp_path: Path, known: bool, statuses: set[int]
) -> None:
    server = make_server({"gateway.max_body": "1MiB"}).start()
    folder = tmp_path / "nginx"
    folder.mkdir()
    port = free_port()
    shipped = (DEPLOY / "nginx.conf").read_text()
    location = re.search(r"(?s)\n    location / \{.*?\n    \}", shipped)
    assert location is not None
    address = server.url.removeprefix("http://")
    # This nginx allows more than llamactl does.
    sites = (
        f"upstream llamactl {{ server {address}; keepalive 64; }}"
        f"server {{ listen 127.0.0.1:{port}; client_max_body_size 64m; {location[0]} }}"
    )
    key = server.key if known else "llc_unknown"
    body = b'{"model": "m", "input": "' + b"x" * (8 << 20) + b'"}'
    with Nginx(folder, port, sites):
        told = [
            requests.post(
                f"http://127.0.0.1:{port}/v1/embeddings",
                data=body,
                headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
                timeout=PATIENCE,
            ).status_code
            for _ in range(12)
        ]
    assert set(told) <= statuses


def test_a_refused_client_that_never_sends_its_body_is_answered_and_let_go(
    make_server: Make,
) -> None:
    server = make_server().start()
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    head = (
        "POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer llc_unknown\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{"
    )
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert "Traceback" not in server.output


def test_a_refused_client_that_sends_its_body_byte_by_byte_is_let_go(make_server: Make) -> None:
    server = make_server().start()
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    head = (
        "POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer llc_unknown\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(head.encode())
        # Long after the bound, and long before the body is whole.
        with pytest.raises(ConnectionError):
            for _ in range(600):
                connection.sendall(b"x")
                time.sleep(0.05)
    assert "Traceback" not in server.output
