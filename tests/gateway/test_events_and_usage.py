"""The error event in each dialect, and the tokens that an answer tells of."""

from __future__ import annotations

import json

import pytest

from llamactl.errors import UpstreamGone
from llamactl.gateway.events import error_event, is_ping
from llamactl.gateway.paths import native_target, openai_target
from llamactl.gateway.tail import Tail
from llamactl.gateway.usage import Usage, usage_in

GONE = UpstreamGone("The instance stopped")


def test_openai_clients_get_an_error_object() -> None:
    event = error_event("/v1/chat/completions", GONE, at_boundary=True)
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert json.loads(event[6:])["error"] == {
        "message": "The instance stopped.",
        "type": "server_error",
        "code": "upstream_gone",
        "param": None,
    }


def test_anthropic_clients_get_an_error_event() -> None:
    event = error_event("/v1/messages", GONE, at_boundary=True).decode()
    kind, data = event.strip().split("\n")
    assert kind == "event: error"
    assert json.loads(data[6:])["type"] == "error"
    assert json.loads(data[6:])["error"]["message"] == "The instance stopped."


def test_responses_clients_get_an_error_event() -> None:
    event = error_event("/v1/responses", GONE, at_boundary=True).decode()
    kind, data = event.strip().split("\n")
    assert kind == "event: error"
    assert json.loads(data[6:])["type"] == "error"


def test_an_event_that_was_cut_in_the_middle_is_ended_first() -> None:
    assert error_event("/v1/completions", GONE, at_boundary=False).startswith(b"\n\ndata: ")


@pytest.mark.parametrize(
    ("pieces", "complete"),
    [
        ([b'data: {"a":1}\n\ndata: [DO', b"NE]\n\n"], True),
        ([b"data: [DONE]\r\n\r\n"], True),
        ([b"data: 1\n\n", b'event: message_stop\ndata: {"type":"message_stop"}\n\n'], True),
        ([b"event: response.completed\ndata: {}\n\n"], True),
        ([b"data: [DONE]"], False),
        ([b'data: {"text":"data: [DONE]"}\n\n'], False),
        ([b"data: [DONE]\n\ndata: 1\n\n"], False),
        ([], False),
    ],
)
def test_a_client_that_leaves_behind_the_last_event_has_all_of_its_answer(
    pieces: list[bytes], complete: bool
) -> None:
    tail = Tail()
    for piece in pieces:
        tail.add(piece)
    assert tail.is_complete() is complete


@pytest.mark.parametrize(
    ("begun", "piece", "rest"),
    [
        (b"data: 1", b"2\n\ndata: 3\n\n", b"2\n\n"),
        (b"data: 1\n", b"\ndata: 3\n\n", b"\n"),
        (b"data: 1\n\nd", b"ata: 3\n\n:\n\n", b"ata: 3\n\n"),
        (b"data: 1\r\n\r", b"\ndata: 3\r\n\r\n", b"\n"),
        (b"data: 1", b"2\r\n\r\ndata: 3\n\n", b"2\r\n\r\n"),
        (b"d", b"ata: 1\nid: 2\n", b"ata: 1\nid: 2\n"),
    ],
)
def test_an_event_that_was_begun_ends_where_it_ends(
    begun: bytes, piece: bytes, rest: bytes
) -> None:
    tail = Tail()
    tail.add(begun)
    assert tail.to_boundary(piece) == rest


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        (b":\n\n", True),
        (b": ping\r\n\r\n:\n\n", True),
        (b": ping\n\ndata: 1\n\n", False),
        (b"data: 1\n\n", False),
        (b'{"choices": []}', False),
        (b"", False),
    ],
)
def test_a_ping_is_a_part_of_only_comments(piece: bytes, expected: bool) -> None:
    assert is_ping(piece) is expected


@pytest.mark.parametrize(
    ("tail", "usage"),
    [
        (b'{"usage":{"completion_tokens":7,"prompt_tokens":3,"total_tokens":10}}', Usage(3, 7)),
        (b'data: {"timings":{"prompt_n":4,"predicted_n":9}}\n\ndata: [DONE]\n\n', Usage(4, 9)),
        (b'{"usage": {"input_tokens": 2, "output_tokens": 5}}', Usage(2, 5)),
        (b'{"usage":{"prompt_tokens":3,"total_tokens":3}}', Usage(3, 0)),
        (b'{"usage":{"completion_tokens":1}} {"usage":{"completion_tokens":2}}', Usage(0, 2)),
        (rb'{"content":"\"completion_tokens\":99"}', Usage(0, 0)),
        (b'{"usage":{"completion_tokens":12', Usage(0, 0)),
        (b"", Usage(0, 0)),
        (b"\xff\x00", Usage(0, 0)),
    ],
)
def test_tokens_are_read_from_the_end_of_an_answer(tail: bytes, usage: Usage) -> None:
    assert usage_in(tail) == usage


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", "slots"),
        ("POST", "slots/0"),
        ("POST", "props"),
        ("GET", "metrics"),
        ("GET", "lora-adapters"),
        ("POST", "lora-adapters"),
        ("GET", "models"),
        ("POST", "models"),
        ("POST", "models/load"),
        ("POST", "models/unload"),
        ("GET", "tools"),
        ("POST", "tools"),
        ("GET", "cors-proxy"),
        ("GET", "v1/stream/1"),
        ("DELETE", "v1/stream/1"),
        ("POST", "v1/chat/completions/control"),
        ("GET", "v1/chat/completions"),
        ("PUT", "completion"),
        ("POST", "completion/"),
        ("POST", "/completion"),
        ("POST", "v1/../slots/0"),
        ("POST", "COMPLETION"),
        ("GET", ""),
    ],
)
def test_what_is_not_on_the_list_does_not_exist(method: str, rest: str) -> None:
    assert native_target(method, rest) is None


def test_what_is_on_the_list_keeps_its_path() -> None:
    assert native_target("POST", "v1/messages/count_tokens") == "/v1/messages/count_tokens"
    assert native_target("POST", "tokenize") == "/tokenize"
    assert native_target("GET", "props") == "/props"
    assert openai_target("POST", "chat/completions") == "/v1/chat/completions"
    assert openai_target("GET", "chat/completions") is None
    assert openai_target("POST", "tokenize") is None
