"""Under which names the server answers, and whom it believes about who is asking."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from flask.testing import FlaskClient

from llamactl.app import create_app
from llamactl.config import Config
from llamactl.runtime import Runtime
from llamactl.web.proxies import FrontDoor
from tests.web.browsers import cookies
from tests.web.visitor import parse


@pytest.fixture
def settings() -> dict[str, object]:
    return {
        "server.allowed_hosts": ["llm.example"],
        "server.trusted_proxies": ["10.0.0.0/8"],
    }


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
