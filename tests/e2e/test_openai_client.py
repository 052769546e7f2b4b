"""The official clients against real llama.cpp, with nothing but a base URL and a key."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import pytest

from tests.e2e.processes import PATIENCE, LlamactlProcess, wait_for
from tests.e2e.real_llama import KINDS, busy_slots, create, openai_client, serving

PROMPT: Any = [{"role": "user", "content": "Say something."}]


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamactlProcess]:
    """A server with two instances on one tiny model: one that chats, one that embeds."""
    with serving(request.param, tmp_path_factory.mktemp("openai")) as running:
        create(running, "chat", aliases=["acme/tiny:latest"], parallel=2)
        create(running, "embed", embeddings=True, pooling="mean")
        yield running


def make_key(server: LlamactlProcess, **fields: object) -> tuple[int, str]:
    answer = server.api("POST", "/auth/keys", json={"name": "test", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"], answer.json()["key"]


def in_flight(server: LlamactlProcess) -> int:
    return int(server.api("GET", "/instances/chat").json()["in_flight"])


def test_a_stopped_instance_answers_a_streamed_chat(server: LlamactlProcess) -> None:
    with openai_client(server) as api:
        with api.chat.completions.create(
            model="chat", messages=PROMPT, max_tokens=12, stream=True
        ) as stream:
            events = list(stream)
    text = "".join(choice.delta.content or "" for event in events for choice in event.choices)
    assert text.strip()
    assert events[-1].choices[0].finish_reason == "length"


def test_a_chat_tells_its_usage(server: LlamactlProcess) -> None:
    with openai_client(server) as api:
        whole = api.chat.completions.create(model="acme/tiny:latest", messages=PROMPT, max_tokens=5)
    assert whole.choices[0].message.content
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 5


def test_completions_stream_and_stop(server: LlamactlProcess) -> None:
    with openai_client(server) as api:
        assert api.completions.create(model="chat", prompt="Once", max_tokens=5).choices[0].text
        with api.completions.create(
            model="chat", prompt="Once", max_tokens=5, stream=True
        ) as stream:
            assert "".join(event.choices[0].text for event in stream)


def test_structured_output_keeps_its_schema(server: LlamactlProcess) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"enum": ["yes", "no"]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    with openai_client(server) as api:
        whole = api.chat.completions.create(
            model="chat",
            messages=PROMPT,
            max_tokens=200,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": True},
            },
        )
    answer = json.loads(whole.choices[0].message.content or "")
    assert answer in ({"answer": "yes"}, {"answer": "no"})


def test_a_conversation_with_tools_passes_whole_and_streamed(server: LlamactlProcess) -> None:
    schema = {"type": "object", "properties": {"unit": {"enum": ["celsius", "kelvin"]}}}
    function = {"name": "weather", "description": "The weather.", "parameters": schema}
    call = {"name": "weather", "arguments": '{"unit": "kelvin"}'}
    asked: Any = {
        "model": "chat",
        "messages": [
            *PROMPT,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "call-1", "type": "function", "function": call}],
            },
            {"role": "tool", "tool_call_id": "call-1", "content": "290"},
        ],
        "max_tokens": 5,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "auto",
    }
    with openai_client(server) as api:
        whole = api.chat.completions.create(**asked)
        # A model of random weights calls no tool: what it writes instead has to come.
        assert whole.choices[0].message.content or whole.choices[0].message.tool_calls
        with api.chat.completions.create(**asked, stream=True) as stream:
            ends = [event.choices[0].finish_reason for event in stream if event.choices]
        assert ends[-1] in {"length", "stop", "tool_calls"}


def test_embeddings_come_in_both_encodings(server: LlamactlProcess) -> None:
    with openai_client(server) as api:
        packed = api.embeddings.create(model="embed", input=["one", "another"])
        plain = api.embeddings.create(model="embed", input="one", encoding_format="float")
    assert [entry.index for entry in packed.data] == [0, 1]
    assert len(packed.data[0].embedding) == 64
    assert plain.data[0].embedding == pytest.approx(packed.data[0].embedding, abs=1e-4)


def test_models_are_those_of_the_key(server: LlamactlProcess) -> None:
    instance_id = server.api("GET", "/instances/embed").json()["id"]
    _, key = make_key(server, permission_mode="per_instance", instance_ids=[instance_id])
    with openai_client(server, key) as api:
        assert [model.id for model in api.models.list()] == ["embed"]
        for name in ("chat", "nothing"):
            with pytest.raises(openai.NotFoundError) as caught:
                api.chat.completions.create(model=name, messages=PROMPT)
            assert caught.value.code == "model_not_found"
    with openai_client(server) as api:
        known = {model.id for model in api.models.list()}
        assert known == {"chat", "acme/tiny:latest", "embed"}
        assert api.models.retrieve("acme/tiny:latest").id == "acme/tiny:latest"


def test_a_wrong_key_is_an_authentication_error(server: LlamactlProcess) -> None:
    with (
        openai_client(server, "llc_wrong") as api,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        api.models.list()
    assert caught.value.code == "invalid_key"


def test_what_the_model_refuses_is_told_in_its_own_words(server: LlamactlProcess) -> None:
    with openai_client(server) as api, pytest.raises(openai.APIStatusError) as caught:
        api.embeddings.create(model="chat", input="x")
    assert "embeddings" in caught.value.message


def test_a_stream_that_is_closed_stops_the_generation(server: LlamactlProcess) -> None:
    with openai_client(server) as api:
        with api.chat.completions.create(
            model="chat",
            messages=PROMPT,
            max_tokens=16000,
            stream=True,
            # Slow enough to be left in the middle, however fast the machine is.
            extra_body={"ignore_eos": True, "n_probs": 50},
        ) as stream:
            next(iter(stream))
            assert busy_slots(server, "chat") == 1
    wait_for("the slot to be free", lambda: busy_slots(server, "chat") == 0)
    wait_for("the lease to be back", lambda: in_flight(server) == 0)


def test_a_client_that_gives_up_waiting_stops_the_generation(server: LlamactlProcess) -> None:
    with openai_client(server) as api, ThreadPoolExecutor(1) as pool:
        # None of the client's time goes into the instance's start.
        api.completions.create(model="chat", prompt="Once", max_tokens=1)
        answer = pool.submit(
            api.with_options(timeout=5).completions.create,
            model="chat",
            prompt="Once",
            max_tokens=16000,
            # Slow enough to outlast the client, however fast the machine is.
            extra_body={"ignore_eos": True, "n_probs": 50},
        )
        wait_for("a busy slot", lambda: busy_slots(server, "chat") == 1)
        with pytest.raises(openai.APITimeoutError):
            answer.result()
    wait_for("the lease to be back", lambda: in_flight(server) == 0)
    # llama-server looks for a client that left only in a second without any result, and each look
    # at its slots is one: whoever looks more often keeps the generation going.
    pauses = iter((2, 4, 8, 16, 32))
    time.sleep(next(pauses))
    while busy_slots(server, "chat"):
        time.sleep(next(pauses))


def test_a_deleted_key_ends_its_stream_with_an_error(server: LlamactlProcess) -> None:
    key_id, key = make_key(server)
    with openai_client(server, key) as api:
        stream = api.chat.completions.create(
            model="chat",
            messages=PROMPT,
            max_tokens=16000,
            stream=True,
            # Long enough to be cut in the middle, however fast the machine is.
            extra_body={"ignore_eos": True, "n_probs": 50},
        )
        with stream, pytest.raises(openai.APIError) as caught:
            for number, _ in enumerate(stream):
                if number == 2:
                    assert server.api("DELETE", f"/auth/keys/{key_id}").status_code == 204
        assert caught.value.code == "invalid_key"
        with pytest.raises(openai.AuthenticationError):
            api.models.list()
    wait_for("the slot to be free", lambda: busy_slots(server, "chat") == 0)


def test_the_anthropic_client_streams_and_counts(server: LlamactlProcess) -> None:
    _, key = make_key(server)
    with anthropic.Anthropic(
        base_url=server.url, api_key=key, timeout=PATIENCE, max_retries=0
    ) as api:
        counted = api.messages.count_tokens(model="chat", messages=PROMPT)
        assert counted.input_tokens > 0
        with api.messages.stream(model="chat", messages=PROMPT, max_tokens=8) as stream:
            assert stream.get_final_text()
            assert stream.get_final_message().usage.output_tokens == 8
        with pytest.raises(anthropic.NotFoundError):
            api.messages.create(model="nothing", messages=PROMPT, max_tokens=8)


def test_responses_are_passed_on(server: LlamactlProcess) -> None:
    with openai_client(server) as api:
        whole = api.responses.create(model="chat", input="Say something.", max_output_tokens=8)
        assert whole.output_text
        with api.responses.create(
            model="chat", input="Say something.", max_output_tokens=8, stream=True
        ) as stream:
            kinds = [event.type for event in stream]
    assert kinds[-1] == "response.completed"
