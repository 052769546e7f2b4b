"""A page of another site cannot act through the browser of someone who is logged in."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from llamactl.runtime import Runtime
from tests.web.browsers import address, unsafe_page_rules
from tests.web.visitor import Visitor

FORGERIES: list[tuple[str, dict[str, Any]]] = [
    ("no token", {"data": {}}),
    ("a stranger's token", {"data": {"csrf_token": "0" * 43}}),
    ("an empty token", {"data": {"csrf_token": ""}}),
    ("text/plain", {"data": "csrf_token={token}", "content_type": "text/plain"}),
    ("JSON", {"json": {"csrf_token": "{token}"}}),
]
FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "null"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://localhost:9999"},
]


def test_every_unsafe_page_route_refuses_a_form_that_is_not_ours(
    app: Flask, visitor: Visitor
) -> None:
    token = visitor.page.one("form", action="/logout").one("input", name="csrf_token")["value"]
    rules = list(unsafe_page_rules(app))
    assert len(rules) > 8
    for rule, method in rules:
        path = address(app, rule)
        for name, body in FORGERIES:
            if isinstance(body.get("data"), str):
                body = {**body, "data": body["data"].format(token=token)}
            answer = visitor.client.open(path, method=method, **body)
            assert answer.status_code == 403, f"{method} {path} with {name}"
        for headers in FOREIGN:
            answer = visitor.client.open(
                path, method=method, data={"csrf_token": token}, headers=headers
            )
            assert answer.status_code == 403, f"{method} {path} from {headers}"
    assert visitor.open("/models").one("h1").text == "Models", "still logged in"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
    ],
)
def test_our_own_form_passes(visitor: Visitor, headers: dict[str, str]) -> None:
    token = visitor.page.one("form", action="/logout").one("input", name="csrf_token")["value"]
    answer = visitor.client.post("/logout", data={"csrf_token": token}, headers=headers)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")


def test_a_button_pressed_after_the_session_ended_leads_to_the_login(
    app: Flask, visitor: Visitor, runtime: Any
) -> None:
    token = visitor.page.one("form", action="/logout").one("input", name="csrf_token")["value"]
    runtime.sessions.end_all()
    answer = visitor.client.post("/models/download", data={"csrf_token": token, "repo": "a/b"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
    assert runtime.downloads.jobs() == []


def test_a_poll_after_the_session_ended_takes_the_whole_page_to_the_login(
    visitor: Visitor, runtime: Any
) -> None:
    runtime.sessions.end_all()
    answer = visitor.client.get("/models?part=jobs", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/login")


def test_where_no_key_is_asked_for_a_foreign_form_is_refused_all_the_same(
    anonymous: FlaskClient, runtime: Runtime
) -> None:
    open_auth = dataclasses.replace(runtime.config.auth, require_management_auth=False)
    runtime.config = dataclasses.replace(runtime.config, auth=open_auth)
    visitor = Visitor(anonymous)
    assert visitor.open("/models").one("h1").text == "Models"
    assert "Log out" not in visitor.buttons()
    assert anonymous.post("/keys", data={"name": "forged"}).status_code == 403
    assert runtime.keys.list() == []
    visitor.open("/keys")
    visitor.press("Make key", name="ours")
    assert [key.name for key in runtime.keys.list()] == ["ours"]
