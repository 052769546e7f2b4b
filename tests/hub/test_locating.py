"""Where a file's bytes are, and what the hub says that they are."""

from __future__ import annotations

import hashlib

import pytest
import requests

from llamactl.errors import BadMetadata
from llamactl.hub.client import HubClient
from llamactl.models.hubfile import HubFile
from tests.fakes.fake_hub import FakeHub
from tests.hub.conftest import FILES, REPO, ClientFactory

GGUF = "m-Q4_K_M.gguf"
SHA256 = hashlib.sha256(FILES[GGUF]).hexdigest()
EXPECTED = HubFile(GGUF, len(FILES[GGUF]), SHA256)


def test_a_large_file_is_at_the_cdn_and_known_by_its_sha256(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    remote = client.resolve(REPO, commit, GGUF, expected=EXPECTED)
    assert remote.url.startswith(hub.cdn_endpoint)
    assert (remote.size, remote.oid, remote.commit) == (len(FILES[GGUF]), SHA256, commit)
    assert remote.etag == f'"{SHA256}"'
    assert requests.get(remote.url, headers=remote.headers).content == FILES[GGUF]


def test_locating_a_large_file_asks_the_cdn_nothing(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    client.resolve(REPO, commit, GGUF)
    assert hub.requests("cdn") == []


def test_a_small_file_is_at_the_hub_itself(client: HubClient, hub: FakeHub, commit: str) -> None:
    payload = FILES["preset.ini"]
    remote = client.resolve(REPO, commit, "preset.ini")
    assert remote.url.startswith(f"{hub.endpoint}/api/resolve-cache/")
    assert remote.size == len(payload)
    assert remote.oid == hashlib.sha1(b"blob %d\0" % len(payload) + payload).hexdigest()
    assert requests.get(remote.url, headers=remote.headers).content == payload


def test_the_etag_of_the_cdn_is_never_taken_for_a_digest(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    remote = client.resolve(REPO, commit, GGUF)
    cdn_etag = requests.head(remote.url, headers=remote.headers).headers["ETag"]
    assert len(cdn_etag.strip('"')) == 64
    assert remote.oid not in cdn_etag


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Linked-Size": "31000"},
        {"X-Linked-ETag": f'"{"b" * 64}"'},
        {"X-Repo-Commit": "b" * 40},
        {"X-Linked-ETag": '"../../x"'},
    ],
    ids=lambda headers: next(iter(headers.items()))[0],
)
def test_a_file_that_is_no_longer_the_listed_one_is_refused_before_its_first_byte(
    client: HubClient, hub: FakeHub, commit: str, headers: dict[str, str]
) -> None:
    hub.fault("hub", "/resolve/", kind="headers", headers=headers)
    with pytest.raises(BadMetadata):
        client.resolve(REPO, commit, GGUF, expected=EXPECTED)


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "//",
        "http://",
        "http://[::1",
        "http://user:word@127.0.0.1:1/x",
        "http://127.0.0.1:99999999/x",
        "javascript:alert(1)",
    ],
)
def test_a_redirect_that_must_not_be_followed_is_refused(
    client: HubClient, hub: FakeHub, commit: str, location: str | None
) -> None:
    headers = {} if location is None else {"Location": location}
    hub.fault("hub", "/resolve/", kind="headers", drop=("Location",), headers=headers, times=None)
    with pytest.raises(BadMetadata):
        client.resolve(REPO, commit, GGUF, expected=EXPECTED)


def test_redirects_in_a_circle_end(client: HubClient, hub: FakeHub, commit: str) -> None:
    circle = {"Location": f"/{REPO}/resolve/{commit}/{GGUF}"}
    hub.fault("hub", "/resolve/", kind="status", status=302, headers=circle, times=None)
    with pytest.raises(BadMetadata, match="circle"):
        client.resolve(REPO, commit, GGUF)
    assert len(hub.log) < 10


def test_a_mirror_that_serves_files_itself_is_understood(
    make_client: ClientFactory, hub: FakeHub, commit: str
) -> None:
    hub.routes.direct = True
    remote = make_client(token=hub.token).resolve(REPO, commit, GGUF)
    assert (remote.size, remote.oid) == (len(FILES[GGUF]), SHA256)
    assert remote.headers["Authorization"] == f"Bearer {hub.token}"
    assert requests.get(remote.url, headers=remote.headers).content == FILES[GGUF]


def test_a_mirror_whose_etag_is_no_digest_is_taken_by_the_listing(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    hub.routes.direct = True
    etag = {"ETag": f'"{"c" * 64}"'}
    hub.fault("hub", "/resolve/", kind="headers", headers=etag, times=None)
    assert client.resolve(REPO, commit, GGUF, expected=EXPECTED).oid == SHA256


def test_a_mirror_that_says_nothing_of_a_file_is_refused_without_a_listing(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    hub.routes.direct = True
    hub.fault("hub", "/resolve/", kind="headers", drop=("ETag",), times=None)
    with pytest.raises(BadMetadata, match="which bytes"):
        client.resolve(REPO, commit, GGUF)


def test_a_mirror_that_says_no_length_is_refused_without_a_listing(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    hub.routes.direct = True
    hub.fault("hub", "/resolve/", kind="headers", drop=("Content-Length",), times=None)
    with pytest.raises(BadMetadata, match="how long"):
        client.resolve(REPO, commit, GGUF)
    assert client.resolve(REPO, commit, GGUF, expected=EXPECTED).size == len(FILES[GGUF])


@pytest.mark.parametrize("length", ["abc", "-5", "", "9" * 30])
def test_a_length_that_is_no_length_is_not_believed(
    client: HubClient, hub: FakeHub, commit: str, length: str
) -> None:
    hub.fault("hub", "/resolve/", kind="headers", headers={"X-Linked-Size": length}, times=None)
    if length.isdecimal():
        with pytest.raises(BadMetadata):
            client.resolve(REPO, commit, GGUF, expected=EXPECTED)
    else:
        assert client.resolve(REPO, commit, GGUF, expected=EXPECTED).size == len(FILES[GGUF])


def test_a_mirror_that_refuses_head_is_asked_for_one_byte(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    hub.routes.direct = True
    hub.fault("hub", "/resolve/", kind="status", status=405, method="HEAD", times=None)
    remote = client.resolve(REPO, commit, GGUF)
    assert (remote.size, remote.oid) == (len(FILES[GGUF]), SHA256)
    assert hub.log[-1].headers["range"] == "bytes=0-0"


def test_a_mirror_that_ignores_the_range_does_not_make_us_read_the_file(
    client: HubClient, hub: FakeHub
) -> None:
    big = hub.add_repo("org/big", {"b.gguf": bytes(64 << 20)})
    hub.routes.direct = True
    hub.fault("hub", "/resolve/", kind="status", status=405, method="HEAD")
    hub.fault("hub", "/resolve/", kind="ignore_range", method="GET")
    assert client.resolve("org/big", big.main, "b.gguf").size == 64 << 20
    assert hub.bytes_sent("hub") < 32 << 20


def test_a_mirror_that_sends_on_to_the_hub_is_followed_without_the_token(
    make_client: ClientFactory, hub: FakeHub, commit: str
) -> None:
    with FakeHub() as mirror:
        location = {"Location": f"{hub.endpoint}/{REPO}/resolve/{commit}/{GGUF}"}
        mirror.fault("hub", "/resolve/", kind="status", status=308, headers=location, times=None)
        client = make_client(endpoint=mirror.endpoint, token=mirror.token)
        remote = client.resolve(REPO, commit, GGUF)
        assert (remote.size, remote.oid) == (len(FILES[GGUF]), SHA256)
        assert "Authorization" not in remote.headers
        assert all("authorization" not in request.headers for request in hub.log)
        assert "authorization" in mirror.log[0].headers


def test_an_old_name_leads_to_the_same_file(client: HubClient, hub: FakeHub, commit: str) -> None:
    hub.rename("old/name", REPO)
    assert client.resolve("old/name", commit, GGUF, expected=EXPECTED).oid == SHA256


def test_what_could_open_the_file_is_not_shown(
    make_client: ClientFactory, hub: FakeHub, commit: str
) -> None:
    hub.routes.direct = True
    direct = make_client(token=hub.token).resolve(REPO, commit, GGUF)
    hub.routes.direct = False
    signed = make_client(token=hub.token).resolve(REPO, commit, GGUF)
    for remote in (direct, signed):
        assert hub.token not in repr(remote)
        assert "Signature" not in repr(remote)
