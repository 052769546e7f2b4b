"""What the tests of browser safety share: unsafe routes, a login, its cookies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from llamactl.web.browser import SAFE_METHODS
from llamactl.web.security import KEYED_PREFIXES


def unsafe_page_rules(app: Flask) -> Iterator[tuple[Rule, str]]:
    for rule in app.url_map.iter_rules():
        keyed = any(
            rule.rule == each or rule.rule.startswith(each + "/") for each in KEYED_PREFIXES
        )
        for method in sorted((rule.methods or set()) - SAFE_METHODS):
            if not keyed:
                yield rule, method


def address(app: Flask, rule: Rule) -> str:
    """An address that the rule matches."""
    path = re.sub(r"<any\((\w+)[^>]*>", r"\1", rule.rule)
    return re.sub(r"<int:\w+>", "1", re.sub(r"<\w+>", "x", path))


def cookies(answer: TestResponse) -> list[str]:
    return [each for each in answer.headers.getlist("Set-Cookie") if "session" in each]


def enter(client: FlaskClient, key: str, **how: Any) -> TestResponse:
    page = client.get("/login", **how).text
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token is not None
    return client.post("/login", data={"csrf_token": token[1], "key": key}, **how)
