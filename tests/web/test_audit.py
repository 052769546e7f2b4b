"""The audit, seen from outside: what people and programs do here is written down, and no more."""

from __future__ import annotations

import dataclasses
import re
import sqlite3
from collections.abc import Sequence
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from llamactl.runtime import Runtime
from tests.fakes.gguf_files import tiny_gguf
from tests.web.conftest import Instances, Models, with_key
from tests.web.visitor import Visitor

HERE = "127.0.0.1"


def rows(client: FlaskClient, **query: object) -> Sequence[Any]:
    """The entries, the oldest first."""
    answer = client.get("/api/v1/audit", query_string=query)
    assert answer.status_code == 200, answer.text
    return list(reversed(answer.get_json()["entries"]))


def told(client: FlaskClient) -> list[tuple[str, str, int]]:
    return [(entry["what"], entry["about"], entry["status"]) for entry in rows(client)]


def test_what_a_program_changes_is_written_down_with_its_end(
    client: FlaskClient, instances: Instances, models: Models
) -> None:
    instances.create("one", backend_options={"model": "/nowhere.gguf"}, aliases=["a"])
    models.download("not a reference")
    client.delete("/api/v1/models", query_string={"repo": "org/name", "tag": "Q8_0"})
    client.put("/api/v1/models/settings", json={"max_concurrent": 3})
    client.delete("/api/v1/instances/one")
    assert told(client) == [
        ("POST /api/v1/instances/one", "backend_options; aliases", 201),
        ("POST /api/v1/backends/llama-cpp/models/download", "repo=not a reference", 400),
        ("DELETE /api/v1/models", "repo=org/name; tag=Q8_0", 404),
        ("PUT /api/v1/models/settings", "max_concurrent=3", 200),
        ("DELETE /api/v1/instances/one", "", 204),
    ]
    (who,) = {entry["who"] for entry in rows(client)}
    assert re.fullmatch(r"management key [0-9a-f]{6}", who)
    assert {entry["source"] for entry in rows(client)} == {HERE}


def test_what_a_person_does_on_the_pages_is_written_down_by_session(
    client: FlaskClient, anonymous: FlaskClient, management_key: str
) -> None:
    visitor = Visitor(anonymous)
    visitor.log_in(management_key)
    visitor.open("/keys")
    visitor.press("Make key", name="lab")
    visitor.press("Revoke lab")
    visitor.press("Revoke key")
    visitor.press("Log out")
    login, made, revoked, left = rows(client)
    assert re.fullmatch(r"management key [0-9a-f]{6}", login["who"])
    assert re.fullmatch(r"session [0-9a-f]{6}", login["about"])
    assert (login["what"], login["status"]) == ("POST /login", 303)
    assert (made["what"], made["about"]) == (
        "POST /keys",
        "key 1; name=lab; permission_mode=allow_all",
    )
    assert revoked["what"] == "POST /keys/1/revoke"
    assert left["what"] == "POST /logout"
    assert {made["who"], revoked["who"], left["who"]} == {login["about"]}


def test_looking_and_asking_models_is_not_written_down(
    client: FlaskClient, instances: Instances, inference_key: str, app: Flask, tmp_path: Any
) -> None:
    (model,) = tiny_gguf(tmp_path / "tiny.gguf")
    instances.create("one", backend_options={"model": str(model)})
    instances.do("one", "start", wait=30)
    before = len(rows(client))
    prompt = {"model": "one", "messages": [{"role": "user", "content": "a secret thought"}]}
    for asking in (client, with_key(app, inference_key)):
        assert asking.post("/v1/chat/completions", json=prompt).status_code == 200
    through = "/api/v1/instances/one/proxy/v1/chat/completions"
    assert client.post(through, json=prompt).status_code == 200
    for path in ("/api/v1/instances", "/api/v1/config", "/models", "/healthz", "/metrics"):
        client.get(path)
    assert len(rows(client)) == before
    assert client.post("/api/v1/instances/one/proxy/props", json={}).status_code != 401
    assert rows(client)[-1]["what"] == "POST /api/v1/instances/one/proxy/props"


def test_a_refused_key_is_written_down_without_the_key(
    client: FlaskClient, anonymous: FlaskClient
) -> None:
    wrong = {"Authorization": "Bearer wrong-key-that-someone-tried"}
    for path in ("/v1/models", "/api/v1/keys", "/api/v1/instances"):
        anonymous.get(path, headers=wrong)
    (entry,) = rows(client)
    assert (entry["who"], entry["refused"], entry["status"]) == ("unknown", True, 401)
    assert entry["what"] == "GET /v1/models"


def test_a_key_that_tries_what_it_may_not_is_named(
    app: Flask, client: FlaskClient, inference_key: str
) -> None:
    assert with_key(app, inference_key).delete("/api/v1/instances/x").status_code == 403
    (entry,) = rows(client)
    assert (entry["who"], entry["refused"], entry["status"]) == ("key 1 (tests)", True, 403)
    assert entry["what"] == "DELETE /api/v1/instances/x"


def test_a_client_without_a_key_is_no_row(client: FlaskClient, anonymous: FlaskClient) -> None:
    for path in ("/v1/models", "/api/v1/instances", "/metrics", "/models", "/nowhere"):
        anonymous.get(path)
    anonymous.post("/v1/chat/completions", json={})
    assert rows(client) == []


def test_a_wrong_login_and_a_forged_form_are_refusals(
    client: FlaskClient, anonymous: FlaskClient
) -> None:
    visitor = Visitor(anonymous)
    visitor.log_in("not the key")
    anonymous.post("/keys", headers={"Sec-Fetch-Site": "cross-site"})
    (entry,) = rows(client)
    assert (entry["what"], entry["who"], entry["status"]) == ("POST /login", "unknown", 401)


def test_a_forged_form_is_not_put_down_to_the_session_that_it_rode_on(
    client: FlaskClient, anonymous: FlaskClient, management_key: str
) -> None:
    Visitor(anonymous).log_in(management_key)
    anonymous.post("/keys", data={"csrf_token": "forged"})
    entry = rows(client)[-1]
    assert (entry["who"], entry["refused"], entry["status"]) == ("unknown", True, 403)


def test_no_row_holds_a_secret_or_the_value_of_an_option(
    client: FlaskClient,
    runtime: Runtime,
    anonymous: FlaskClient,
    management_key: str,
    instances: Instances,
) -> None:
    hidden = ["hf_" + "s" * 30, "sk-" + "t" * 30, "/private/path.gguf"]
    instances.create(
        "one",
        backend_options={"model": hidden[2], "extra_args": {"x": hidden[1]}},
        environment={"TOKEN": hidden[0]},
        command_override=hidden[1],
    )
    client.post("/api/v1/backends/llama-cpp/parse-command", json={"command": hidden[1]})
    client.post("/api/v1/auth/keys", json={"name": "lab", hidden[1]: 1})
    client.post("/api/v1/auth/keys?note=" + hidden[0], json={"name": "lab"})
    Visitor(anonymous).log_in(management_key)
    cookie = anonymous.get_cookie("llamactl-session")
    assert cookie is not None
    for secret in (*hidden, management_key, cookie.value):
        assert secret not in client.get("/api/v1/audit").text
        assert secret not in anonymous.get("/system/audit").text
    assert len(rows(client)) == 5


def test_what_is_gone_is_said(
    client: FlaskClient, anonymous: FlaskClient, runtime: Runtime, management_key: str
) -> None:
    Visitor(anonymous).log_in(management_key)
    runtime.audit._kept = 3
    for number in range(5):
        client.delete(f"/api/v1/instances/none-{number}")
    answer = client.get("/api/v1/audit").get_json()
    assert (answer["kept"], answer["forgotten"]) == (3, 3)
    page = anonymous.get("/system/audit").text
    assert "3 entries are kept; 3 older ones are gone" in " ".join(page.split())


def test_the_page_shows_the_rows_and_leads_to_older_ones(
    client: FlaskClient, anonymous: FlaskClient, management_key: str
) -> None:
    visitor = Visitor(anonymous)
    visitor.log_in(management_key)
    for number in range(4):
        client.delete(f"/api/v1/instances/none-{number}")
    page = visitor.open("/system/audit?limit=3")
    shown = [row.one("code").text for row in page.one("tbody").all("tr")]
    assert shown == [f"DELETE /api/v1/instances/none-{n}" for n in (3, 2, 1)]
    (older,) = [link["href"] for link in page.all("a") if link.text == "Older"]
    page = visitor.open(older)
    shown = [row.one("code").text for row in page.one("tbody").all("tr")]
    assert shown == ["DELETE /api/v1/instances/none-0", "POST /login"]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "before=0", "before=x", "who=1"])
def test_a_wrong_question_is_told_the_field(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/api/v1/audit?{query}")
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_request")


def test_an_audit_that_cannot_be_written_is_logged_and_the_answer_stands(
    client: FlaskClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(runtime.audit, "done", full)
    answer = client.post("/api/v1/instances/one", json={"backend_options": {"model": "/x.gguf"}})
    assert answer.status_code == 201
    assert "could not be written to the audit" in caplog.text


def test_where_no_key_is_asked_for_anyone_is_written_down_with_the_address(
    app: Flask, runtime: Runtime
) -> None:
    auth = dataclasses.replace(runtime.config.auth, require_management_auth=False)
    runtime.config = dataclasses.replace(runtime.config, auth=auth)
    program, visitor = app.test_client(), Visitor(app.test_client())
    peer = {"REMOTE_ADDR": "192.0.2.7"}
    program.delete("/api/v1/instances/none", environ_overrides=peer)
    visitor.open("/keys")
    visitor.press("Make key", name="lab")
    program.delete("/api/v1/instances/x", headers={"Sec-Fetch-Site": "cross-site"})
    shown = [(entry["who"], entry["what"], entry["source"]) for entry in rows(program)]
    assert shown[0] == ("anyone", "DELETE /api/v1/instances/none", "192.0.2.7")
    assert shown[1] == ("anyone", "POST /keys", HERE)
    assert len(shown) == 2, "a page of another site is not anyone"


def test_a_key_in_the_place_of_something_else_is_not_kept(
    client: FlaskClient, management_key: str, inference_key: str
) -> None:
    for key in (management_key, inference_key):
        client.delete(f"/api/v1/instances/{key}")
        client.post("/api/v1/auth/keys", json={"name": key, "permission_mode": "allow_all"})
        client.delete("/api/v1/models", query_string={"repo": f"org/{key}"})
    answer = client.get("/api/v1/audit")
    assert management_key not in answer.text and inference_key not in answer.text
    assert f"DELETE /api/v1/instances/{inference_key[:6]}***" in answer.text


def test_an_address_with_a_line_end_is_one_line(client: FlaskClient) -> None:
    client.delete("/api/v1/instances/one%0Atwo")
    assert told(client) == [("DELETE /api/v1/instances/one two", "", 404)]
