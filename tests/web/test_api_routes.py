"""Every route, asked with every kind of key; and what ``/openapi.json`` says of each."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from tests.web.conftest import with_key

VARIABLE = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")


def routes(app: Flask, prefix: str) -> Iterator[tuple[str, str]]:
    """Method and address of each route below ``prefix``, with something put for variables."""
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith(prefix):
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield method, VARIABLE.sub("1", rule.rule)


def test_every_management_route_answers_401_without_a_key(
    app: Flask, anonymous: FlaskClient
) -> None:
    asked = list(routes(app, "/api"))
    assert len(asked) > 30
    for method, path in asked:
        answer = anonymous.open(path, method=method, json={} if method in {"POST", "PUT"} else None)
        assert (answer.status_code, answer.mimetype) == (401, "application/json"), (method, path)
        assert answer.get_json()["error"] == "missing_key", (method, path)


def test_every_management_route_answers_403_with_an_inference_key(
    app: Flask, inference_key: str
) -> None:
    client = with_key(app, inference_key)
    for method, path in routes(app, "/api"):
        answer = client.open(path, method=method, json={} if method in {"POST", "PUT"} else None)
        assert answer.status_code == 403, (method, path)
        assert answer.get_json()["error"] == "permission_denied", (method, path)


def test_every_inference_route_answers_401_without_a_key(
    app: Flask, anonymous: FlaskClient
) -> None:
    asked = [*routes(app, "/v1"), *routes(app, "/llama-cpp")]
    assert asked
    for method, path in asked:
        answer = anonymous.open(path, method=method, json={} if method != "GET" else None)
        assert answer.status_code == 401, (method, path)
        assert answer.get_json()["error"]["code"] == "missing_key", (method, path)


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/v1", "/api/v1/nothing", "/api/v2/models"])
def test_an_unknown_address_below_api_is_json(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.mimetype) == (404, "application/json")
    assert answer.get_json()["error"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/v1/models/download"),
        ("PATCH", "/api/v1/instances/one"),
        ("POST", "/api/v1/version"),
        ("TRACE", "/api/v1/models"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(client: FlaskClient, method: str, path: str) -> None:
    answer = client.open(path, method=method)
    assert (answer.status_code, answer.get_json()["error"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"]


def test_no_answer_may_be_kept_by_a_cache(client: FlaskClient) -> None:
    for path in ("/api/v1/models", "/api/v1/instances", "/api/v1/version", "/api/v1/nowhere"):
        assert client.get(path).headers["Cache-Control"] == "no-store"


def test_the_interface_describes_every_route_that_programs_use(
    app: Flask, anonymous: FlaskClient
) -> None:
    answer = anonymous.get("/openapi.json")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    told = answer.get_json()
    assert told["openapi"] == "3.1.0"
    described = {(method, path) for path, item in told["paths"].items() for method in item}
    for prefix in ("/api/v1", "/v1", "/llama-cpp"):
        for rule in app.url_map.iter_rules():
            if rule.rule.startswith(prefix + "/"):
                path = VARIABLE.sub(r"{\1}", rule.rule)
                for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                    assert (method.lower(), path) in described
    ids = [one["operationId"] for item in told["paths"].values() for one in item.values()]
    assert len(ids) == len(set(ids))
    for item in told["paths"].values():
        for operation in item.values():
            assert operation["summary"].endswith("."), operation
            assert operation["responses"]


def test_the_interface_is_described_as_openapi_prescribes(anonymous: FlaskClient) -> None:
    validate(anonymous.get("/openapi.json").get_json(), cls=OpenAPIV31SpecValidator)


def test_the_interface_is_described_from_the_forms_that_check_it(anonymous: FlaskClient) -> None:
    paths = anonymous.get("/openapi.json").get_json()["paths"]
    download = paths["/api/v1/models/download"]["post"]
    schema = download["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["repo"]
    assert schema["additionalProperties"] is False
    assert {"202", "400", "401", "403", "413", "415"} <= set(download["responses"])
    start = paths["/api/v1/instances/{name}/start"]["post"]
    named = {parameter["name"]: parameter["in"] for parameter in start["parameters"]}
    assert named == {"name": "path", "wait": "query"}


def test_what_inference_takes_is_described_by_the_model_that_it_names(
    anonymous: FlaskClient,
) -> None:
    paths = anonymous.get("/openapi.json").get_json()["paths"]
    chat = paths["/v1/chat/completions"]["post"]["requestBody"]["content"]
    assert list(chat) == ["application/json"]
    assert chat["application/json"]["schema"]["required"] == ["model"]
    speech = paths["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]
    assert list(speech) == ["application/json", "multipart/form-data"]
