"""One table: each kind of key at every route of the URL map, and what it meets there."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.wrappers import Response

from llamactl.runtime import Runtime
from tests.web.test_api_routes import VARIABLE
from tests.web.visitor import Visitor

METRICS_KEY = "metrics-" + "m" * 40
OPEN = {"/healthz", "/openapi.json", "/static/<path:filename>", "/login"}
#: What stands for variables: the number or the name of nothing that there is.
NOTHING = "999999"
HOLDERS = (
    "nobody",
    "wrong",
    "expired",
    "per_instance",
    "allow_all",
    "metrics",
    "management",
    "cookie",
    "inference_in_both",
)
#: What each holder meets at each kind of address. "in": it is let in, whatever the answer is then.
TABLE: Mapping[str, Mapping[str, str]] = {
    "open": dict.fromkeys(HOLDERS, "in"),
    "page": {**dict.fromkeys(HOLDERS, "login"), "cookie": "in"},
    # A form of ours carries its session's token; nobody has one here, not even the session.
    "form": {**dict.fromkeys(HOLDERS, "login"), "cookie": "403"},
    "management": {
        **dict.fromkeys(HOLDERS, "401"),
        "per_instance": "403",
        "allow_all": "403",
        "management": "in",
        "inference_in_both": "403",
    },
    "metrics": {
        **dict.fromkeys(HOLDERS, "401"),
        "per_instance": "403",
        "allow_all": "403",
        "management": "in",
        "metrics": "in",
        "inference_in_both": "403",
    },
    "inference": {
        **dict.fromkeys(HOLDERS, "401"),
        "per_instance": "in",
        "allow_all": "in",
        "management": "in",
        "inference_in_both": "in",
    },
}


@pytest.fixture
def settings() -> dict[str, object]:
    return {"auth.metrics_key": METRICS_KEY}


@dataclass(frozen=True)
class Ask:
    """One method at one address, and which rows of the table hold there."""

    method: str
    path: str
    kind: str


def asks(app: Flask) -> Iterator[Ask]:
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            path = VARIABLE.sub(_something, rule.rule)
            yield Ask(method, path, _kind(rule.rule, method))


def _something(match: re.Match[str]) -> str:
    one_of = re.search(r"any\((\w+)", match[0])
    return one_of[1] if one_of else NOTHING


def _kind(rule: str, method: str) -> str:
    if rule in OPEN and method == "GET":
        return "open"
    if rule == "/metrics":
        return "metrics"
    if rule.startswith("/api/"):
        return "management"
    if rule.startswith(("/v1/", "/llama-cpp/")):
        return "inference"
    return "page" if method == "GET" else "form"


@pytest.fixture
def holders(
    app: Flask, runtime: Runtime, management_key: str, inference_key: str
) -> Mapping[str, FlaskClient]:
    """A client for each row, none of which carries anything that is not its own."""
    expired = runtime.keys.create("expired", expires_at=time.time() + 3600)[1].reveal()
    chosen = runtime.keys.create("chosen", "per_instance", [12345])[1].reveal()
    # From here on it is two hours later, for keys.
    runtime.keys._clock = lambda: time.time() + 7200
    bearer = {
        "wrong": "llc_" + "x" * 22 + "_" + secrets.token_urlsafe(32),
        "expired": expired,
        "per_instance": chosen,
        "allow_all": inference_key,
        "metrics": METRICS_KEY,
        "management": management_key,
    }
    made = {"nobody": app.test_client(), "cookie": app.test_client()}
    Visitor(made["cookie"]).log_in(management_key)
    for name, key in bearer.items():
        made[name] = app.test_client()
        made[name].environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    # Authorization counts where both are sent: the management key in the other header is not seen.
    both = made["inference_in_both"] = app.test_client()
    both.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {inference_key}"
    both.environ_base["HTTP_X_API_KEY"] = management_key
    assert set(made) == set(HOLDERS)
    return made


def met(answer: Response) -> str:
    """What a holder met, in the words of the table."""
    if answer.status_code in (302, 303) and "/login" in answer.headers["Location"]:
        return "login"
    denied = answer.status_code in (401, 403)
    return str(answer.status_code) if denied else "in"


def test_each_kind_of_key_meets_at_every_route_what_the_table_says(
    app: Flask, holders: Mapping[str, FlaskClient]
) -> None:
    asked = list(asks(app))
    assert {ask.kind for ask in asked} == set(TABLE)
    known = app.url_map.bind("localhost")
    for ask in asked:
        # Raises where what was put for a variable does not fit: such an address asks nothing.
        known.match(ask.path, method=ask.method)
    addresses = itertools.count(1)
    wrong = []
    for ask, name in itertools.product(asked, HOLDERS):
        number = next(addresses)
        # Wrong keys are slowed down by address, which is not what is asked here.
        peer = {"REMOTE_ADDR": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}
        with_body = ask.method in {"POST", "PUT", "PATCH"} and ask.kind != "form"
        with holders[name].open(
            ask.path,
            method=ask.method,
            json={} if with_body else None,
            environ_overrides=peer,
        ) as answer:
            found, wanted = met(answer), TABLE[ask.kind][name]
        if found != wanted:
            wrong.append(f"{name} at {ask.method} {ask.path}: {found}, not {wanted}")
    assert wrong == []
