"""What a key may not use answers as what does not exist, and our errors are known for ours."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from llamactl.runtime import Runtime
from tests.fakes.gguf_files import tiny_gguf
from tests.web.conftest import PATIENCE, Instances, with_key

SECRET = "hidden"
ALIAS = "org/hidden:q4"


@pytest.fixture
def hidden(instances: Instances, tmp_path: Path) -> str:
    """An instance that the key of ``stranger`` may not use."""
    (model,) = tiny_gguf(tmp_path / "tiny.gguf")
    options = {"backend_options": {"model": str(model)}}
    assert instances.create("own", **options).status_code == 201
    assert instances.create(SECRET, aliases=[ALIAS], **options).status_code == 201
    return SECRET


@pytest.fixture
def stranger(app: Flask, runtime: Runtime, instances: Instances, hidden: str) -> FlaskClient:
    ids = [instances.get("own")["id"]]
    return with_key(app, runtime.keys.create("stranger", "per_instance", ids)[1].reveal())


def asked(client: FlaskClient, model: str) -> list[tuple[int, Any, dict[str, str]]]:
    """Each way to name a model, and how it is answered, the name itself taken out."""
    body = {"model": model, "messages": []}
    sound = (BytesIO(b"RIFF"), "a.wav")
    answers = [
        client.post("/v1/chat/completions", json=body),
        client.post("/v1/audio/transcriptions", data={"model": model, "file": sound}),
        client.get(f"/v1/models/{model}"),
    ]
    if "/" not in model:
        answers.append(client.post(f"/llama-cpp/{model}/completion", json=body))
        answers.append(client.get(f"/llama-cpp/{model}/props"))
    return [
        (answer.status_code, answer.text.replace(model, "NAME"), dict(answer.headers))
        for answer in answers
    ]


def test_a_name_that_is_not_known_is_answered_with_where_they_are_listed(
    stranger: FlaskClient,
) -> None:
    answers = asked(stranger, "nobody")
    assert all("GET /v1/models lists" in text for _, text, _ in answers)


@pytest.mark.parametrize("state", ["stopped", "running"])
@pytest.mark.parametrize(
    ("forbidden", "unknown"), [(SECRET, "nobody"), (ALIAS, "org/nobody:q4"), (f"{SECRET}/x", "y/x")]
)
def test_what_is_forbidden_answers_as_what_does_not_exist(
    stranger: FlaskClient, instances: Instances, state: str, forbidden: str, unknown: str
) -> None:
    if state == "running":
        assert instances.do(SECRET, "start", wait=PATIENCE).status_code == 200
    told = asked(stranger, forbidden)
    pairs = zip(told, asked(stranger, unknown), strict=True)
    for (status, text, headers), (status2, text2, headers2) in pairs:
        assert (status, text) == (status2, text2)
        assert status == 404, text
        assert "model_not_found" in text
        different = {"Content-Length", "Date"}
        assert {k: v for k, v in headers.items() if k not in different} == {
            k: v for k, v in headers2.items() if k not in different
        }


def test_what_is_forbidden_is_not_started(stranger: FlaskClient, instances: Instances) -> None:
    asked(stranger, SECRET)
    asked(stranger, ALIAS)
    shown = instances.get(SECRET)
    assert (shown["status"], shown["last_used"]) == ("stopped", None)
    listed = stranger.get("/v1/models").get_json()["data"]
    assert [model["id"] for model in listed] == ["own"]


def test_an_error_of_ours_is_told_from_one_of_the_model(
    stranger: FlaskClient, instances: Instances
) -> None:
    ours = stranger.post("/v1/chat/completions", json={"model": "nobody"})
    assert ours.headers["X-Llamactl-Error"] == ours.get_json()["error"]["code"]
    instances.do("own", "start", wait=PATIENCE)
    path = "/llama-cpp/own/completion"
    theirs = stranger.post(path, json={"fake": {"status": 404}})
    assert theirs.status_code == 404
    assert "X-Llamactl-Error" not in theirs.headers
