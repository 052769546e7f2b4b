"""The fake hub commits each fault as it says, and nothing else."""

from __future__ import annotations

import concurrent.futures
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.fakes.fake_hub import FakeHub, seeded_bytes

PAYLOAD = seeded_bytes(100_000)
IDENTITY = {"Accept-Encoding": "identity"}
RANGE = IDENTITY | {"Range": "bytes=1000-4999"}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.add_repo("org/m", {"m.gguf": PAYLOAD, "README.md": b"hello\n" * 50})
        yield running


@pytest.fixture
def url(hub: FakeHub) -> str:
    """A signed url of the model's bytes."""
    asked = requests.head(f"{hub.endpoint}/org/m/resolve/main/m.gguf", timeout=30)
    return asked.headers["Location"]


def _get(url: str, headers: dict[str, str] = RANGE) -> requests.Response:
    return requests.get(url, headers=headers, timeout=30)


def _raw(url: str) -> bytes:
    """Everything that a ranged request makes the CDN send, byte for byte."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        head = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nRange: bytes=1000-4999\r\n"
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        received = bytearray()
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            received += b"<reset>"
    return bytes(received)


def test_a_range_is_answered_with_exactly_it(url: str, hub: FakeHub) -> None:
    answer = _get(url)
    assert answer.status_code == 206
    assert answer.headers["Content-Range"] == "bytes 1000-4999/100000"
    assert answer.content == PAYLOAD[1000:5000]
    request = hub.requests("cdn")[0]
    assert request.byte_range == (1000, 4999)
    assert request.bytes_sent == 4000


def test_a_range_beyond_the_end_is_416(url: str) -> None:
    answer = _get(url, IDENTITY | {"Range": "bytes=100000-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == "bytes */100000"


def test_an_open_and_a_suffix_range_are_understood(url: str) -> None:
    assert _get(url, IDENTITY | {"Range": "bytes=99990-"}).content == PAYLOAD[-10:]
    assert _get(url, IDENTITY | {"Range": "bytes=-7"}).content == PAYLOAD[-7:]


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_files_on_disk_are_served_whole_and_in_ranges(
    hub: FakeHub, tmp_path: Path, size: int
) -> None:
    payload = seeded_bytes(size)
    (tmp_path / "f").write_bytes(payload)
    hub.add_repo("org/disk", {"m.gguf": tmp_path / "f"})
    url = f"{hub.endpoint}/org/disk/resolve/main/m.gguf"
    assert _get(url, IDENTITY).content == payload
    if size:
        assert _get(url).content == payload[1000:5000] or size == 1


def test_a_cut_keeps_the_promise_of_length_and_breaks_it(url: str, hub: FakeHub) -> None:
    hub.fault("cdn", "", kind="cut", after=100)
    received = _raw(url)
    assert b"Content-Length: 4000\r\n" in received
    assert received.endswith(b"<reset>")
    hub.fault("cdn", "", kind="cut", after=100, ending="fin")
    assert _raw(url).endswith(b"\r\n\r\n" + PAYLOAD[1000:1100])
    assert [request.bytes_sent for request in hub.requests("cdn")] == [100, 100]


def test_a_drop_says_nothing_at_all(url: str, hub: FakeHub) -> None:
    hub.fault("cdn", "", kind="drop", ending="fin")
    assert _raw(url) == b""
    hub.fault("cdn", "", kind="drop")
    assert _raw(url) == b"<reset>"


def test_a_body_without_length_may_end_early(url: str, hub: FakeHub) -> None:
    hub.fault("cdn", "", kind="no_length", after=100)
    answer = _get(url)
    assert "Content-Length" not in answer.headers
    assert answer.content == PAYLOAD[1000:1100]


def test_a_chunked_body_may_end_early(url: str, hub: FakeHub) -> None:
    hub.fault("cdn", "", kind="chunked", after=100)
    answer = _get(url)
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.content == PAYLOAD[1000:1100]


def test_a_long_body_goes_beyond_the_range(url: str, hub: FakeHub) -> None:
    hub.fault("cdn", "", kind="long", extra=50)
    assert _get(url).content == PAYLOAD[1000:5000] + b"\xee" * 50


def test_an_ignored_range_gives_everything(url: str, hub: FakeHub) -> None:
    hub.fault("cdn", "", kind="ignore_range")
    answer = _get(url)
    assert (answer.status_code, answer.content) == (200, PAYLOAD)
    assert "Content-Range" not in answer.headers


def test_a_slice_may_come_as_200(url: str, hub: FakeHub) -> None:
    hub.fault("cdn", "", kind="slice_200")
    answer = _get(url)
    assert (answer.status_code, answer.content) == (200, PAYLOAD[1000:5000])
    assert answer.headers["Content-Range"] == "bytes 1000-4999/100000"


def test_a_shifted_range_says_so(url: str, hub: FakeHub) -> None:
    hub.fault("cdn", "", kind="shifted")
    answer = _get(url)
    assert answer.headers["Content-Range"] == "bytes 1001-5000/100000"
    assert answer.content == PAYLOAD[1001:5001]


def test_a_wrong_total_and_a_missing_range_are_only_in_the_headers(url: str, hub: FakeHub) -> None:
    hub.fault("cdn", "", kind="wrong_total", extra=7)
    assert _get(url).headers["Content-Range"] == "bytes 1000-4999/100007"
    hub.fault("cdn", "", kind="headers", drop=("Content-Range",))
    answer = _get(url)
    assert answer.status_code == 206
    assert "Content-Range" not in answer.headers


def test_a_range_may_come_as_multipart(url: str, hub: FakeHub) -> None:
    hub.fault("cdn", "", kind="multipart")
    answer = _get(url)
    assert answer.headers["Content-Type"].startswith("multipart/byteranges")
    assert PAYLOAD[1000:5000] in answer.content


def test_a_body_may_come_compressed_though_nobody_asked(url: str, hub: FakeHub) -> None:
    hub.fault("cdn", "", kind="gzip")
    answer = _get(url)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.content == PAYLOAD


def test_one_bit_may_be_flipped(url: str, hub: FakeHub) -> None:
    hub.fault("cdn", "", kind="flip", after=10)
    content = _get(url).content
    different = [n for n in range(4000) if content[n] != PAYLOAD[1000 + n]]
    assert different == [10]


def test_a_stall_lasts_until_it_is_released(url: str, hub: FakeHub) -> None:
    fault = hub.fault("cdn", "", kind="stall", after=100)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(_get, url)
        deadline = time.monotonic() + 60
        while hub.bytes_sent() < 100 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not answer.done()
        assert hub.bytes_sent() == 100
        fault.release()
        assert answer.result(timeout=60).content == PAYLOAD[1000:5000]


def test_closing_the_hub_ends_what_is_stalled() -> None:
    with FakeHub() as hub:
        repo = hub.add_repo("org/m", {"m.gguf": PAYLOAD})
        hub.fault("hub", "/resolve/", kind="delay", times=None)
        failed = threading.Event()

        def ask() -> None:
            try:
                _get(f"{hub.endpoint}/org/m/resolve/{repo.main}/m.gguf")
            except requests.RequestException:
                failed.set()

        asking = threading.Thread(target=ask)
        asking.start()
        deadline = time.monotonic() + 60
        while not hub.log and time.monotonic() < deadline:
            time.sleep(0.01)
    asking.join(timeout=60)
    assert not asking.is_alive()
    assert not [t for t in threading.enumerate() if t.name.startswith("fake-")]


def test_a_fault_begins_at_its_nth_request_and_lasts_its_times(url: str, hub: FakeHub) -> None:
    fault = hub.fault("cdn", "", kind="status", status=503, nth=2, times=2)
    assert [_get(url).status_code for _ in range(5)] == [206, 503, 503, 206, 206]
    assert fault.hits == 2


def test_an_unknown_kind_of_fault_is_refused(hub: FakeHub) -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        hub.fault("cdn", "", kind="meteor")


def test_signed_urls_expire(url: str, hub: FakeHub) -> None:
    assert _get(url).status_code == 206
    hub.expire_urls()
    assert _get(url).status_code == 403
    again = requests.head(f"{hub.endpoint}/org/m/resolve/main/m.gguf", timeout=30)
    assert _get(again.headers["Location"]).status_code == 206


def test_a_signature_is_good_for_its_own_path_only(url: str, hub: FakeHub) -> None:
    hub.add_repo("org/n", {"n.gguf": b"other"})
    other = hashlib.sha256(b"xet:" + hashlib.sha256(b"other").hexdigest().encode()).hexdigest()
    path = urlsplit(url).path
    assert _get(url.replace(path.rsplit("/", 1)[-1], other)).status_code == 403


def test_a_throttle_paces_each_connection(url: str, hub: FakeHub) -> None:
    hub.throttle(200_000)
    started = time.monotonic()
    assert _get(url, IDENTITY).content == PAYLOAD
    assert time.monotonic() - started >= 0.45


def test_a_credential_at_the_cdn_is_kept_as_a_leak(url: str, hub: FakeHub) -> None:
    _get(url)
    assert hub.leaks == []
    _get(url, {"Authorization": "Basic eDp5"})
    _get(url, {"X-Anything": hub.token})
    assert len(hub.leaks) == 2


def test_small_files_come_compressed_to_those_who_allow_it(hub: FakeHub) -> None:
    url = f"{hub.endpoint}/org/m/resolve/main/README.md"
    packed = requests.get(url, timeout=30)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.content == _get(url, IDENTITY).content == b"hello\n" * 50
    again = requests.get(url, headers={"If-None-Match": packed.headers["ETag"]}, timeout=30)
    assert (again.status_code, again.content) == (304, b"")


def test_the_manifest_answers_only_llama_cpp_with_file_names(hub: FakeHub) -> None:
    url = f"{hub.endpoint}/v2/org/m/manifests/latest"
    ours = requests.get(url, headers={"User-Agent": "llama-cpp/b1"}, timeout=30)
    assert ours.json()["ggufFile"]["rfilename"] == "m.gguf"
    assert "ggufFile" not in requests.get(url, timeout=30).json()
    kept = {"User-Agent": "llama-cpp/b1", "If-None-Match": ours.headers["ETag"]}
    assert requests.get(url, headers=kept, timeout=30).status_code == 304


@pytest.mark.parametrize(
    ("names", "tag", "chosen"),
    [
        (["a-Q8_0.gguf", "a-Q4_K_M.gguf", "a-Q4_0.gguf"], "latest", "a-Q4_K_M.gguf"),
        (["a-Q8_0.gguf", "a-Q4_0.gguf"], "latest", "a-Q4_0.gguf"),
        (["a-Q8_0.gguf", "a-Q5_0.gguf"], "latest", "a-Q5_0.gguf"),
        (["a-Q8_0.gguf", "a-Q4_0.gguf"], "q8_0", "a-Q8_0.gguf"),
        (
            ["Q8_0/a-00001-of-00002.gguf", "Q8_0/a-00002-of-00002.gguf"],
            "Q8_0",
            "Q8_0/a-00001-of-00002.gguf",
        ),
        (["a-UD-Q4_K_XL.gguf", "a-Q4_K_M.gguf"], "UD-Q4_K_XL", "a-UD-Q4_K_XL.gguf"),
        (["mmproj-F16.gguf", "a-F16.gguf"], "F16", "a-F16.gguf"),
    ],
)
def test_the_manifest_chooses_as_the_hub_does(
    hub: FakeHub, names: list[str], tag: str, chosen: str
) -> None:
    hub.add_repo("org/many", dict.fromkeys(names, b"x"))
    url = f"{hub.endpoint}/v2/org/many/manifests/{tag}"
    found = requests.get(url, headers={"User-Agent": "llama-cpp/b1"}, timeout=30).json()
    assert found["ggufFile"]["rfilename"] == chosen
