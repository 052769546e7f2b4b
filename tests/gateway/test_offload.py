"""The requests that nginx carries: who may be told of an instance, and how each one ends."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llamactl.errors import ConfigError
from llamactl.gateway import offload as subject
from llamactl.gateway.connections import connections_to
from llamactl.gateway.offload import Ended, Offload, parse, result_of
from llamactl.gateway.passage import Call
from llamactl.gateway.proof import ensure_proof
from llamactl.secret import Secret
from tests.gateway.conftest import eventually

ID = "0123456789abcdef" * 2


class FakePassage:
    """Counts how often it was closed."""

    started = 0.0
    first_byte: float | None = None

    def __init__(self) -> None:
        self.result = ""
        self.closed = 0

    def hand_over(self, _call: Call, _carrier: str) -> Any:
        return SimpleNamespace(host="127.0.0.1", port=8001, api_key=Secret("instance-key"))

    def close(self) -> None:
        self.closed += 1


def free_udp_port() -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def call(intact: bool = True) -> Call:
    instance = SimpleNamespace(name="fake", id=1)
    return Call(cast(Any, instance), "POST", "/v1/embeddings", [], b"{}", intact=intact)


@pytest.fixture
def connections() -> list[int | None]:
    """How many connections lead to the instance, as the test wants it."""
    return [0]


@pytest.fixture
def port() -> int:
    return free_udp_port()


@pytest.fixture
def offload(tmp_path: Path, port: int, connections: list[int | None]) -> Iterator[Offload]:
    running = Offload(tmp_path, port, lambda _host, _port: connections[0])
    running.start()
    yield running
    running.stop()


def carried(offload: Offload) -> tuple[FakePassage, str]:
    passage = FakePassage()
    told = dict(offload.take(cast(Any, passage), call()))
    return passage, told["X-Llamactl-Request"]


def tell(port: int, line: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(line.encode(), ("127.0.0.1", port))


def test_only_who_shows_the_proof_is_told_of_an_instance(offload: Offload, tmp_path: Path) -> None:
    proof = ensure_proof(tmp_path).reveal()
    assert offload.takes(call(), proof)
    assert not offload.takes(call(), None)
    assert not offload.takes(call(), "")
    assert not offload.takes(call(), proof[:-1] + ("0" if proof[-1] != "0" else "1"))
    assert not offload.takes(call(intact=False), proof)


def test_the_proof_is_made_once_and_readable_to_nobody_else(tmp_path: Path) -> None:
    first = ensure_proof(tmp_path)
    assert ensure_proof(tmp_path) == first
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text('proxy_set_header X-Llamactl-Accel "short";\n')
    with pytest.raises(ConfigError, match="damaged"):
        ensure_proof(tmp_path)


def test_a_request_ends_once_when_nginx_says_so(offload: Offload, port: int) -> None:
    passage, key = carried(offload)
    other, _ = carried(offload)
    for _ in range(2):
        tell(port, f"<190>Nov 22 14:00:00 llamactl: llamactl-ended {key} 200 OK 0.001 : 0.250")
    eventually(lambda: passage.closed)
    assert (passage.result, passage.closed, other.closed) == ("200", 1, 0)
    assert passage.first_byte is not None


def test_what_does_not_know_a_request_ends_none(offload: Offload, port: int) -> None:
    passage, key = carried(offload)
    for line in (
        f"llamactl-ended {ID} 200 OK 0.1",
        f"llamactl-ended {key[:-1]} 200 OK 0.1",
        "x" * 5000,
        "",
        f"llamactl-ended {key} 2000 OK",
    ):
        tell(port, line)
    last, last_key = carried(offload)
    tell(port, f"llamactl-ended {last_key} 499  -")
    eventually(lambda: last.closed)
    assert last.result == "client_gone"
    assert passage.closed == 0


@pytest.mark.parametrize(
    ("line", "ended", "result"),
    [
        (f"llamactl-ended {ID} 200 OK 0.002 : 1.5", Ended(ID, 200, True, 1.5), "200"),
        (f"llamactl-ended {ID} 200  0.002, 1.5", Ended(ID, 200, False, 1.5), "cut_short"),
        (f"llamactl-ended {ID} 502 OK 0.002 : -", Ended(ID, 502, True, None), "502"),
        (f"llamactl-ended {ID} 499  -", Ended(ID, 499, False, None), "client_gone"),
    ],
)
def test_a_line_of_nginx_is_read(line: str, ended: Ended, result: str) -> None:
    assert parse(line.encode()) == ended
    assert result_of(ended) == result


def test_what_was_never_told_is_given_back_after_two_looks(
    offload: Offload, connections: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The thread looks too, and may be the second to do so.
    connections[0] = 2
    passages = [carried(offload)[0] for _ in range(2)]
    monkeypatch.setattr(subject, "LOOK_SECONDS", 0.0)
    offload.look()
    offload.look()
    assert [each.closed for each in passages] == [0, 0]
    connections[0] = 1
    offload.look()
    offload.look()
    assert [each.closed for each in passages] == [1, 0]
    assert passages[0].result == "unknown"


def test_where_connections_cannot_be_counted_a_request_is_given_up_after_hours(
    offload: Offload, connections: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    connections[0] = None
    passage, _ = carried(offload)
    monkeypatch.setattr(subject, "LOOK_SECONDS", 0.0)
    offload.look()
    assert passage.closed == 0
    monkeypatch.setattr(subject, "LONGEST_SECONDS", 0.0)
    offload.look()
    assert passage.closed == 1


def test_a_stop_gives_everything_back(offload: Offload) -> None:
    passage, _ = carried(offload)
    offload.stop()
    assert (passage.closed, passage.result) == (1, "shutting_down")


def test_a_port_that_is_taken_stops_the_start_and_is_named(
    tmp_path: Path, port: int, offload: Offload
) -> None:
    with pytest.raises(ConfigError, match=str(port)):
        Offload(tmp_path, port).start()


def test_connections_of_this_machine_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert connections_to("127.0.0.1", port) in (0, None)
        with socket.create_connection(("127.0.0.1", port)):
            known = Path("/proc/net/tcp").exists()
            eventually(lambda: connections_to("127.0.0.1", port) == (1 if known else None))
