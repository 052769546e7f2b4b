"""What is remembered of requests: what they cost, and never what was said."""

from __future__ import annotations

import json
from typing import Any

from llamactl.gateway.activity import Activity, Entry
from llamactl.gateway.usage import speed_in
from tests.gateway.conftest import Serve, Served, chat, eventually


def requests(served: Served) -> Any:
    return json.loads(served.call("GET", "/test/activity")[2])["requests"]


def test_no_more_is_remembered_than_there_is_room_for() -> None:
    activity = Activity(size=3)
    for number in range(10):
        activity.add(Entry(number, "fake", "key", "/v1/x", "200", 1.0, None, 0, 0, None))
    assert [entry.came_at for entry in activity.entries()] == [9, 8, 7]


def test_the_speed_is_that_which_llama_cpp_measured() -> None:
    told = b'"timings":{"predicted_n":5,"predicted_ms":9.1,"predicted_per_second":549.45}}\n\n'
    assert speed_in(told) == 549.45
    assert speed_in(b'"predicted_per_second":549.4') is None


def test_a_request_is_listed_while_it_runs_and_after_it_has_ended(serve: Serve) -> None:
    served = serve()
    _, key = served.make_key(name="somebody")
    stream = served.stream(chat(fake={"tokens": 1000, "gap": 0.05}), key=key)
    stream.read_until(b"word0")
    (running,) = requests(served)
    assert running["status"] == "running"
    stream.close()
    ended = eventually(lambda: [each for each in requests(served) if each["status"] != "running"])[
        0
    ]
    assert ended["status"] == "client_gone"
    for entry in (running, ended):
        assert (entry["instance"], entry["key"]) == ("fake", "somebody")
        assert entry["path"] == "/v1/chat/completions"
        assert 0 < entry["first_byte_seconds"] <= entry["seconds"]


def test_tokens_and_errors_are_told_and_nothing_that_was_said(serve: Serve) -> None:
    served = serve()
    body = {"model": "fake", "max_tokens": 2, "messages": [{"role": "user", "content": "secret"}]}
    assert served.call("POST", "/v1/chat/completions", body)[0] == 200
    eventually(lambda: requests(served)[0]["status"] == "200")
    assert served.call("POST", "/v1/chat/completions", {**body, "model": "secret"})[0] == 404
    missed, answered = eventually(lambda: (found := requests(served))[1:] and found)
    assert (missed["status"], missed["instance"]) == ("model_not_found", None)
    assert (answered["prompt_tokens"], answered["generated_tokens"]) == (3, 2)
    told = json.dumps([missed, answered])
    assert "secret" not in told
    assert "word0" not in told
