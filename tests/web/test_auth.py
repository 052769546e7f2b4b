"""Keys are asked for in headers, and only there; each kind opens what it is for."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient

from llamactl.access.keys import Keys
from llamactl.access.management import management_secrets
from llamactl.config import Config
from llamactl.database import Database
from llamactl.web.answers import json_answer
from llamactl.web.auth import (
    authenticate_inference,
    authenticate_management,
    management_required,
    principal,
)
from llamactl.web.errors import install

MakeClient = Callable[[Config], FlaskClient]


@pytest.fixture
def keys(config: Config, database: Database) -> Keys:
    return Keys(config, database)


@pytest.fixture
def management_key(config: Config) -> str:
    return management_secrets(config)[0].reveal()


@pytest.fixture
def inference_key(keys: Keys) -> str:
    return keys.create("someone")[1].reveal()


@pytest.fixture
def make_client(keys: Keys) -> MakeClient:
    """An application with one route of each kind, over real keys."""

    def make(config: Config) -> FlaskClient:
        app = Flask("guarded")
        app.extensions["llamactl"] = SimpleNamespace(config=config, keys=keys)
        install(app)

        @app.route("/api/v1/thing", methods=["GET", "POST"])
        @management_required
        def thing() -> Response:
            return json_answer({"kind": principal().kind, "name": principal().name})

        @app.get("/v1/thing")
        def inference() -> Response:
            return json_answer({"kind": authenticate_inference().kind})

        @app.get("/api/v1/plain")
        def plain() -> Response:
            authenticate_management()
            return json_answer({})

        return app.test_client()

    return make


@pytest.fixture
def client(make_client: MakeClient, config: Config) -> FlaskClient:
    return make_client(config)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_management_key_opens_management_by_either_header(
    client: FlaskClient, management_key: str
) -> None:
    for headers in (
        bearer(management_key),
        {"Authorization": f"bearer   {management_key} "},
        {"X-API-Key": management_key},
    ):
        answer = client.get("/api/v1/thing", headers=headers)
        assert (answer.status_code, answer.get_json()["kind"]) == (200, "management")
    assert client.get("/api/v1/plain", headers=bearer(management_key)).status_code == 200


def test_no_key_is_told_how_to_send_one(client: FlaskClient) -> None:
    answer = client.get("/api/v1/thing")
    assert answer.status_code == 401
    assert answer.get_json()["error"] == "missing_key"
    assert "Authorization: Bearer" in answer.get_json()["details"]
    assert client.get("/v1/thing").get_json()["error"]["code"] == "missing_key"


def test_a_wrong_key_is_a_401_that_does_not_repeat_it(client: FlaskClient) -> None:
    for headers in (bearer("wrong-key-1"), {"X-API-Key": "wrong-key-1"}, bearer("größe")):
        answer = client.get("/api/v1/thing", headers=headers)
        assert (answer.status_code, answer.get_json()["error"]) == (401, "invalid_key")
        assert "wrong-key-1" not in answer.text


@pytest.mark.parametrize("value", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer  ", "", "xyz"])
def test_an_authorization_header_of_another_form_is_a_401(client: FlaskClient, value: str) -> None:
    answer = client.get("/api/v1/thing", headers={"Authorization": value})
    assert (answer.status_code, answer.get_json()["error"]) == (401, "invalid_key")


def test_authorization_counts_where_both_headers_are_sent(
    client: FlaskClient, management_key: str
) -> None:
    right_then_wrong = {**bearer(management_key), "X-API-Key": "wrong"}
    assert client.get("/api/v1/thing", headers=right_then_wrong).status_code == 200
    wrong_then_right = {**bearer("wrong"), "X-API-Key": management_key}
    assert client.get("/api/v1/thing", headers=wrong_then_right).status_code == 401


@pytest.mark.parametrize("name", ["api_key", "key", "access_token"])
def test_a_key_in_the_query_is_refused_even_if_it_is_right(
    client: FlaskClient, management_key: str, name: str
) -> None:
    for path in ("/api/v1/thing", "/v1/thing"):
        answer = client.get(
            path, query_string={name: management_key}, headers=bearer(management_key)
        )
        assert answer.status_code == 400
        assert "Authorization: Bearer" in answer.text
        assert management_key not in answer.text


def test_an_inference_key_opens_inference_and_not_management(
    client: FlaskClient, inference_key: str, management_key: str
) -> None:
    assert client.get("/v1/thing", headers=bearer(inference_key)).status_code == 200
    assert client.get("/v1/thing", headers=bearer(management_key)).status_code == 200
    answer = client.get("/api/v1/thing", headers=bearer(inference_key))
    assert (answer.status_code, answer.get_json()["error"]) == (403, "permission_denied")


def test_a_cookie_opens_nothing_here(client: FlaskClient, management_key: str) -> None:
    for name in ("llamactl", "llamactl-session", "session", "key"):
        client.set_cookie(name, management_key)
    assert client.get("/api/v1/thing").status_code == 401


def test_without_required_management_keys_everyone_manages(
    make_client: MakeClient, make_config: Callable[..., Config], inference_key: str
) -> None:
    open_client = make_client(make_config({"auth.require_management_auth": False}))
    assert open_client.get("/api/v1/thing").get_json()["kind"] == "management"
    for headers in (bearer("anything"), bearer(inference_key)):
        assert open_client.post("/api/v1/thing", headers=headers).status_code == 200
    assert open_client.get("/v1/thing").status_code == 401


def test_without_required_inference_keys_management_still_wants_one(
    make_client: MakeClient, make_config: Callable[..., Config]
) -> None:
    open_client = make_client(make_config({"auth.require_inference_auth": False}))
    assert open_client.get("/v1/thing").get_json()["kind"] == "inference"
    assert open_client.get("/v1/thing", headers=bearer("no-key-needed")).status_code == 200
    assert open_client.get("/api/v1/thing").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_without_keys_a_page_of_another_site_changes_nothing(
    make_client: MakeClient, make_config: Callable[..., Config], headers: dict[str, str]
) -> None:
    open_client = make_client(make_config({"auth.require_management_auth": False}))
    answer = open_client.post("/api/v1/thing", headers=headers)
    assert (answer.status_code, answer.get_json()["error"]) == (403, "permission_denied")
    own = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}
    assert open_client.post("/api/v1/thing", headers=own).status_code == 200


def test_wrong_keys_are_slowed_down_and_right_ones_never(
    client: FlaskClient, management_key: str
) -> None:
    answers = [client.get("/api/v1/thing", headers=bearer("wrong")) for _ in range(30)]
    assert answers[0].status_code == 401
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert client.get("/api/v1/thing", headers=bearer(management_key)).status_code == 200
