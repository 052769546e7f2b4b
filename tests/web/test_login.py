"""Logging in and out: the cookie, the limits, where it leads, and the end of every session."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from flask.testing import FlaskClient

from llamactl.access.throttle import Throttle
from llamactl.web.pages.login import EXTENSION, Limits
from tests.web.browsers import address, cookies, enter
from tests.web.visitor import Visitor


@pytest.fixture
def settings() -> dict[str, object]:
    return {
        "server.allowed_hosts": ["llm.example"],
        "server.trusted_proxies": ["10.0.0.0/8"],
    }


@pytest.fixture
def no_forgiveness(app: Flask) -> None:
    """However slow the machine is, no time passes that would allow one more wrong key."""

    def clock() -> float:
        return 0.0

    by_all = Throttle(burst=200, seconds=0.5, clock=clock)
    app.extensions[EXTENSION] = Limits(Throttle(clock=clock), by_all)


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


@pytest.mark.usefixtures("no_forgiveness")
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


@pytest.mark.usefixtures("no_forgiveness")
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


def test_log_out_everywhere_ends_every_session_this_one_too(
    app: Flask, visitor: Visitor, management_key: str
) -> None:
    other = Visitor(app.test_client())
    other.log_in(management_key)
    assert "2 browsers are logged in" in visitor.open("/system").text
    visitor.press("Log out everywhere")
    assert visitor.path == "/login"
    for each in (visitor.client, other.client):
        assert each.get("/models").headers["Location"].startswith("/login")


@pytest.mark.usefixtures("no_forgiveness")
def test_a_hundred_wrong_logins_at_once_are_limited_and_the_right_key_gets_in(
    app: Flask, management_key: str
) -> None:
    def guess(number: int) -> int:
        peer = {"environ_base": {"REMOTE_ADDR": f"192.0.2.{number % 4}"}}
        return enter(app.test_client(), f"wrong {number}", **peer).status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = Counter(pool.map(guess, range(100)))
    assert set(statuses) == {401, 429}
    assert statuses[401] < 60, "ten and a few for each of four addresses"
    assert enter(app.test_client(), management_key).status_code == 303


class TestConfiguredKeys:
    @pytest.fixture
    def settings(self) -> dict[str, object]:
        return {"auth.management_keys": ["k" * 40]}

    def test_the_login_does_not_send_a_person_to_a_file_that_opens_nothing(
        self, anonymous: FlaskClient
    ) -> None:
        page = anonymous.get("/login").text
        assert "management.key" not in page and "auth.management_keys" in page


def test_the_login_says_where_the_key_is(anonymous: FlaskClient) -> None:
    assert "management.key" in anonymous.get("/login").text
