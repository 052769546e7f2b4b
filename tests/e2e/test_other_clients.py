"""Tools, LangChain, curl, and llama-server's own paths: real clients against real llama.cpp."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import zlib
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field, SecretStr

from tests.e2e.processes import PATIENCE, LlamactlProcess, wait_for
from tests.e2e.real_llama import (
    CALL_BEGINS,
    END_TOKEN,
    KINDS,
    TEMPLATE,
    busy_slots,
    create,
    openai_client,
    post,
    serving,
)
from tests.requirements import require

PROMPT: Any = [{"role": "user", "content": "What is the weather?"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"unit": {"enum": ["celsius", "kelvin"]}},
    "required": ["unit"],
    "additionalProperties": False,
}
TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA},
}
MEANINGS = ({"unit": "celsius"}, {"unit": "kelvin"})


class Report(BaseModel):
    """What a model is to fill in."""

    place: str = Field(max_length=8)
    sky: Literal["clear", "grey"]
    degrees: int = Field(ge=0, le=9)


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamactlProcess]:
    """A server with an instance that chats and calls tools, one that embeds, one that ranks."""
    folder = tmp_path_factory.mktemp("clients")
    (folder / "tools.jinja").write_text(TEMPLATE)
    with serving(request.param, folder) as running:
        create(
            running, "chat", aliases=["org/chat:q4"], chat_template_file=str(folder / "tools.jinja")
        )
        create(running, "embed", embeddings=True, pooling="mean")
        create(running, "rank", reranking=True)
        yield running


@pytest.fixture(scope="module")
def pushed(server: LlamactlProcess) -> dict[str, int]:
    """What pushes the model to the token with which a call begins, and then to the end."""
    answer = post(server, "/llama-cpp/chat/tokenize", json={"content": CALL_BEGINS})
    return {str(answer.json()["tokens"][-1]): 100, str(END_TOKEN): 200}


# Tools and structured output


def test_a_tool_that_is_required_is_called_with_arguments_of_its_schema(
    server: LlamactlProcess, pushed: dict[str, int]
) -> None:
    with openai_client(server) as api:
        whole = api.chat.completions.create(
            model="chat",
            messages=PROMPT,
            tools=[TOOL],
            tool_choice="required",
            parallel_tool_calls=False,
            logit_bias=pushed,
            max_tokens=200,
        )
    calls = whole.choices[0].message.tool_calls
    assert calls is not None and len(calls) == 1
    call = calls[0]
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) in MEANINGS
    assert whole.choices[0].finish_reason == "tool_calls"


def test_a_streamed_tool_call_arrives_in_pieces_that_make_it_whole(
    server: LlamactlProcess, pushed: dict[str, int]
) -> None:
    with openai_client(server) as api:
        with api.chat.completions.stream(
            model="chat",
            messages=PROMPT,
            tools=[TOOL],
            tool_choice="required",
            parallel_tool_calls=False,
            logit_bias=pushed,
            max_tokens=200,
        ) as stream:
            kinds = {event.type for event in stream}
            whole = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    calls = whole.choices[0].message.tool_calls
    assert calls is not None and len(calls) == 1
    assert json.loads(calls[0].function.arguments) in MEANINGS


def test_structured_output_is_parsed_by_the_client_itself(server: LlamactlProcess) -> None:
    with openai_client(server) as api:
        whole = api.chat.completions.parse(
            model="org/chat:q4", messages=PROMPT, response_format=Report, max_tokens=300
        )
    report = whole.choices[0].message.parsed
    assert isinstance(report, Report)


def test_the_anthropic_client_gets_a_message_whole_and_streamed(server: LlamactlProcess) -> None:
    with anthropic.Anthropic(
        base_url=server.url, api_key=server.key, timeout=PATIENCE, max_retries=0
    ) as api:
        whole = api.messages.create(model="org/chat:q4", messages=PROMPT, max_tokens=6)
        assert (whole.type, whole.usage.output_tokens) == ("message", 6)
        assert whole.content[0].type == "text" and whole.content[0].text
        with api.messages.stream(model="chat", messages=PROMPT, max_tokens=6) as stream:
            assert "".join(stream.text_stream)


def test_what_a_stream_took_is_counted_without_being_asked_for(server: LlamactlProcess) -> None:
    made = server.api("POST", "/auth/keys", json={"name": "counted"}).json()
    with openai_client(server, made["key"]) as api:
        with api.completions.create(
            model="chat", prompt="Once", max_tokens=40, stream=True, extra_body={"ignore_eos": True}
        ) as stream:
            assert len(list(stream)) >= 40

    def ended() -> Any:
        newest = server.api("GET", "/activity").json()["requests"][0]
        return newest if newest["status"] == "200" else None

    entry = wait_for("the end of the request", ended)
    assert (entry["instance"], entry["key"]) == ("chat", "counted")
    assert entry["generated_tokens"] == 40
    assert entry["prompt_tokens"] > 0
    assert entry["tokens_per_second"] > 0
    assert 0 < entry["first_byte_seconds"] <= entry["seconds"]
    key = server.api("GET", f"/auth/keys/{made['id']}").json()
    assert (key["requests"], key["tokens"]) == (1, 40 + entry["prompt_tokens"])
    assert key["last_used_at"] >= key["created_at"]


# LangChain


@pytest.fixture
def langchain(server: LlamactlProcess) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=f"{server.url}/v1",
        api_key=SecretStr(server.key),
        model="org/chat:q4",
        max_completion_tokens=8,
        timeout=PATIENCE,
        max_retries=0,
    )


def test_langchain_asks_and_streams(langchain: ChatOpenAI) -> None:
    answer = langchain.invoke("Say something.")
    assert answer.text
    assert answer.usage_metadata and answer.usage_metadata["output_tokens"] == 8
    assert "".join(piece.text for piece in langchain.stream("Say something."))


def test_langchain_calls_a_tool(langchain: ChatOpenAI, pushed: dict[str, int]) -> None:
    asked = langchain.bind_tools([TOOL], tool_choice="required", parallel_tool_calls=False)
    answer = asked.invoke(
        "What is the weather?",
        logit_bias=pushed,
        max_completion_tokens=200,
    )
    (call,) = answer.tool_calls
    assert (call["name"], call["args"] in MEANINGS) == ("weather", True)


def test_langchain_fills_in_a_form(langchain: ChatOpenAI) -> None:
    filled = langchain.bind(max_completion_tokens=300).invoke(
        "Report.",
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "report", "schema": Report.model_json_schema()},
        },
    )
    assert Report.model_validate_json(filled.text)


def test_langchain_embeds(server: LlamactlProcess) -> None:
    # Counting tokens itself, as it would by default, it needs OpenAI's tables from the internet.
    embeddings = OpenAIEmbeddings(
        base_url=f"{server.url}/v1",
        api_key=SecretStr(server.key),
        model="embed",
        check_embedding_ctx_length=False,
    )
    first, second = embeddings.embed_documents(["one", "another"])
    assert len(first) == len(second) == 64
    assert first == pytest.approx(embeddings.embed_query("one"), abs=1e-4)


# curl, and llama-server's own paths


def test_curl_prints_each_event_as_it_comes_and_leaving_frees_the_slot(
    server: LlamactlProcess,
) -> None:
    body = {
        "model": "chat", "messages": PROMPT, "stream": True, "max_tokens": 16000,
        # Slow enough to be left in the middle, however fast the machine is.
        "ignore_eos": True, "n_probs": 50,
    }  # fmt: skip
    program = subprocess.Popen(
        (
            require("curl"), "--silent", "--no-buffer", f"{server.url}/v1/chat/completions",
            "--header", f"Authorization: Bearer {server.key}", "--json", json.dumps(body),
        ),
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert program.stdout is not None
    try:
        events = [line for line in (program.stdout.readline() for _ in range(6)) if line.strip()]
        assert len(events) == 3 and all(line.startswith(b"data: {") for line in events)
        assert program.poll() is None, "the rest is still being written"
        assert busy_slots(server, "chat") == 1
    finally:
        program.kill()
        program.wait(PATIENCE)
        program.stdout.close()
    left = time.monotonic()
    wait_for("the slot to be free", lambda: busy_slots(server, "chat") == 0)
    assert time.monotonic() - left < 40, "it was not written to its end"


def test_documents_are_ranked(server: LlamactlProcess) -> None:
    asked = {"model": "rank", "query": "weather", "documents": ["sun and rain", "a table"]}
    answer = post(server, "/v1/rerank", json=asked)
    assert answer.status_code == 200, answer.text
    assert {entry["index"] for entry in answer.json()["results"]} == {0, 1}


def test_text_becomes_tokens_and_text_again(server: LlamactlProcess) -> None:
    tokens = post(server, "/llama-cpp/chat/tokenize", json={"content": "zu ka"}).json()["tokens"]
    assert tokens
    text = post(server, "/llama-cpp/chat/detokenize", json={"tokens": tokens}).json()["content"]
    assert text.strip() == "zu ka"


def test_a_conversation_is_shown_as_the_model_sees_it(server: LlamactlProcess) -> None:
    answer = post(server, "/llama-cpp/chat/apply-template", json={"messages": PROMPT})
    assert "What is the weather?<|end|>" in answer.json()["prompt"]


def picture() -> str:
    """A PNG of one black pixel as a data: URL."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return len(content).to_bytes(4, "big") + kind + content + checksum.to_bytes(4, "big")

    header = chunk(b"IHDR", bytes((0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0)))
    data = chunk(b"IDAT", zlib.compress(b"\0\0"))
    raw = b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(raw).decode()


def test_what_a_text_model_cannot_do_is_said_by_the_model_and_not_by_us(
    server: LlamactlProcess,
) -> None:
    seen: Any = [{"type": "image_url", "image_url": {"url": picture()}}]
    wav = ("a.wav", b"RIFF" + bytes(60), "audio/wav")
    with openai_client(server) as api:
        with pytest.raises(openai.APIStatusError, match="image input is not supported"):
            api.chat.completions.create(
                model="chat", messages=[{"role": "user", "content": seen}], max_tokens=1
            )
        with pytest.raises(openai.APIStatusError, match="does not support audio"):
            api.audio.transcriptions.create(model="chat", file=wav)
    answer = post(server, "/llama-cpp/chat/infill", json={"input_prefix": "a", "input_suffix": "b"})
    assert "Infill is not supported" in answer.json()["error"]["message"]
