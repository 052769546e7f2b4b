"""Requests that no client of ours would send, byte by byte over a socket, to the whole server."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.e2e.processes import PATIENCE, LlamactlProcess

# A request that must never be answered where it is hidden inside another one.
HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
DEEP = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamactlProcess]:
    running = LlamactlProcess(tmp_path_factory.mktemp("malformed"))
    try:
        yield running.start()
    finally:
        running.kill_everything()


@pytest.fixture(scope="module")
def inference_key(server: LlamactlProcess) -> str:
    key: str = server.api("POST", "/auth/keys", json={"name": "tests"}).json()["key"]
    return key


def exchange(server: LlamactlProcess, raw: bytes) -> bytes:
    """Everything that comes back until the server closes the connection."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(raw)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
    return received


def statuses(received: bytes) -> list[int]:
    return [
        int(line.split()[1]) for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")
    ]


def head(server: LlamactlProcess, *lines: str, line: str = "POST /v1/chat/completions") -> bytes:
    standing = (f"{line} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {server.key}")
    return "\r\n".join([*standing, "Content-Type: application/json", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (["Content-Length: 4", "Transfer-Encoding: chunked"], b"0\r\n\r\n" + HIDDEN),
        (["Transfer-Encoding: chunked", "Content-Length: 4"], b"0\r\n\r\n" + HIDDEN),
        (["Content-Length: 4", "Content-Length: 5"], b"{}  " + HIDDEN),
        (["Content-Length: +2"], b"{}" + HIDDEN),
        (["Content-Length: -2"], b"{}" + HIDDEN),
        (["Content-Length: 0x2"], b"{}" + HIDDEN),
        (["Content-Length: 2, 2"], b"{}" + HIDDEN),
        (["Content-Length: 2_0"], b"{}" + HIDDEN),
        (["Content-Length: \u00b2"], b"{}" + HIDDEN),
        (["Transfer-Encoding: gzip, chunked, identity"], b"0\r\n\r\n" + HIDDEN),
        (["Transfer-Encoding: xchunked"], b"0\r\n\r\n" + HIDDEN),
        (["Transfer-Encoding : chunked"], b"0\r\n\r\n" + HIDDEN),
        (["Transfer-Encoding: chunked"], b"+2\r\n{}\r\n0\r\n\r\n" + HIDDEN),
        (["Transfer-Encoding: chunked"], b"0x2\r\n{}\r\n0\r\n\r\n" + HIDDEN),
        (["Transfer-Encoding: chunked"], b"zz\r\n{}\r\n0\r\n\r\n" + HIDDEN),
        (["Transfer-Encoding: chunked"], b"2\r\n{}XX0\r\n\r\n" + HIDDEN),
        (["X-Folded: a", " b", "Content-Length: 2"], b"{}" + HIDDEN),
        (["X-Null: a\0b", "Content-Length: 2"], b"{}" + HIDDEN),
        (["X Space: a", "Content-Length: 2"], b"{}" + HIDDEN),
        ([": a", "Content-Length: 2"], b"{}" + HIDDEN),
        (["no colon", "Content-Length: 2"], b"{}" + HIDDEN),
        (["Host: evil.example", "Content-Length: 2"], b"{}" + HIDDEN),
        ([f"X-Long: {'a' * 20_000}", "Content-Length: 2"], b"{}" + HIDDEN),
        ([*(f"X-{number}: a" for number in range(300)), "Content-Length: 2"], b"{}" + HIDDEN),
    ],
    ids=lambda value: str(value)[:48],
)
def test_a_request_of_two_meanings_is_refused_and_its_connection_closed(
    server: LlamactlProcess, lines: list[str], body: bytes
) -> None:
    received = exchange(server, head(server, *lines) + body)
    assert [status // 100 for status in statuses(received)] in ([4], [5], []), received
    assert statuses(received) != [500], received
    assert b"\r\n\r\nok\n" not in received


@pytest.mark.parametrize(
    "line",
    [
        b"GET /healthz",
        b"GET  /healthz HTTP/1.1",
        b"GET /healthz HTTP/9.9",
        b"GET /healthz HTTP/1.1 x",
        b"get\0 /healthz HTTP/1.1",
        b"GET /\xff\xfe HTTP/1.1 \xff",
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    ],
    ids=lambda value: str(value)[:32],
)
def test_what_is_no_request_is_refused(server: LlamactlProcess, line: bytes) -> None:
    received = exchange(server, line + b"\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert all(400 <= status < 506 and status != 500 for status in statuses(received)), received


@pytest.mark.parametrize(
    "path",
    [
        "/llama-cpp/x/../../api/v1/auth/keys",
        "/llama-cpp/x/%2e%2e/%2e%2e/api/v1/auth/keys",
        "/llama-cpp/x/..%2f..%2fapi/v1/auth/keys",
        "/v1/../api/v1/config",
        "/v1/%2e%2e/api/v1/config",
        "/v1//chat/completions",
        "//api/v1/config",
        "/llama-cpp/x/props%00",
        "/llama-cpp/x;a=b/props",
        "/llama-cpp/x%2Fprops",
        "/llama-cpp/x/slots",
        "/llama-cpp/x/v1/../slots",
        "http://127.0.0.1/api/v1/config",
        "/api/v1/config?x=/../v1/models",
    ],
)
def test_no_spelling_of_a_path_leads_an_inference_key_elsewhere(
    server: LlamactlProcess, inference_key: str, path: str
) -> None:
    for method in ("GET", "POST"):
        raw = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Authorization: Bearer {inference_key}\r\nContent-Length: 0\r\n\r\n"
        )
        received = exchange(server, raw.encode())
        assert statuses(received)[0] in {400, 403, 404, 405, 415}, received
        assert b"<html" not in received.lower() or path.startswith("//"), received


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"NaN",
        b'{"name": NaN, "model": NaN}',
        b'{"name": Infinity, "model": Infinity}',
        b'{"name": "a", "name": "b", "model": "a", "model": "b"}',
        b'{"name": "\xff", "model": "\xff"}',
        b'\xef\xbb\xbf{"name": "a", "model": "a"}',
        '{"name": "a", "model": "a"}'.encode("utf-16"),
        b'{"name": "\\ud800", "model": "\\ud800"}',
        b'{"name": "a\\u0000b", "model": "a\\u0000b"}',
        b'{"name": 1' + b"0" * 10_000 + b', "model": 1' + b"0" * 10_000 + b"}",
        b'{"name": 1e999999, "model": 1e999999}',
        b'{"name": ' + b"[" * DEEP + b"]" * DEEP + b', "model": 1}',
        b'{"model": "a", "x": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
        b'{"name": "a", "model": "a"} {}',
        b"{'name': 'a', 'model': 'a'}",
        b'{"name": "a", "model": "a",}',
        b'/* */ {"name": "a", "model": "a"}',
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("path", ["/api/v1/auth/keys", "/v1/chat/completions"])
def test_a_body_of_no_or_two_meanings_is_told_so(
    server: LlamactlProcess, path: str, body: bytes
) -> None:
    lines = (f"Content-Length: {len(body)}", "Connection: close")
    received = exchange(server, head(server, *lines, line=f"POST {path}") + body)
    assert statuses(received)[0] in {400, 404}, received
    told = json.loads(received.partition(b"\r\n\r\n")[2])
    assert told["error"] and (path.startswith("/api") == ("details" in told)), told


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "image/png"])
@pytest.mark.parametrize("path", ["/api/v1/auth/keys", "/v1/chat/completions"])
def test_a_body_that_any_web_page_could_send_is_refused(
    server: LlamactlProcess, path: str, kind: str
) -> None:
    raw = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {server.key}\r\n"
        f"Connection: close\r\nContent-Type: {kind}\r\nContent-Length: 2\r\n\r\n{{}}"
    )
    assert statuses(exchange(server, raw.encode())) == [415]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "CONNECT", "BREW"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/api/v1/auth/keys"])
def test_other_methods_are_answered_and_are_no_page(
    server: LlamactlProcess, method: str, path: str
) -> None:
    lines = ("Content-Length: 0", "Connection: close")
    received = exchange(server, head(server, *lines, line=f"{method} {path}"))
    status = statuses(received)[0]
    assert status in {200, 400, 404, 405, 501}, received
    assert b"<html" not in received.lower() or status in {400, 501}
    if status == 405:
        assert b"\r\nAllow: " in received


def test_a_management_body_that_is_too_large_is_refused_and_not_kept(
    server: LlamactlProcess,
) -> None:
    size = 10 << 20
    lines = (f"Content-Length: {size}", "Connection: close")
    raw = head(server, *lines, line="POST /api/v1/auth/keys") + b" " * size
    try:
        received = exchange(server, raw)
    except (BrokenPipeError, ConnectionResetError):
        # It hung up before it had read everything.
        return
    assert statuses(received) in ([413], []), received


def test_after_all_that_the_server_answers_and_has_complained_of_nothing(
    server: LlamactlProcess,
) -> None:
    assert server.api("GET", "/version").status_code == 200
    assert "Traceback" not in server.output
