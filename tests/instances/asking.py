"""Requests to an instance as the gateway makes them: under a lease, with its key."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llamactl.instances.health import Probe
from llamactl.instances.lease import Lease
from llamactl.instances.slots import Slots, read_slots
from tests.instances.conftest import PATIENCE, Stage, eventually


def ask(lease: Lease, path: str = "/props") -> int:
    """The status of one GET."""
    request = urllib.request.Request(
        f"http://{lease.host}:{lease.port}{path}",
        headers={"Authorization": f"Bearer {lease.api_key.reveal()}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return int(answer.status)


@contextlib.contextmanager
def serving(stage: Stage, shape: dict[str, Any], name: str = "one") -> Iterator[Lease]:
    """An instance while it serves a request of that shape, which is broken off at the end."""
    with stage.supervisor.lease(name) as lease, socket.socket() as client:
        body = json.dumps({"prompt": "a", "fake": shape})
        head = f"POST /v1/completions HTTP/1.1\r\nAuthorization: Bearer {lease.api_key.reveal()}"
        client.connect((lease.host, lease.port))
        client.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        eventually(lambda: _begun(lease), "the request")
        yield lease


def _begun(lease: Lease) -> bool:
    """Whether it serves somebody, or has ended, for which it may have been given a moment only."""
    try:
        return bool(_state(lease)["active"])
    except (OSError, http.client.HTTPException):
        return True


def _state(lease: Lease) -> Any:
    connection = http.client.HTTPConnection(lease.host, lease.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/fake/state")
        return json.loads(connection.getresponse().read())


def slots_while_writing(stage: Stage, name: str = "one") -> tuple[Slots, Slots]:
    """Two readings of what a real llama-server says of a long answer, the second one further on."""
    with stage.supervisor.lease(name) as lease, socket.socket() as client:
        body = json.dumps({"prompt": "a b c", "n_predict": 100_000, "ignore_eos": True})
        head = f"POST /completion HTTP/1.1\r\nAuthorization: Bearer {lease.api_key.reveal()}"
        kind = "Host: one\r\nContent-Type: application/json"
        client.connect((lease.host, lease.port))
        client.sendall(f"{head}\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        probe = Probe(lease.host, lease.port, lease.api_key)

        def look() -> Slots | None:
            answer = probe.body("/slots", PATIENCE)
            slots = read_slots(answer) if answer is not None else None
            return slots if slots is not None and slots.working else None

        first = eventually(look, "a slot that works")
        return first, eventually(
            lambda: slots if (slots := look()) is not None and slots.written_since(first) else None,
            "a slot that gets on",
        )


def served_in_turn(stage: Stage, holder: str, names: Sequence[str]) -> list[str]:
    """The order in which requests for ``names`` are served that queue so behind one for another."""
    held = stage.supervisor.lease(holder)
    order: list[str] = []

    def use(name: str) -> None:
        with stage.supervisor.lease(name):
            order.append(name)

    with ThreadPoolExecutor(len(names)) as pool:
        for name in names:
            pool.submit(use, name)
            instance = stage.supervisor._registry.find(name)
            eventually(lambda: stage.supervisor._places.queued(instance))  # noqa: B023 - at once
        held.release()
    return order
