"""The commands' one HTTP client, over real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamactl.cli.client import Server, ServerRefused, ServerUnreachable, segment
from llamactl.errors import InvalidRequest
from llamactl.secret import Secret
from tests.cli.rest import FakeRest


def test_the_key_goes_in_the_authorization_header_and_no_netrc_replaces_it(
    rest: FakeRest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    rest.answers["GET /instances"] = (200, [])
    Server(rest.url, Secret("mine")).get("/instances")
    assert rest.asked[0].headers["authorization"] == "Bearer mine"


def test_a_proxy_of_the_environment_is_not_asked_for_a_server(
    rest: FakeRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    rest.answers["GET /instances"] = (200, [])
    assert Server(rest.url, None).get("/instances") == []


def test_nothing_that_listens_is_said_with_the_address() -> None:
    with pytest.raises(ServerUnreachable, match=r"http://127\.0\.0\.1:9"):
        Server("http://127.0.0.1:9", None).get("/instances")


def test_a_redirect_is_not_followed_with_the_key(rest: FakeRest) -> None:
    rest.answers["GET /instances"] = (302, b"")
    with pytest.raises(ServerRefused) as caught:
        Server(rest.url, Secret("mine")).get("/instances")
    assert caught.value.status == 302
    assert len(rest.asked) == 1


def test_a_refusal_keeps_the_servers_code_and_sentence(rest: FakeRest) -> None:
    rest.answers["POST /instances/a/start"] = (
        409,
        {"error": "max_instances_reached", "details": "Two instances run already."},
    )
    with pytest.raises(ServerRefused, match=r"Two instances run already\.") as caught:
        Server(rest.url, None).post("/instances/a/start")
    assert (caught.value.status, caught.value.error_code) == (409, "max_instances_reached")


def test_a_missing_key_is_said_with_the_option_that_names_one(rest: FakeRest) -> None:
    told = "Send Authorization: Bearer KEY."
    rest.answers["GET /instances"] = (401, {"error": "missing_key", "details": told})
    with pytest.raises(ServerRefused, match=r"sent no key.*LLAMACTL_KEY") as caught:
        Server(rest.url, None).get("/instances")
    assert told not in str(caught.value)


def test_bad_input_that_the_server_found_is_bad_usage(rest: FakeRest) -> None:
    rest.answers["POST /instances/a"] = (
        400,
        {"error": "invalid_request", "details": "ctx_size must be a number."},
    )
    with pytest.raises(InvalidRequest, match="ctx_size must be a number"):
        Server(rest.url, None).post("/instances/a", {})


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_that_is_not_json_is_an_error_and_not_a_traceback(
    rest: FakeRest, status: int
) -> None:
    rest.answers["GET /instances"] = (status, b"<html>a router's page</html>")
    with pytest.raises(ServerRefused):
        Server(rest.url, None).get("/instances")


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://", "file:///etc"])
def test_an_address_that_is_none_is_bad_usage(url: str) -> None:
    with pytest.raises(InvalidRequest):
        Server(url, None)


def test_server_sent_events_come_whole_and_in_order(rest: FakeRest) -> None:
    rest.answers["GET /instances/a/logs"] = (
        200,
        b": comment\n\ndata: one\n\ndata: two\ndata: three\n\nevent: x\ndata:four\r\n\r\n",
    )
    events = list(Server(rest.url, None).events("/instances/a/logs", follow="true"))
    assert events == ["one", "two\nthree", "four"]


def test_a_name_is_one_segment_of_the_path() -> None:
    assert segment("../a b/ü") == "..%2Fa%20b%2F%C3%BC"
