"""Trying again, waiting as long as the hub asks, and leaving at once when told to."""

from __future__ import annotations

import email.utils
import socket
import threading
import time

import pytest

from llamactl.errors import Interrupted, NetworkError, RateLimited
from llamactl.hub import limits
from llamactl.hub.client import HubClient
from llamactl.models.reference import ModelRef
from tests.fakes.fake_hub import FakeHub
from tests.hub.conftest import FILES, REPO, ClientFactory

GGUF = "m-Q4_K_M.gguf"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_by_itself_is_tried_again(
    client: HubClient, hub: FakeHub, commit: str, status: int
) -> None:
    body = b"<html>bad gateway</html>"
    for route in ("/refs", "/tree/", "/manifests/", "/resolve/"):
        hub.fault("hub", route, kind="status", status=status, body=body, times=2)
    assert client.commit(REPO) == commit
    assert len(client.tree(REPO, commit)) == len(FILES)
    assert client.manifest(ModelRef(REPO)) is not None
    assert client.resolve(REPO, commit, GGUF).size == len(FILES[GGUF])
    assert len(hub.log) == 12


@pytest.mark.parametrize("kind", ["drop", "cut", "no_length"])
def test_a_connection_that_breaks_is_tried_again(
    client: HubClient, hub: FakeHub, commit: str, kind: str
) -> None:
    fault = hub.fault("hub", "/refs", kind=kind, after=10, times=2)
    if kind == "no_length":
        # A cut that only the end of the connection tells of is seen by the JSON that it spoils.
        fault.times = 0
    assert client.commit(REPO) == commit


def test_a_hub_that_stays_down_is_a_network_error_after_a_few_attempts(
    client: HubClient, hub: FakeHub
) -> None:
    hub.fault("hub", "/refs", kind="status", status=503, times=None)
    with pytest.raises(NetworkError, match="answered 503"):
        client.commit(REPO)
    assert len(hub.log) == 4


def test_a_hub_that_is_not_there_is_a_network_error(
    make_client: ClientFactory, unused_port: int
) -> None:
    with pytest.raises(NetworkError, match=r"127\.0\.0\.1 cannot be reached.*HF_ENDPOINT"):
        make_client(endpoint=f"http://127.0.0.1:{unused_port}").commit(REPO)


def test_a_name_that_does_not_resolve_is_a_network_error(make_client: ClientFactory) -> None:
    with pytest.raises(NetworkError, match=r"hub\.invalid cannot be resolved"):
        make_client(endpoint="http://hub.invalid").commit(REPO)


def test_a_hub_that_speaks_no_tls_is_a_network_error(
    make_client: ClientFactory, hub: FakeHub
) -> None:
    endpoint = hub.endpoint.replace("http://", "https://")
    with pytest.raises(NetworkError):
        make_client(endpoint=endpoint).commit(REPO)


def test_a_short_wait_that_the_hub_asks_for_is_waited_out(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    spent = {"RateLimit": '"api";r=0;t=0'}
    hub.fault("hub", "/refs", kind="status", status=429, headers=spent)
    started = time.monotonic()
    assert client.commit(REPO) == commit
    assert time.monotonic() - started >= 1.0


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        # The least leaves a busy machine some time between the answer and the look at it.
        ({"RateLimit": '"api";r=0;t=200'}, 150, 202),
        ({"RateLimit": '"resolvers";r=0;t=99999'}, 250, 302),
        ({"RateLimit": '"api";r=5;t=200', "Retry-After": "60"}, 10, 61),
        ({"RateLimit": '"api";r=5;t=200', "Retry-After": "86400"}, 250, 302),
        ({"RateLimit": "", "Retry-After": "DATE"}, 10, 62),
    ],
)
def test_a_long_wait_is_told_with_its_time_and_not_sat_out(
    client: HubClient, hub: FakeHub, headers: dict[str, str], least: float, most: float
) -> None:
    date = email.utils.formatdate(time.time() + 60, usegmt=True)
    headers = {name: value.replace("DATE", date) for name, value in headers.items()}
    hub.fault("hub", "/refs", kind="status", status=429, headers=headers, times=None)
    with pytest.raises(RateLimited) as caught:
        client.commit(REPO)
    assert caught.value.retry_at is not None
    assert least <= caught.value.retry_at - time.time() <= most
    assert "HF_TOKEN" in caught.value.hint
    assert len(hub.log) == 1


def test_with_a_token_the_hint_does_not_ask_for_one(
    make_client: ClientFactory, hub: FakeHub
) -> None:
    headers = {"Retry-After": "100"}
    hub.fault("hub", "/refs", kind="status", status=429, headers=headers)
    with pytest.raises(RateLimited) as caught:
        make_client(token=hub.token).commit(REPO)
    assert caught.value.hint == ""


@pytest.mark.parametrize("value", ["nan", "-5", "inf", "soon", "", "1e9", "9" * 5000, "\x00"])
def test_a_retry_after_that_says_nothing_is_ignored(value: str) -> None:
    assert limits.asked_wait({"Retry-After": value}, time.time()) is None


def test_a_date_in_the_past_asks_for_no_wait() -> None:
    date = email.utils.formatdate(0, usegmt=True)
    assert limits.asked_wait({"Retry-After": date}, time.time()) == 0


def test_requests_that_remain_are_no_reason_to_wait() -> None:
    assert limits.asked_wait({"RateLimit": '"api";r=99794;t=241'}, time.time()) is None


def test_a_limit_without_a_time_is_tried_a_few_times_and_then_told(
    client: HubClient, hub: FakeHub
) -> None:
    hub.fault("hub", "/refs", kind="status", status=429, times=None)
    with pytest.raises(RateLimited) as caught:
        client.commit(REPO)
    assert caught.value.retry_at is not None
    assert len(hub.log) == 4


def _ask_and_halt(client: HubClient, hub: FakeHub) -> None:
    """Ask, set the halt as soon as the request has arrived, and expect to be let go."""
    halt = threading.Event()
    outcome: list[BaseException] = []

    def ask() -> None:
        try:
            client.commit(REPO, halt)
        except Interrupted as interrupted:
            outcome.append(interrupted)

    asking = threading.Thread(target=ask)
    asking.start()
    deadline = time.monotonic() + 60
    while not hub.log and time.monotonic() < deadline:
        time.sleep(0.01)
    halt.set()
    asking.join(timeout=60)
    assert not asking.is_alive()
    assert len(outcome) == 1


@pytest.mark.parametrize("kind", ["delay", "stall"])
def test_a_hub_that_hangs_is_left_at_once(hub: FakeHub, client: HubClient, kind: str) -> None:
    fault = hub.fault("hub", "/refs", kind=kind, times=None)
    _ask_and_halt(client, hub)
    fault.release()
    _until_no_request_runs()


def test_a_hub_that_drips_is_left_at_once(hub: FakeHub, client: HubClient) -> None:
    hub.fault("hub", "/refs", kind="trickle", rate=1, times=None)
    _ask_and_halt(client, hub)
    _until_no_request_runs()


def test_a_pause_between_attempts_is_left_at_once(hub: FakeHub) -> None:
    hub.fault("hub", "/refs", kind="status", status=503, times=None)
    _ask_and_halt(HubClient(hub.endpoint, lambda: None, False, backoff=3600), hub)


def test_a_halt_that_was_set_before_asks_nothing(hub: FakeHub, client: HubClient) -> None:
    halt = threading.Event()
    halt.set()
    with pytest.raises(Interrupted):
        client.commit(REPO, halt)
    assert hub.log == []


def _until_no_request_runs() -> None:
    deadline = time.monotonic() + 60
    while any(thread.name == "hub-request" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_hub_at_an_ipv6_address_is_asked_like_any_other(make_client: ClientFactory) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with FakeHub(host="::1") as hub:
        repo = hub.add_repo(REPO, FILES)
        client = make_client(endpoint=f"{hub.endpoint}/")
        assert client.commit(REPO) == repo.main
        assert client.resolve(REPO, repo.main, GGUF).url.startswith("http://[::1]:")
