"""Real answers beside what ``/openapi.json`` says of them: every field is described, and no more.

The description is made from the types that the answers are made of, which mypy compares; here it is
compared with what leaves the server.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from flask.testing import FlaskClient

from llamactl.runtime import Runtime
from llamactl.web.answer_schema import components, schema_of
from tests.fakes.fake_hub import FakeHub
from tests.fakes.gguf_files import tiny_gguf
from tests.web.conftest import PATIENCE, Instances, Models

Json = Mapping[str, Any]
MODELS = "/api/v1/models"


@pytest.fixture
def described(client: FlaskClient) -> Json:
    told: Json = client.get("/openapi.json").get_json()
    return told


def strict(described: Json, schema: Json) -> jsonschema_rs.Draft202012Validator:
    """A validator to which a field that is not described is an error."""
    known = copy.deepcopy(described["components"]["schemas"])
    for component in known.values():
        if "properties" in component:
            component["additionalProperties"] = False
    return jsonschema_rs.Draft202012Validator({**schema, "components": {"schemas": known}})


def gives(described: Json, path: str, method: str, status: int) -> Json:
    """What is said of one answer: its content by type."""
    answer = described["paths"][path][method]["responses"][str(status)]
    content: Json = answer.get("content", {})
    return content


def check(described: Json, path: str, method: str, answer: Any) -> None:
    content = gives(described, path, method, answer.status_code)
    assert answer.mimetype in content, (method, path, answer.status_code, answer.text)
    if answer.mimetype == "application/json":
        strict(described, content["application/json"]["schema"]).validate(answer.get_json())


def test_every_answer_of_a_question_is_described_to_the_last_field(
    client: FlaskClient,
    described: Json,
    models: Models,
    instances: Instances,
    repo: str,
    inference_key: str,
    tmp_path: Path,
) -> None:
    (model,) = tiny_gguf(tmp_path / "tiny.gguf")
    instances.create("one", backend_options={"model": str(model)}, aliases=["org/one:latest"])
    instances.do("one", "start", wait=PATIENCE)
    prompt = {"model": "one", "max_tokens": 2, "messages": []}
    assert client.post("/v1/chat/completions", json=prompt).status_code == 200
    job = models.fetch(f"{repo}:Q4_K_M")["id"]
    values = {"{name}": "one", "{job_id}": job, "{key_id}": "1", "{model}": "org/one:latest"}
    queries = {"/variants": f"?repo={repo}", "/search": "?q=llama", "/updates": f"?repo={repo}"}
    asked = 0
    for path, methods in described["paths"].items():
        # What an instance answers is its own.
        if (
            "get" not in methods
            or "/proxy/" in path
            or "{rest}" in path
            or "/llama-cpp/{name}/models" in path
        ):
            continue
        address = path
        for name, value in values.items():
            address = address.replace(name, value)
        end = path.rpartition("/")[2]
        answer = client.get(address + queries.get(f"/{end}", ""))
        assert answer.status_code == 200, (address, answer.text)
        check(described, path, "get", answer)
        asked += 1
    assert asked > 25


def test_every_answer_of_a_change_is_described_to_the_last_field(
    client: FlaskClient, described: Json, models: Models, hub: FakeHub, repo: str, tmp_path: Path
) -> None:
    (model,) = tiny_gguf(tmp_path / "tiny.gguf")
    options = {"backend_options": {"model": str(model), "extra_args": {"x-y": "1"}}}
    models.fetch(f"{repo}:Q4_K_M")
    hub.throttle(20_000)
    job = models.download(f"{repo}:Q8_0").get_json()["job_id"]
    models.wait(job, "downloading")
    steps: list[tuple[str, str, Json, Any]] = [
        ("post", f"{MODELS}/download", {}, {"repo": f"{repo}:Q4_K_M"}),
        ("post", f"{MODELS}/jobs/{{job_id}}/pause", {"job_id": job}, None),
        ("post", f"{MODELS}/jobs/{{job_id}}/resume", {"job_id": job}, None),
        ("post", f"{MODELS}/jobs/{{job_id}}/retry", {"job_id": job}, None),
        ("post", f"{MODELS}/verify?repo={repo}&tag=Q4_K_M", {}, None),
        ("put", f"{MODELS}/settings", {}, {"max_concurrent": 3}),
        ("post", "/api/v1/instances/{name}", {"name": "one"}, options),
        ("put", "/api/v1/instances/{name}", {"name": "one"}, {"backend_options": {}}),
        ("post", "/api/v1/instances/{name}/start", {"name": "none"}, None),
        ("post", "/api/v1/instances/{name}/stop", {"name": "one"}, None),
        ("post", "/api/v1/auth/keys", {}, {"name": "lab"}),
        ("post", "/api/v1/auth/keys", {}, {"name": ""}),
        ("post", "/api/v1/backends/llama-cpp/parse-command", {}, {"command": "llama-server -m x"}),
    ]
    seen = set()
    for method, path, values, body in steps:
        answer = client.open(path.format(**values), method=method.upper(), json=body)
        check(described, path.partition("?")[0], method, answer)
        seen.add(answer.status_code)
    assert {200, 201, 202, 400, 404, 409} <= seen


def test_an_answer_with_one_field_more_or_less_would_be_noticed(
    client: FlaskClient, described: Json, runtime: Runtime
) -> None:
    schema = gives(described, "/api/v1/version", "get", 200)["application/json"]["schema"]
    told = client.get("/api/v1/version").get_json()
    validator = strict(described, schema)
    validator.validate(told)
    assert not validator.is_valid({**told, "more": 1})
    assert not validator.is_valid({"version": told["version"]})
    assert not validator.is_valid({**told, "started_at": "now"})


def test_every_reference_leads_to_a_component(described: Json) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for name, inner in value.items():
                if name == "$ref":
                    yield inner
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    known = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    used = set(references(described))
    assert used <= known
    assert {"Job", "Model", "Instance", "Key", "DownloadSettings", "Plan", "Variant"} <= set(
        described["components"]["schemas"]
    )
    assert known <= used, "a component that nothing refers to"


def test_a_type_that_no_json_has_is_refused_when_it_is_described() -> None:
    with pytest.raises(TypeError, match="Path"):
        schema_of(dict[str, list[Path]])
    assert components(iter([list[int], None])) == {}
