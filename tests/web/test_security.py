"""What browsers and strangers cannot do: hosts, forged forms, cookies, headers, other origins."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from llamactl import assets
from llamactl.app import create_app
from llamactl.config import Config
from llamactl.runtime import Runtime
from llamactl.web.proxies import FrontDoor
from llamactl.web.security import CONTENT_POLICY, KEYED_PREFIXES, SAFE_METHODS
from tests.web.visitor import Visitor, parse

FRIEND = "https://chat.example"


@pytest.fixture
def settings() -> dict[str, object]:
    return {
        "server.allowed_hosts": ["llm.example"],
        "server.allowed_origins": [FRIEND],
        "server.trusted_proxies": ["10.0.0.0/8"],
    }


@pytest.fixture
def visitor(anonymous: FlaskClient, management_key: str) -> Visitor:
    """Someone who is logged in."""
    visitor = Visitor(anonymous)
    visitor.log_in(management_key)
    return visitor


# Hosts

ROUTE_CLASSES = [
    "/login",
    "/models",
    "/static/llamactl.css",
    "/api/v1/instances",
    "/v1/models",
    "/llama-cpp/x/health",
    "/nowhere",
]


@pytest.mark.parametrize("path", ROUTE_CLASSES)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "",
        ":80",
        "localhost.",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "localhost:80:80",
        "localhost:port",
        "evil.example, localhost",
        "[::1",
        "[evil]",
        "local host",
    ],
)
def test_a_strange_host_is_refused_and_told_the_setting(
    anonymous: FlaskClient, path: str, host: str
) -> None:
    answer = anonymous.get(path, headers={"Host": host})
    assert answer.status_code == 400
    assert "server.allowed_hosts" in answer.text


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "127.0.0.1:9",
        "[::1]",
        "[::1]:8080",
        "192.168.1.20:8080",
        "[fe80::1]:80",
        "llm.example",
        "LLM.Example:443",
    ],
)
def test_names_of_this_server_and_plain_addresses_are_its_hosts(
    anonymous: FlaskClient, host: str
) -> None:
    assert anonymous.get("/login", headers={"Host": host}).status_code == 200


def test_a_forwarded_host_is_never_believed(anonymous: FlaskClient) -> None:
    for peer in ("203.0.113.9", "10.1.2.3"):
        answer = anonymous.get(
            "/login",
            headers={"Host": "evil.example", "X-Forwarded-Host": "localhost"},
            environ_base={"REMOTE_ADDR": peer},
        )
        assert answer.status_code == 400


# Forged forms


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


def end_all_sessions(runtime: Any) -> None:
    with runtime.database.write() as cursor:
        cursor.execute("DELETE FROM sessions")


def test_a_button_pressed_after_the_session_ended_leads_to_the_login(
    app: Flask, visitor: Visitor, runtime: Any
) -> None:
    token = visitor.page.one("form", action="/logout").one("input", name="csrf_token")["value"]
    end_all_sessions(runtime)
    answer = visitor.client.post("/models/download", data={"csrf_token": token, "repo": "a/b"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
    assert runtime.downloads.jobs() == []


def test_a_poll_after_the_session_ended_takes_the_whole_page_to_the_login(
    visitor: Visitor, runtime: Any
) -> None:
    end_all_sessions(runtime)
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


# Cookies and the login


def cookies(answer: TestResponse) -> list[str]:
    return [each for each in answer.headers.getlist("Set-Cookie") if "session" in each]


def enter(client: FlaskClient, key: str, **how: Any) -> TestResponse:
    page = client.get("/login", **how).text
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token is not None
    return client.post("/login", data={"csrf_token": token[1], "key": key}, **how)


def test_the_session_cookie_is_out_of_reach_for_scripts_and_other_sites(
    anonymous: FlaskClient, management_key: str
) -> None:
    answer = enter(anonymous, management_key)
    cookie = cookies(answer)[-1]
    assert answer.headers["Location"] == "/models"
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie and "Domain" not in cookie


def test_behind_a_trusted_proxy_with_tls_the_cookie_is_secure(
    anonymous: FlaskClient, management_key: str
) -> None:
    answer = enter(
        anonymous,
        management_key,
        headers={"Host": "llm.example", "X-Forwarded-Proto": "https"},
        environ_base={"REMOTE_ADDR": "10.0.0.7"},
        base_url="http://llm.example",
    )
    cookie = cookies(answer)[-1]
    assert cookie.startswith("__Host-llamactl-session=")
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))


def test_the_cookie_opens_no_interface(visitor: Visitor) -> None:
    for path in ("/api/v1/instances", "/api/v1/models", "/v1/models"):
        assert visitor.client.get(path).status_code == 401


def test_a_login_gives_a_new_session_and_ends_the_old_one(
    app: Flask, visitor: Visitor, management_key: str
) -> None:
    first = visitor.client.get_cookie("llamactl-session")
    visitor.press("Log out")
    visitor.log_in(management_key)
    second = visitor.client.get_cookie("llamactl-session")
    assert first and second and first.value != second.value
    thief = app.test_client()
    thief.set_cookie("llamactl-session", first.value)
    assert thief.get("/models").headers["Location"].startswith("/login")


def test_two_servers_on_one_machine_keep_their_cookies_apart(
    app: Flask, management_key: str
) -> None:
    client = app.test_client()
    answer = enter(client, management_key, base_url="http://localhost:8090")
    assert cookies(answer)[-1].startswith("llamactl-session-8090=")


def test_wrong_keys_are_limited_by_address_and_the_right_one_never_is(
    anonymous: FlaskClient, management_key: str
) -> None:
    here, there = ({"environ_base": {"REMOTE_ADDR": each}} for each in ("192.0.2.1", "192.0.2.2"))
    answers = [enter(anonymous, "wrong", **here) for _ in range(12)]
    assert [each.status_code for each in answers[:2]] == [401, 401]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert enter(anonymous, "wrong", **there).status_code == 401
    assert enter(anonymous, management_key, **here).status_code == 303


def test_a_proxy_that_is_not_trusted_cannot_choose_the_address_that_is_counted(
    anonymous: FlaskClient,
) -> None:
    for number in range(12):
        answer = enter(
            anonymous,
            "wrong",
            headers={"X-Forwarded-For": f"198.51.100.{number}"},
            environ_base={"REMOTE_ADDR": "192.0.2.1"},
        )
    assert answer.status_code == 429


def test_an_inference_key_opens_no_page(anonymous: FlaskClient, inference_key: str) -> None:
    answer = enter(anonymous, inference_key)
    assert answer.status_code == 403
    assert "inference only" in answer.text
    assert inference_key not in answer.text
    assert cookies(answer) == []


@pytest.mark.parametrize(
    ("wanted", "reached"),
    [
        ("/instances", "/instances"),
        ("/instances/new", "/instances/new"),
        ("/keys", "/keys"),
        ("//evil.example", "/models"),
        ("/\\evil.example", "/models"),
        ("https://evil.example/models", "/models"),
        ("javascript:alert(1)", "/models"),
        ("/api/v1/instances", "/models"),
        ("/static/llamactl.css", "/models"),
        ("/login", "/models"),
        ("/logout", "/models"),
        ("/instances//evil", "/models"),
        ("", "/models"),
    ],
)
def test_a_login_leads_to_pages_of_ours_only(
    anonymous: FlaskClient, management_key: str, wanted: str, reached: str
) -> None:
    page = anonymous.get("/login", query_string={"next": wanted}).text
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token is not None
    answer = anonymous.post(
        "/login",
        query_string={"next": wanted},
        data={"csrf_token": token[1], "key": management_key},
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, reached)


def test_without_a_session_every_page_asks_for_the_key(app: Flask, anonymous: FlaskClient) -> None:
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("pages.") and "GET" in (rule.methods or ()):
            answer = anonymous.get(address(app, rule))
            assert answer.status_code == 303, rule
            assert answer.headers["Location"].startswith("/login")


# Headers


@pytest.mark.parametrize(
    "path",
    ["/models", "/login", "/nowhere", "/static/llamactl.css", "/api/v1/instances", "/v1/models"],
)
def test_every_answer_binds_the_browser(visitor: Visitor, path: str) -> None:
    headers = visitor.client.get(path, buffered=True).headers
    assert headers["Content-Security-Policy"] == CONTENT_POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_pages_are_kept_by_no_cache_and_versioned_files_for_a_year(visitor: Visitor) -> None:
    page = visitor.open("/models")
    assert visitor.answer.headers["Cache-Control"] == "no-store"
    addresses = [each["href"] for each in page.all("link")] + [
        each["src"] for each in page.all("script")
    ]
    assert len(addresses) >= 4
    for each in addresses:
        answer = visitor.client.get(each, buffered=True)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
    bare = visitor.client.get("/static/llamactl.css", buffered=True)
    assert bare.headers["ETag"] and "immutable" not in bare.headers["Cache-Control"]


def test_no_template_has_anything_inline_or_unescaped() -> None:
    files = sorted(assets.templates_dir().rglob("*.html"))
    assert len(files) > 15
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), file
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), file
        assert not re.search(r"\|\s*safe|autoescape|Markup", text), file


# Proxies


def seen_through(door: FrontDoor, environ: dict[str, Any]) -> dict[str, Any]:
    door(environ, lambda status, headers, _info=None: lambda _body: None)
    return environ


@pytest.mark.parametrize(
    ("peer", "address", "scheme"),
    [
        ("10.0.0.7", "203.0.113.5", "https"),
        ("::ffff:10.0.0.7", "203.0.113.5", "https"),
        ("192.0.2.1", "192.0.2.1", "http"),
        ("", "", "http"),
    ],
)
def test_forwarded_headers_count_only_from_trusted_peers(
    web_config: Any, peer: str, address: str, scheme: str
) -> None:
    seen: dict[str, Any] = {}

    def inner(environ: dict[str, Any], _start: Any) -> list[bytes]:
        seen.update(environ)
        return []

    seen_through(
        FrontDoor(inner, web_config.server),
        {
            "REMOTE_ADDR": peer,
            "HTTP_HOST": "llm.example",
            "HTTP_X_FORWARDED_FOR": "203.0.113.5",
            "HTTP_X_FORWARDED_PROTO": "https",
            "HTTP_X_FORWARDED_HOST": "evil.example",
            "wsgi.url_scheme": "http",
        },
    )
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == (address, scheme)
    assert seen["HTTP_HOST"] == "llm.example"
    if address == peer:
        assert not any("FORWARDED" in name for name in seen)


@pytest.mark.parametrize("passed_on", ["/llama", ""], ids=["with the prefix", "without it"])
def test_under_a_prefix_every_link_and_cookie_has_it(
    web_config: Config, runtime: Runtime, management_key: str, passed_on: str
) -> None:
    server = dataclasses.replace(web_config.server, url_prefix="/llama")
    app = create_app(dataclasses.replace(web_config, server=server), runtime)
    client = app.test_client()
    page = parse(client.get(f"{passed_on}/login").text)
    sheet = page.one("link", rel="stylesheet")["href"]
    assert sheet.startswith("/llama/static/")
    assert client.get(sheet.removeprefix("/llama"), buffered=True).status_code == 200
    assert page.one("form")["action"] == "/llama/login"
    token = page.one("form").one("input", name="csrf_token")["value"]
    client.set_cookie("llamactl-guest", token)
    answer = client.post(
        f"{passed_on}/login?next=/keys", data={"csrf_token": token, "key": management_key}
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/llama/keys")
    assert "Path=/llama" in cookies(answer)[-1]


# Other origins


def test_an_allowed_origin_may_call_v1_and_nothing_else(
    anonymous: FlaskClient, inference_key: str
) -> None:
    asked = {
        "Origin": FRIEND,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    preflight = anonymous.options("/v1/chat/completions", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == FRIEND
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
    answer = anonymous.get(
        "/v1/models", headers={"Origin": FRIEND, "Authorization": f"Bearer {inference_key}"}
    )
    assert answer.headers["Access-Control-Allow-Origin"] == FRIEND
    assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    for path in ("/api/v1/instances", "/models", "/login", "/v1x"):
        other = anonymous.options(path, headers=asked)
        assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://chat.example.evil.example"]
)
def test_no_other_origin_is_told_anything(anonymous: FlaskClient, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for answer in (
        anonymous.options("/v1/chat/completions", headers=asked),
        anonymous.get("/v1/models", headers={"Origin": origin}),
    ):
        assert "Access-Control-Allow-Origin" not in answer.headers
