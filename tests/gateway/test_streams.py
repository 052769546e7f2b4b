"""Streams over real sockets: each event at once, and every way in which one can end."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from tests.gateway.conftest import Instance, Serve, Served, chat, events, eventually


def test_each_event_leaves_as_it_comes(served: Served) -> None:
    stream = served.stream(chat(fake={"tokens": 3, "gap": 30}))
    try:
        received = stream.read_until(b"word0")
        assert b"word1" not in received
    finally:
        stream.close()
    served.settled()


def test_pings_are_passed_on_and_are_no_progress_of_the_instance(served: Served) -> None:
    before = served.state()["parts"]
    silent = served.stream(chat(fake={"prefill": 3600, "pings": 0.05}))
    silent.read_until(b":\n\n\r\n3\r\n:\n\n")
    assert served.state()["parts"] == before
    silent.close()
    served.settled()
    spoken = served.stream(chat(fake={"tokens": 2}))
    spoken.read_until(b"[DONE]")
    spoken.close()
    assert served.settled()["parts"] > before


def test_the_headers_leave_before_the_first_event(
    serve: Serve, tmp_path: Path, instance_key: str
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    served = serve(({"id": 2, "name": "raw", "port": port},))
    stream = served.stream(chat(model="raw"))
    upstream, _ = listener.accept()
    with upstream, listener:
        upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        received = stream.read_until(b"\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 200 OK")
        assert b"X-Accel-Buffering: no" in received
        stream.close()
    served.settled()


def test_a_stream_arrives_byte_by_byte_as_the_instance_sent_it(
    serve: Serve, instance_key: str
) -> None:
    payload = (
        b'data: {"a": "\xc3\xa9"}\r\n\r\n: comment\n\nevent: x\n'
        b"data: 1\ndata: 2\n\ndata: [DONE]\n\n"
    )
    listener = socket.create_server(("127.0.0.1", 0))
    served = serve(({"id": 2, "name": "raw", "port": listener.getsockname()[1]},))
    stream = served.stream(chat(model="raw"))
    upstream, _ = listener.accept()
    with upstream, listener:
        upstream.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        body = b""
        for at in range(0, len(payload), 7):
            piece = payload[at : at + 7]
            upstream.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        upstream.sendall(b"0\r\n\r\n")
        body = stream.read_until(b"\r\n0\r\n\r\n").partition(b"\r\n\r\n")[2]
    stream.close()
    assert dechunked(body) == payload
    served.settled()


def test_a_client_that_leaves_in_the_middle_stops_the_generation(
    served: Served, instance: Instance
) -> None:
    before = instance.at_rest()["aborts"]
    stream = served.stream(chat(fake={"tokens": 100_000, "gap": 0.05}))
    stream.read_until(b"word1")
    stream.close()
    assert instance.at_rest()["aborts"] == before + 1
    served.settled()


def test_a_client_that_leaves_before_the_first_token_stops_the_generation(
    served: Served, instance: Instance
) -> None:
    before = instance.at_rest()["aborts"]
    stream = served.stream(chat(fake={"prefill": 600}))
    eventually(lambda: instance.state()["active"] == 1)
    stream.close()
    assert instance.at_rest()["aborts"] == before + 1
    served.settled()


def test_a_client_that_leaves_during_a_call_without_stream_stops_the_generation(
    served: Served, instance: Instance
) -> None:
    before = instance.at_rest()["aborts"]
    stream = served.stream(chat(stream=False, fake={"tokens": 100, "gap": 10}))
    eventually(lambda: instance.state()["active"] == 1)
    stream.close()
    assert instance.at_rest()["aborts"] == before + 1
    served.settled()


def test_a_client_that_leaves_behind_a_second_request_is_noticed(
    served: Served, instance: Instance
) -> None:
    before = instance.at_rest()["aborts"]
    stream = served.stream(chat(fake={"prefill": 600}))
    eventually(lambda: instance.state()["active"] == 1)
    stream.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    # Time for the gateway to take that for an end; a busy machine only makes this easier.
    time.sleep(0.3)
    assert instance.state()["active"] == 1
    stream.close()
    assert instance.at_rest()["aborts"] == before + 1
    served.settled()


def test_an_instance_that_dies_in_the_middle_ends_the_stream_with_an_error_and_unclean(
    serve: Serve, tmp_path: Path, instance_key: str
) -> None:
    doomed = Instance(tmp_path, instance_key)
    served = serve(({"id": 2, "name": "doomed", "port": doomed.port},))
    stream = served.stream(chat(model="doomed", fake={"tokens": 1000, "gap": 0.05}))
    stream.read_until(b"word1")
    doomed.kill()
    received = stream.read_all()
    stream.close()
    last = json.loads(events(received)[-1])
    assert last["error"]["code"] == "upstream_gone"
    assert not received.endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in received
    served.settled()
    assert "Traceback" not in served.log.read_text()


def test_an_answer_without_stream_that_breaks_off_does_not_look_whole(
    serve: Serve, instance_key: str
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    served = serve(({"id": 2, "name": "raw", "port": listener.getsockname()[1]},))
    for framing in (b"Content-Length: 1000", b"Transfer-Encoding: chunked"):
        stream = served.stream(chat(model="raw", stream=False))
        upstream, _ = listener.accept()
        with upstream:
            # What a socket still holds back is dropped when it is closed with the request unread.
            assert upstream.recv(65536)
            upstream.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + framing + b"\r\n\r\n"
            )
            upstream.sendall(b'5\r\n{"a":\r\n')
        received = stream.read_all()
        stream.close()
        assert b'{"a":' in received
        assert b"error" not in received
        assert not received.endswith(b"0\r\n\r\n")
    listener.close()
    served.settled()


def test_an_instance_that_is_gone_before_its_headers_is_an_error_in_openai_form(
    serve: Serve, instance_key: str
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    served = serve(
        (
            {"id": 2, "name": "raw", "port": port},
            {"id": 3, "name": "nobody", "port": 1},
        )
    )
    answers = [b"", b"HTTP/1.1 200 OK\r\nContent-Ty", b"SSH-2.0-x\r\n\r\n"]
    for answer in answers:
        stream = served.stream(chat(model="raw"))
        upstream, _ = listener.accept()
        with upstream:
            upstream.recv(1)
            upstream.sendall(answer)
        received = stream.read_until(b"}}")
        stream.close()
        assert received.startswith(b"HTTP/1.1 502")
        assert b'"code":"upstream_gone"' in received
    listener.close()
    status, _, body = served.call("POST", "/v1/chat/completions", chat(model="nobody"))
    assert status == 502
    assert json.loads(body)["error"]["type"] == "server_error"
    served.settled()


def test_an_instance_that_says_nothing_is_given_up(serve: Serve) -> None:
    served = serve(gateway__read_timeout=3)
    status, _, body = served.call("POST", "/v1/chat/completions", chat(fake={"prefill": 600}))
    assert status == 502
    assert "3 seconds" in json.loads(body)["error"]["message"]
    stream = served.stream(chat(fake={"tokens": 3, "gap": 600}))
    received = stream.read_all()
    stream.close()
    assert json.loads(events(received)[-1])["error"]["code"] == "upstream_gone"
    served.settled()


def test_a_slow_reader_costs_no_memory_and_gets_everything(serve: Serve) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    served = serve(({"id": 2, "name": "raw", "port": listener.getsockname()[1]},))
    before = served.state()["rss"]
    stream = served.stream(chat(model="raw"), receive_buffer=4096)
    upstream, _ = listener.accept()
    piece = b"data: " + b"x" * 1000 + b"\n\n"
    sent = 0
    with upstream, listener:
        upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        upstream.settimeout(1)
        try:
            while sent < 200_000_000:
                upstream.sendall(piece * 64)
                sent += len(piece) * 64
        except TimeoutError:
            pass
        # The instance is held back long before anything like this is buffered.
        assert sent < 60_000_000
        assert served.state()["rss"] - before < 30_000
        stream.close()
    served.settled()


def test_a_deleted_key_ends_its_streams_and_no_others(served: Served) -> None:
    key_id, key = served.make_key()
    mine = served.stream(chat(fake={"tokens": 1000, "gap": 0.05}), key=key)
    other = served.stream(chat(fake={"tokens": 1000, "gap": 0.05}))
    mine.read_until(b"word1")
    other.read_until(b"word1")
    assert served.call("DELETE", f"/test/keys/{key_id}")[0] == 200
    received = mine.read_all()
    assert json.loads(events(received)[-1])["error"]["code"] == "invalid_key"
    assert not received.endswith(b"0\r\n\r\n")
    other.read_until(b"word9")
    mine.close()
    other.close()
    assert served.call("GET", "/v1/models", key=key)[0] == 401
    served.settled()


def test_a_cut_comes_behind_a_whole_event(serve: Serve) -> None:
    """Half an event is nonsense to a client, which would read nothing behind it."""
    listener = socket.create_server(("127.0.0.1", 0))
    served = serve(({"id": 2, "name": "raw", "port": listener.getsockname()[1]},))
    key_id, key = served.make_key()
    stream = served.stream(chat(model="raw"), key=key, receive_buffer=4096)
    upstream, _ = listener.accept()
    event = b'data: {"a": "' + b"x" * 10_000 + b'"}\n\n'
    with upstream, listener:
        upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        upstream.settimeout(1)
        with pytest.raises(TimeoutError):
            while True:
                upstream.sendall(event)
        assert served.call("DELETE", f"/test/keys/{key_id}")[0] == 200
        received = stream.read_all()
    stream.close()
    told = [json.loads(each) for each in events(dechunked(received.partition(b"\r\n\r\n")[2]))]
    assert len(told) > 1
    assert told[-1]["error"]["code"] == "invalid_key"
    served.settled()


def test_a_deleted_key_ends_its_prefill_too(served: Served, instance: Instance) -> None:
    key_id, key = served.make_key()
    instance.at_rest()
    stream = served.stream(chat(fake={"prefill": 600}), key=key)
    eventually(lambda: instance.state()["active"] == 1)
    served.call("DELETE", f"/test/keys/{key_id}")
    received = stream.read_until(b"}}")
    stream.close()
    assert received.startswith(b"HTTP/1.1 401")
    instance.at_rest()
    served.settled()


def test_a_stop_gives_streams_their_grace_and_then_ends_them(serve: Serve) -> None:
    served = serve()
    stream = served.stream(chat(fake={"tokens": 1000, "gap": 0.05}))
    stream.read_until(b"word1")
    status, _, body = served.call("POST", "/test/stop?seconds=0.5")
    assert (status, json.loads(body)) == (200, {"drained": False})
    received = stream.read_all()
    stream.close()
    assert json.loads(events(received)[-1])["error"]["code"] == "shutting_down"
    status, headers, body = served.call("POST", "/v1/chat/completions", chat())
    assert status == 503
    assert int(headers["retry-after"]) >= 1
    assert json.loads(body)["error"]["code"] == "shutting_down"
    served.settled()


def dechunked(body: bytes) -> bytes:
    payload = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        payload += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return payload
