"""A hub at a public address, over TLS: what no socket on loopback can stand for.

``responses`` answers in the place of the network; everything above `requests`' adapter is real.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
import responses

from llamactl.errors import BadMetadata, TransferError
from llamactl.hub.client import HubClient
from llamactl.secret import Secret

HUB = "https://93.184.216.34"
CDN = "https://93.184.216.35/blob?Signature=s"
REPO, COMMIT = "org/name-GGUF", "c" * 40
FILE = f"{HUB}/{REPO}/resolve/{COMMIT}/m.gguf"
SHA256 = "a" * 64
LINKED = {"X-Repo-Commit": COMMIT, "X-Linked-Size": "7", "X-Linked-ETag": f'"{SHA256}"'}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[responses.RequestsMock]:
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def client() -> HubClient:
    return HubClient(HUB, lambda: Secret("hf_secret"), False, backoff=0.01)


def asked(answers: responses.RequestsMock) -> list[tuple[str, str | None]]:
    """Each address that was asked, without its query, and the credentials that it got."""
    calls = [call.request for call in answers.calls]
    return [(str(c.url).partition("?")[0], c.headers.get("Authorization")) for c in calls]


def test_the_token_goes_to_the_hub_and_not_to_the_cdn_that_it_names(
    answers: responses.RequestsMock, client: HubClient
) -> None:
    answers.head(FILE, status=302, headers={**LINKED, "Location": CDN})
    remote = client.resolve(REPO, COMMIT, "m.gguf")
    assert (remote.url, remote.size, remote.oid) == (CDN, 7, SHA256)
    assert asked(answers) == [(FILE, "Bearer hf_secret")]
    assert "Authorization" not in remote.headers


def test_a_renamed_repository_is_followed_within_the_hub_with_the_token(
    answers: responses.RequestsMock, client: HubClient
) -> None:
    renamed = f"{HUB}/new/name/resolve/{COMMIT}/m.gguf"
    answers.head(FILE, status=307, headers={"Location": renamed})
    answers.head(renamed, status=302, headers={**LINKED, "Location": CDN})
    assert client.resolve(REPO, COMMIT, "m.gguf").url == CDN
    assert asked(answers) == [(FILE, "Bearer hf_secret"), (renamed, "Bearer hf_secret")]


@pytest.mark.parametrize(
    "inside",
    [
        "https://127.0.0.1/x",
        "https://169.254.169.254/latest",
        "https://[::1]/x",
        "https://10.0.0.7/x",
    ],
)
def test_a_public_hub_that_leads_into_this_network_is_left_there(
    answers: responses.RequestsMock, client: HubClient, inside: str
) -> None:
    answers.head(FILE, status=302, headers={**LINKED, "Location": inside})
    with pytest.raises(BadMetadata, match="no public address"):
        client.resolve(REPO, COMMIT, "m.gguf")
    assert asked(answers) == [(FILE, "Bearer hf_secret")]


def test_a_public_hub_that_gives_up_tls_is_left_there(
    answers: responses.RequestsMock, client: HubClient
) -> None:
    answers.head(FILE, status=302, headers={**LINKED, "Location": CDN.replace("https", "http")})
    with pytest.raises(BadMetadata, match="plain http"):
        client.resolve(REPO, COMMIT, "m.gguf")
    assert len(answers.calls) == 1


def test_a_list_that_goes_on_at_another_host_is_refused_before_that_is_asked(
    answers: responses.RequestsMock, client: HubClient
) -> None:
    elsewhere = '<https://93.184.216.99/next>; rel="next"'
    answers.get(f"{HUB}/api/models/{REPO}/tree/{COMMIT}", json=[], headers={"Link": elsewhere})
    with pytest.raises(BadMetadata, match="another host"):
        client.tree(REPO, COMMIT)
    assert len(answers.calls) == 1


def test_a_certificate_that_is_not_trusted_is_named_with_the_setting(
    answers: responses.RequestsMock, client: HubClient
) -> None:
    answers.get(f"{HUB}/api/models/{REPO}/refs", body=requests.exceptions.SSLError("self-signed"))
    with pytest.raises(TransferError, match="not trusted") as told:
        client.commit(REPO)
    assert "REQUESTS_CA_BUNDLE" in (told.value.hint or "")
