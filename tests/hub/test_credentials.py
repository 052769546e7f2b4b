"""The token goes to the hub's own origin and nowhere else, whatever the environment holds."""

from __future__ import annotations

import logging
import socket
import threading
from pathlib import Path

import pytest
import requests

from llamactl.errors import BadMetadata, NetworkError, Unauthorized
from llamactl.hub import urls
from llamactl.hub.client import HubClient
from llamactl.hub.session import HubSession
from llamactl.models.reference import ModelRef
from llamactl.secret import Secret
from tests.fakes.fake_hub import FakeHub
from tests.hub.conftest import FILES, REPO, ClientFactory

GGUF = "m-Q4_K_M.gguf"


def _ask_everything(client: HubClient, commit: str) -> None:
    client.manifest(ModelRef(REPO))
    client.commit(REPO)
    client.tree(REPO, commit)
    for name in FILES:
        remote = client.resolve(REPO, commit, name)
        with HubSession() as session:
            assert session.get(remote.url, headers=remote.headers).content == FILES[name]


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ~/.netrc with a password for every host."""
    path = tmp_path / "netrc"
    path.write_text(
        "machine 127.0.0.1 login me password secret\ndefault login me password secret\n"
    )
    monkeypatch.setenv("NETRC", str(path))


def test_the_token_reaches_the_hub_and_never_the_cdn(
    make_client: ClientFactory, hub: FakeHub, commit: str
) -> None:
    _ask_everything(make_client(token=hub.token), commit)
    asked = [request.headers.get("authorization") for request in hub.requests("hub")]
    assert set(asked) == {f"Bearer {hub.token}"}
    assert hub.requests("cdn")
    assert hub.leaks == []


@pytest.mark.usefixtures("netrc")
def test_a_netrc_replaces_no_token_and_reaches_no_cdn(
    make_client: ClientFactory, hub: FakeHub, commit: str
) -> None:
    _ask_everything(make_client(token=hub.token), commit)
    assert {r.headers.get("authorization") for r in hub.requests("hub")} == {f"Bearer {hub.token}"}
    assert hub.leaks == []


@pytest.mark.usefixtures("netrc")
def test_a_netrc_is_not_sent_where_there_is_no_token(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    _ask_everything(client, commit)
    assert all("authorization" not in request.headers for request in hub.log)


def test_the_token_does_not_follow_a_redirect_to_another_origin(
    make_client: ClientFactory, hub: FakeHub, commit: str
) -> None:
    with FakeHub() as other:
        for route in ("/refs", "/tree/", "/manifests/"):
            hub.fault(
                "hub",
                route,
                kind="status",
                status=307,
                headers={"Location": f"{other.endpoint}/api/models/{REPO}/refs"},
            )
        client = make_client(token=hub.token)
        for ask in (lambda: client.commit(REPO), lambda: client.tree(REPO, commit)):
            with pytest.raises(Exception, match="does not exist"):
                ask()
        assert len(other.log) == 2
        assert all("authorization" not in request.headers for request in other.log)


def test_the_token_is_in_no_log_and_no_error(
    make_client: ClientFactory, hub: FakeHub, commit: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.fault("hub", "/resolve/", kind="status", status=503, times=1)
    client = make_client(token=hub.token)
    _ask_everything(client, commit)
    hub.fault("hub", "", kind="drop", times=None)
    with pytest.raises(NetworkError) as caught:
        client.resolve(REPO, commit, GGUF)
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("llamactl"))
    assert "503" in ours
    for text in (ours, caught.value.details, repr(client)):
        assert hub.token not in text
        assert "Signature=" not in text


@pytest.mark.parametrize("token", ["hf_a b", "hf_a\nX: y", "hf_é", "hf_\x00"])
def test_a_token_that_is_none_is_refused_without_showing_it(
    make_client: ClientFactory, hub: FakeHub, token: str
) -> None:
    with pytest.raises(Unauthorized) as caught:
        make_client(token=token).commit(REPO)
    assert token not in caught.value.details
    assert hub.log == []


def test_cookies_are_not_kept(client: HubClient, hub: FakeHub) -> None:
    cookie = {"Set-Cookie": "session=1; Path=/"}
    hub.fault("hub", "", kind="headers", headers=cookie, times=None)
    client.commit(REPO)
    client.commit(REPO)
    assert all("cookie" not in request.headers for request in hub.log)


def test_https_is_not_left_for_http() -> None:
    with pytest.raises(BadMetadata, match="plain http"):
        urls.redirect_target("https://huggingface.co/a", "http://huggingface.co/a")
    assert urls.redirect_target("http://127.0.0.1:1/a", "/b") == "http://127.0.0.1:1/b"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "169.254.169.254",
        "10.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
        "[fe80::1]",
        "[fd00::1]",
    ],
)
def test_a_public_hub_cannot_lead_into_a_private_network(host: str) -> None:
    assert urls.leads_inside("https://93.184.216.34", f"https://{host}/x")
    assert not urls.leads_inside("http://127.0.0.1:9", f"http://{host}/x")


def test_a_public_hub_may_lead_to_a_public_cdn() -> None:
    assert not urls.leads_inside("https://93.184.216.34", "https://8.8.8.8/x")
    assert not urls.leads_inside("https://93.184.216.34", "https://cdn.invalid/x")


def test_the_proxy_of_the_environment_is_used(
    make_client: ClientFactory, hub: FakeHub, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", hub.endpoint)
    assert make_client(endpoint="http://hub.invalid").commit(REPO) == commit
    assert hub.log[0].headers["host"] == "hub.invalid"


def test_no_proxy_is_minded(
    make_client: ClientFactory, hub: FakeHub, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert make_client().commit(REPO) == commit


def test_https_goes_through_a_tunnel_and_its_refusal_names_the_setting(
    make_client: ClientFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        heads: list[bytes] = []

        def refuse() -> None:
            for _ in range(4):
                connection, _address = proxy.accept()
                with connection:
                    heads.append(connection.recv(65536))
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        refusing = threading.Thread(target=refuse)
        refusing.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        client = make_client(endpoint="https://hub.invalid", token="hf_token")
        with pytest.raises(NetworkError, match="HTTPS_PROXY"):
            client.commit(REPO)
        refusing.join(timeout=60)
    assert all(head.startswith(b"CONNECT hub.invalid:443 ") for head in heads)
    assert not any(b"hf_token" in head for head in heads)


def test_a_bundle_of_certificates_is_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/our-company.pem")
    with HubSession() as session:
        settings = session.merge_environment_settings("https://x", {}, None, None, None)
    assert settings["verify"] == "/etc/our-company.pem"


def test_byte_requests_ask_for_no_compression(
    make_client: ClientFactory, hub: FakeHub, commit: str
) -> None:
    _ask_everything(make_client(), commit)
    assert {request.headers["accept-encoding"] for request in hub.log} == {"identity"}


def test_the_token_is_asked_for_anew_each_time(hub: FakeHub) -> None:
    hub.add_repo("org/private", FILES, private=True)
    tokens = [None]
    client = HubClient(
        hub.endpoint, lambda: Secret(tokens[0]) if tokens[0] else None, False, backoff=0.01
    )
    with pytest.raises(Exception, match="private"):
        client.commit("org/private")
    tokens[0] = hub.token  # type: ignore[call-overload]  # a list of one, told apart by its use
    assert client.commit("org/private") == hub.routes.repos["org/private"].main


def test_a_plain_requests_session_would_have_leaked_the_netrc(
    netrc: None, hub: FakeHub, commit: str
) -> None:
    """The fake sees what it is there to see."""
    headers = {"Authorization": f"Bearer {hub.token}"}
    requests.get(f"{hub.endpoint}/{REPO}/resolve/{commit}/{GGUF}", headers=headers)
    assert hub.requests("hub")[0].headers["authorization"].startswith("Basic ")
