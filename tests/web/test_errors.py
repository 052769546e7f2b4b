"""Errors leave in the form that their address calls for, and give nothing away."""

from __future__ import annotations

import inspect
import json
import time

import pytest
from flask import Flask, Response, abort
from flask.testing import FlaskClient
from jinja2 import DictLoader
from werkzeug.exceptions import HTTPException

from llamactl import errors
from llamactl.web.errors import STATUSES, install, problem_of, status_of

PREFIXES = ("/api/v1", "/v1", "/llama-cpp/some", "")


def every_class() -> list[type[errors.LlamactlError]]:
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    return [kind for kind in found if issubclass(kind, errors.LlamactlError)]


@pytest.fixture
def client() -> FlaskClient:
    """An application that fails in every way, under each kind of address."""
    app = Flask("failing")
    app.jinja_loader = DictLoader({"error.html": "<h1>{{ problem.details }}</h1>"})
    app.url_map.strict_slashes = False
    install(app)

    def boom(kind: str) -> Response:
        if kind == "bug":
            raise ZeroDivisionError("the secret is 42")
        if kind == "abort":
            abort(413)
        if kind == "body":
            abort(Response("its own", 418))
        if kind == "start":
            raise errors.StartFailed("It died", log_lines=["line one", "line <two>"])
        if kind == "limited":
            raise errors.RateLimited("Too much", retry_at=time.time() + 30)
        if kind == "field":
            raise errors.InvalidRequest("repo is wrong", field="repo")
        raise next(each for each in every_class() if each.code == kind)("It is so", hint="Do this")

    for prefix in PREFIXES:
        app.add_url_rule(f"{prefix}/boom/<kind>", f"boom{prefix}", boom, methods=["GET"])
    return app.test_client()


def test_every_error_class_has_a_status_of_its_own_or_of_its_nearest_parent() -> None:
    for kind in every_class():
        assert 400 <= status_of(kind("x")) < 600, kind
    assert status_of(errors.InvalidInstanceName("x")) == 400
    assert status_of(errors.JobNotFound("x")) == 404
    assert status_of(errors.ModelInUse("x")) == 409
    assert status_of(errors.InvalidKey("x")) == 401
    assert status_of(errors.PermissionDenied("x")) == 403
    assert status_of(errors.QueueFull("x")) == 429
    assert status_of(errors.StartFailed("x")) == 503
    assert set(STATUSES) <= set(every_class())


def test_a_hub_that_refuses_us_is_never_a_401_to_our_client() -> None:
    transfers = [kind for kind in every_class() if issubclass(kind, errors.TransferError)]
    assert transfers
    assert not {401} & {status_of(kind("x")) for kind in transfers}


def test_management_errors_have_a_code_and_a_sentence(client: FlaskClient) -> None:
    answer = client.get("/api/v1/boom/job_not_found")
    assert answer.status_code == 404
    assert answer.get_json() == {"error": "job_not_found", "details": "It is so. Do this."}
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("prefix", ["/v1", "/llama-cpp/some"])
def test_inference_errors_have_the_form_that_openai_clients_read(
    client: FlaskClient, prefix: str
) -> None:
    answer = client.get(f"{prefix}/boom/field")
    assert answer.status_code == 400
    assert answer.get_json() == {
        "error": {
            "message": "repo is wrong.",
            "type": "invalid_request_error",
            "code": "invalid_request",
            "param": "repo",
        }
    }
    assert client.get(f"{prefix}/boom/upstream_gone").get_json()["error"]["type"] == "server_error"


def test_errors_of_pages_are_pages(client: FlaskClient) -> None:
    answer = client.get("/boom/instance_not_found")
    assert answer.status_code == 404
    assert answer.mimetype == "text/html"
    assert answer.text == "<h1>It is so. Do this.</h1>"


def test_an_error_page_that_cannot_be_drawn_is_still_an_answer() -> None:
    app = Flask("bare")
    app.jinja_loader = DictLoader({"error.html": "{{ missing.attribute }}"})
    install(app)
    answer = app.test_client().get("/nowhere")
    assert answer.status_code == 404
    assert answer.mimetype == "text/plain"
    assert "nothing at this address" in answer.text


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_bug_is_told_without_its_trace_and_logged_with_it(
    client: FlaskClient, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get(f"{prefix}/boom/bug")
    assert answer.status_code == 500
    assert "42" not in answer.text
    assert "Traceback" not in answer.text
    assert "ZeroDivisionError" in caplog.text


def test_an_address_writes_no_line_of_its_own_into_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Flask("bare")
    install(app)
    app.add_url_rule("/v1/<rest>", view_func=lambda rest: {}[rest])
    assert app.test_client().get("/v1/a%0A2026 INFO all is well").status_code == 500
    assert "GET '/v1/a\\n2026 INFO all is well' failed" in caplog.messages


@pytest.mark.parametrize(
    ("path", "method", "status", "code"),
    [
        ("/nowhere", "GET", 404, "not_found"),
        ("/boom/bug", "POST", 405, "method_not_allowed"),
        ("/boom/abort", "GET", 413, "request_too_large"),
        ("//boom/abort", "GET", 404, "not_found"),
    ],
)
@pytest.mark.parametrize("prefix", ["/api/v1", "/v1", "/llama-cpp/some"])
def test_errors_of_http_itself_are_json_where_clients_expect_json(
    client: FlaskClient, prefix: str, path: str, method: str, status: int, code: str
) -> None:
    answer = client.open(prefix + path, method=method)
    assert answer.status_code == status
    assert answer.mimetype == "application/json"
    told = json.loads(answer.data)
    assert code == (told["error"] if prefix == "/api/v1" else told["error"]["code"])
    assert status != 405 or "GET" in answer.headers["Allow"]


def test_an_answer_that_was_made_on_purpose_is_left_alone(client: FlaskClient) -> None:
    answer = client.get("/api/v1/boom/body")
    assert (answer.status_code, answer.text) == (418, "its own")


def test_a_failed_start_tells_its_last_log_lines(client: FlaskClient) -> None:
    told = client.get("/api/v1/boom/start").get_json()
    assert told["error"] == "start_failed"
    assert told["details"] == "It died.\nline one\nline <two>"


def test_retry_after_is_whole_seconds_and_at_least_one(client: FlaskClient) -> None:
    wait = problem_of(errors.ShuttingDown("x", retry_after=0.2)).headers["Retry-After"]
    assert wait == "1"
    assert problem_of(errors.QueueFull("x", retry_after=2.1)).headers["Retry-After"] == "3"
    assert "Retry-After" not in problem_of(errors.StartTimeout("x")).headers
    assert 1 <= int(client.get("/api/v1/boom/limited").headers["Retry-After"]) <= 30


def test_a_missing_key_is_asked_for_by_its_scheme(client: FlaskClient) -> None:
    answer = client.get("/api/v1/boom/missing_key")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_refused_host_name_is_told_the_setting_that_allows_it(client: FlaskClient) -> None:
    client.application.config["TRUSTED_HOSTS"] = ["localhost"]
    answer = client.get("/api/v1/boom/bug", base_url="http://evil.example")
    assert answer.status_code == 400
    assert "server.allowed_hosts" in answer.get_json()["details"]
    assert client.get("/boom/bug", base_url="http://evil.example").status_code == 400


def test_every_http_error_of_werkzeug_can_be_told() -> None:
    pending = list(HTTPException.__subclasses__())
    while pending:
        kind = pending.pop()
        pending.extend(kind.__subclasses__())
        if kind.code is not None and kind.__name__ != "RequestRedirect":
            assert problem_of(kind()).details
