"""Limits are told at once, and a place that was given back can be had again."""

from __future__ import annotations

import json
import threading

import pytest

from tests.gateway.conftest import Serve, Served, Stream, chat, eventually


@pytest.fixture(scope="module")
def narrow(serve: Serve) -> Served:
    """A gateway with room for four requests, two of one key, two that wait."""
    asleep = {"id": 2, "name": "asleep", "port": 1, "status": "starting"}
    return serve(
        (asleep,),
        gateway__max_streams=4,
        gateway__max_streams_per_key=2,
        gateway__max_waiting=2,
        instances__on_demand_start_timeout=600,
    )


def refused(served: Served, key: str | None = None, **fields: object) -> str:
    status, headers, body = served.call("POST", "/v1/chat/completions", chat(**fields), key=key)
    assert status == 429
    assert int(headers["retry-after"]) >= 1
    error = json.loads(body)["error"]
    assert (error["code"], error["type"]) == ("too_many_requests", "rate_limit_error")
    return str(error["message"])


def test_more_requests_than_there_is_room_for_are_told_at_once(narrow: Served) -> None:
    streams = [narrow.stream(chat(fake={"prefill": 600})) for _ in range(4)]
    eventually(lambda: narrow.state()["in_flight"] == 4)
    assert "gateway.max_streams " in refused(narrow)
    assert narrow.call("GET", "/healthz")[0] == 200
    streams.pop().close()
    eventually(lambda: narrow.state()["in_flight"] == 3)
    assert narrow.call("POST", "/v1/chat/completions", chat())[0] == 200
    for stream in streams:
        stream.close()
    narrow.settled()
    metrics = narrow.call("GET", "/metrics")[2]
    assert b'llamactl_requests_total{instance="",result="too_many_requests"}' in metrics


def test_one_key_cannot_take_every_place(narrow: Served) -> None:
    _, greedy = narrow.make_key()
    _, other = narrow.make_key()
    streams = [narrow.stream(chat(fake={"prefill": 600}), key=greedy) for _ in range(2)]
    eventually(lambda: narrow.state()["in_flight"] == 2)
    assert "gateway.max_streams_per_key" in refused(narrow, greedy)
    assert narrow.call("POST", "/v1/chat/completions", chat(), key=other)[0] == 200
    for stream in streams:
        stream.close()
    narrow.settled()
    assert narrow.call("POST", "/v1/chat/completions", chat(), key=greedy)[0] == 200


def test_the_line_for_an_instance_that_starts_is_bounded(narrow: Served) -> None:
    waiting = [narrow.stream(chat(model="asleep")) for _ in range(2)]
    eventually(lambda: narrow.state()["waiting"] == 2)
    assert "gateway.max_waiting" in refused(narrow, model="asleep")
    assert narrow.call("POST", "/v1/chat/completions", chat())[0] == 200
    for stream in waiting:
        stream.close()
    narrow.settled()


def test_a_wait_that_is_too_long_ends_with_a_word_when_to_return(serve: Serve) -> None:
    asleep = {"id": 2, "name": "asleep", "port": 1, "status": "starting"}
    served = serve((asleep,), instances__on_demand_start_timeout=1)
    status, headers, body = served.call("POST", "/v1/chat/completions", chat(model="asleep"))
    assert status == 503
    assert headers["retry-after"] == "3"
    assert json.loads(body)["error"]["code"] == "start_timeout"
    served.settled()


def test_a_body_that_is_too_large_is_refused_whichever_way_it_comes(serve: Serve) -> None:
    served = serve(gateway__max_body=100_000)
    big = b'{"model": "fake", "prompt": "' + b"x" * 200_000 + b'"}'
    kind = {"Content_Type": "application/json"}
    status, _, body = served.call("POST", "/v1/completions", big, **kind)
    assert status == 413
    assert json.loads(body)["error"]["code"] == "request_too_large"
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(big), big)
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        f"Authorization: Bearer {served.key}\r\nContent-Type: application/json\r\n\r\n"
    )
    stream = Stream(served.port, head, chunks)
    assert stream.read_until(b"\r\n").startswith(b"HTTP/1.1 413")
    stream.close()
    assert served.call("POST", "/v1/completions", {"model": "fake", "prompt": "x"})[0] == 200
    served.settled()
    metrics = served.call("GET", "/metrics")[2]
    assert b'llamactl_requests_total{instance="",result="413"} 2.0' in metrics


def test_many_clients_at_once_are_all_answered_and_leave_nothing(served: Served) -> None:
    before = served.state()["threads"]
    results: list[int] = []

    def ask() -> None:
        for _ in range(5):
            body = chat(stream=False, fake={"tokens": 2})
            results.append(served.call("POST", "/v1/chat/completions", body)[0])

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [200] * 80
    served.settled()
    assert served.state()["threads"] <= max(before, 64 + 4)
