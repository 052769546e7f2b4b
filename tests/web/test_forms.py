"""Bodies and queries are read strictly: what is not exactly right is refused, naming the field."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import MultiDict

from llamactl.errors import InvalidRequest
from llamactl.web import schema
from llamactl.web.answers import json_answer
from llamactl.web.errors import install
from llamactl.web.jsonbody import MAX_BYTES, MAX_DEPTH, json_body, parse_json
from llamactl.web.schema import rule


@dataclass(frozen=True)
class Sample:
    repo: str = rule("The model.", longest=20, example="org/name")
    count: int = rule("How many.", default=1, minimum=0, maximum=9)
    seconds: float | None = rule("How long.", default=None, minimum=0)
    loud: bool = rule("Whether to shout.", default=False)


@pytest.fixture
def client() -> FlaskClient:
    app = Flask("echo")
    install(app)
    app.add_url_rule("/api/echo", view_func=lambda: json_answer(json_body()), methods=["POST"])
    return app.test_client()


def test_a_json_object_is_read_as_it_is(client: FlaskClient) -> None:
    sent = {"text": "Größe 模型 \U0001f999", "number": 2**60, "list": [1, 2.5, None, True, {}]}
    raw = json.dumps(sent, ensure_ascii=False).encode()
    answer = client.post("/api/echo", data=raw, content_type="application/json; charset=utf-8")
    assert (answer.status_code, answer.get_json()) == (200, sent)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not JSON"),
        (b"{", "line 1"),
        (b"repo=org/name", "not JSON"),
        (b"[]", "a list"),
        (b'"text"', "a text"),
        (b"null", "null"),
        (b"17", "a number"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too long"),
        (b'{"a": [-' + b"9" * 400 + b"]}", "too large"),
        (b'{"a": "\xff"}', "UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'{"a": 1} trailing', "not JSON"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "nested"),
        (b'{"a":' * 100_000, "nested"),
    ],
)
def test_a_body_that_is_not_one_clear_json_object_is_told_why(
    client: FlaskClient, raw: bytes, said: str
) -> None:
    answer = client.post("/api/echo", data=raw, content_type="application/json")
    assert answer.status_code == 400
    assert answer.get_json()["error"] == "invalid_request"
    assert said in answer.get_json()["details"]


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""],
)
def test_another_content_type_is_refused_so_that_no_web_page_can_post_here(
    client: FlaskClient, content_type: str
) -> None:
    answer = client.post("/api/echo", data=b"{}", content_type=content_type)
    assert answer.status_code == 415
    assert answer.get_json()["error"] == "unsupported_media_type"


def test_no_body_at_all_is_a_400(client: FlaskClient) -> None:
    assert client.post("/api/echo").status_code == 400


def test_a_body_of_more_than_a_mebibyte_is_refused(client: FlaskClient) -> None:
    raw = json.dumps({"a": "x" * MAX_BYTES}).encode()
    answer = client.post("/api/echo", data=raw, content_type="application/json")
    assert answer.status_code == 413
    assert answer.get_json()["error"] == "request_too_large"


@pytest.mark.parametrize(("size", "status"), [(MAX_BYTES, 200), (MAX_BYTES + 1, 413)])
@pytest.mark.parametrize("chunked", [True, False])
def test_the_limit_holds_whether_or_not_the_length_was_announced(
    client: FlaskClient, size: int, status: int, chunked: bool
) -> None:
    raw = b'{"a": "' + b"x" * (size - 9) + b'"}'
    answer = client.post(
        "/api/echo",
        input_stream=io.BytesIO(raw),
        content_type="application/json",
        headers={"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(size)},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert answer.status_code == status


def test_deep_but_allowed_nesting_is_read() -> None:
    depth = MAX_DEPTH - 1
    assert parse_json(b"[" * depth + b"]" * depth)


def test_what_is_left_out_has_its_default() -> None:
    assert schema.from_json(Sample, {"repo": "a/b"}) == Sample("a/b", 1, None, False)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "repo"),
        ({"repo": 17}, "repo"),
        ({"repo": None}, "repo"),
        ({"repo": ["a/b"]}, "repo"),
        ({"repo": True}, "repo"),
        ({"repo": "x" * 21}, "repo"),
        ({"repo": "a/b", "count": "1"}, "count"),
        ({"repo": "a/b", "count": 1.0}, "count"),
        ({"repo": "a/b", "count": True}, "count"),
        ({"repo": "a/b", "count": None}, "count"),
        ({"repo": "a/b", "count": 10}, "count"),
        ({"repo": "a/b", "count": -1}, "count"),
        ({"repo": "a/b", "seconds": "2"}, "seconds"),
        ({"repo": "a/b", "seconds": 10**400}, "seconds"),
        ({"repo": "a/b", "loud": 1}, "loud"),
        ({"repo": "a/b", "loud": "true"}, "loud"),
        ({"repo": "a/b", "Repo": "a/b"}, "Repo"),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        schema.from_json(Sample, body)
    assert caught.value.field == field
    assert field in caught.value.details


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ([("repo", "a/b")], Sample("a/b")),
        ([("repo", "a/b"), ("count", "3"), ("loud", "true")], Sample("a/b", 3, None, True)),
        ([("repo", "a/b"), ("seconds", "2.5"), ("loud", "0")], Sample("a/b", 1, 2.5, False)),
    ],
)
def test_a_query_spells_numbers_and_yes_or_no(
    text: list[tuple[str, str]], expected: Sample
) -> None:
    assert schema.from_query(Sample, MultiDict(text)) == expected


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ([("repo", "a/b"), ("repo", "c/d")], "repo"),
        ([("repo", "a/b"), ("count", "1e1")], "count"),
        ([("repo", "a/b"), ("count", "１")], "count"),
        ([("repo", "a/b"), ("seconds", "nan")], "seconds"),
        ([("repo", "a/b"), ("seconds", "inf")], "seconds"),
        ([("repo", "a/b"), ("seconds", "-1")], "seconds"),
        ([("repo", "a/b"), ("loud", "maybe")], "loud"),
        ([("repo", "a/b"), ("tga", "x")], "tga"),
        ([], "repo"),
    ],
)
def test_a_query_that_says_something_else_is_refused(
    text: list[tuple[str, str]], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        schema.from_query(Sample, MultiDict(text))
    assert caught.value.field == field


def test_a_form_describes_what_it_accepts() -> None:
    described = schema.json_schema(Sample)
    assert described["required"] == ["repo"]
    assert described["additionalProperties"] is False
    properties = described["properties"]
    assert isinstance(properties, dict)
    assert properties["repo"] == {
        "type": "string",
        "description": "The model.",
        "maxLength": 20,
        "example": "org/name",
    }
    assert properties["count"]["default"] == 1
    assert properties["seconds"]["type"] == ["number", "null"]
    named = {parameter["name"]: parameter for parameter in schema.query_parameters(Sample)}
    assert named["repo"]["required"] is True
    assert named["seconds"]["schema"] == {"type": "number", "minimum": 0}
