"""Requests whose bytes nginx carries: llamactl decides about each, and nginx says when it ended.

llamactl answers nginx with the address and the key of an instance (``X-Accel-Redirect``), and keeps
the request's place and lease. nginx asks the instance with the client's own body, and writes a line
for each request that ended to a socket of ours, as syslog. A line that never comes is found out by
counting connections: nginx holds one to the instance for as long as the request lasts.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llamactl.errors import ConfigError
from llamactl.gateway.connections import connections_to
from llamactl.gateway.headers import Headers
from llamactl.gateway.passage import Call, Passage
from llamactl.gateway.proof import ensure_proof
from llamactl.gateway.tokens import InstanceTokens
from llamactl.secret import Secret

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
#: Seconds between two looks for requests whose end was never told.
LOOK_SECONDS = 3.0
#: Seconds after which a request is given up where connections cannot be counted.
LONGEST_SECONDS = 6 * 3600.0
_BUFFER = 4 << 20
_READINGS = 3
_JOIN_SECONDS = 10.0
_LONGEST_LINE = 2048
_WHOLE = b"OK"
# id, status, whether it was whole, and for each server that was asked the seconds to its headers.
_ENDED = re.compile(rb"llamactl-ended ([0-9a-f]{32}) ([0-9]{3}) (OK|-|) ?([0-9.: ,-]*)$")


@dataclass(frozen=True)
class Ended:
    """What nginx told of a request that ended. ``first_byte`` in seconds since it asked."""

    id: str
    status: int
    whole: bool
    first_byte: float | None


@dataclass(frozen=True)
class _Carried:
    passage: Passage
    host: str
    port: int
    since: float


class Offload:
    """The requests that nginx carries. Thread-safe."""

    def __init__(
        self, data_dir: Path, port: int, count: Callable[[str, int], int | None] = connections_to
    ) -> None:
        self._data_dir = data_dir
        self._port = port
        self._proof: Secret | None = None
        self._count = count
        self._lock = threading.Lock()
        self._carried: dict[str, _Carried] = {}
        self._suspects: dict[tuple[str, int], int] = {}
        self.tokens = InstanceTokens()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._ending = False

    def start(self) -> None:
        """Listen for what nginx tells. Raises ``ConfigError`` if the port is taken."""
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            listening.bind((HOST, self._port))
        except OSError as error:
            listening.close()
            raise ConfigError(
                f"server.accel: UDP port {self._port} of {HOST}, on which nginx tells when a "
                f"request ended, cannot be had: {error.strerror}",
                hint="It is the number of server.port; choose another one, not 0.",
            ) from error
        listening.settimeout(LOOK_SECONDS)
        self._proof = ensure_proof(self._data_dir)
        self._socket = listening
        self._thread = threading.Thread(target=self._run, name="llamactl-accel", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give back whatever is still held, and end the thread."""
        if self._socket is None or self._thread is None:
            return
        self._ending = True
        with contextlib.suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._socket.getsockname())
        self._thread.join(_JOIN_SECONDS)
        self._socket.close()
        for key in list(self._carried):
            self._end(Ended(key, 0, False, None), "shutting_down")

    def takes(self, call: Call, proof: str | None) -> bool:
        """Whether nginx may carry this call; ``proof`` is what the request's header says."""
        return (
            call.intact
            and proof is not None
            and self._proof is not None
            and not self._ending
            and Secret(proof) == self._proof
        )

    def take(self, passage: Passage, call: Call) -> Headers:
        """Wait for the instance; the headers that have nginx carry the request from here on.

        They hold the instance's key: only for whoever has shown the proof.
        """
        lease = passage.hand_over(call, "nginx")
        self.tokens.note(call.instance.name, lease.port, lease.api_key)
        key = secrets.token_hex(16)
        with self._lock:
            self._carried[key] = _Carried(passage, lease.host, lease.port, time.monotonic())
        return [
            ("X-Accel-Redirect", "@llamactl_instance"),
            ("X-Llamactl-Upstream", f"{lease.host}:{lease.port}"),
            ("X-Llamactl-Path", call.target),
            ("X-Llamactl-Authorization", f"Bearer {lease.api_key.reveal()}"),
            ("X-Llamactl-Request", key),
        ]

    def _run(self) -> None:
        looked = time.monotonic()
        assert self._socket is not None
        while not self._ending:
            with contextlib.suppress(TimeoutError):
                ended = parse(self._socket.recv(_LONGEST_LINE))
                if ended is not None:
                    self._end(ended, result_of(ended))
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                self.look()

    def look(self) -> None:
        """Give back what belongs to requests that have ended without a word.

        Where fewer connections lead to an instance than requests are carried there, twice in a
        row, the oldest of these are over.
        """
        now = time.monotonic()
        with self._lock:
            carried = list(self._carried.items())
        by_address: dict[tuple[str, int], list[str]] = defaultdict(list)
        for key, each in carried:
            if now - each.since >= LOOK_SECONDS:
                by_address[each.host, each.port].append(key)
        suspects: dict[tuple[str, int], int] = {}
        for address, keys in by_address.items():
            connections = self._connections(address, len(keys))
            if connections is None:
                over = [key for key in keys if now - self._carried[key].since > LONGEST_SECONDS]
            else:
                suspects[address] = max(0, len(keys) - connections)
                over = keys[: min(suspects[address], self._suspects.get(address, 0))]
            for key in over:
                log.warning("nginx did not say how a request of %s ended", address)
                self._end(Ended(key, 0, False, None), "unknown")
        self._suspects = suspects

    def _connections(self, address: tuple[str, int], expected: int) -> int | None:
        # The table changes while it is read, and lines may be missed: the most seen is right.
        most = 0
        for _ in range(_READINGS):
            seen = self._count(*address)
            if seen is None:
                return None
            most = max(most, seen)
            if most >= expected:
                break
        return most

    def _end(self, ended: Ended, result: str) -> None:
        with self._lock:
            carried = self._carried.pop(ended.id, None)
        if carried is None:
            return
        passage = carried.passage
        passage.result = result
        if ended.first_byte is not None:
            passage.first_byte = carried.since - passage.started + ended.first_byte
        passage.close()


def parse(line: bytes) -> Ended | None:
    """What a syslog datagram of nginx tells; None for anything else."""
    match = _ENDED.search(line)
    if match is None:
        return None
    # Of several servers that were asked, after one another, the instance is the last.
    last = re.split(rb"[ :,]+", match[4].strip())[-1]
    first_byte = float(last) if re.fullmatch(rb"[0-9]+(\.[0-9]+)?", last) else None
    return Ended(match[1].decode(), int(match[2]), match[3] == _WHOLE, first_byte)


def result_of(ended: Ended) -> str:
    """How a request ended, as statistics call it."""
    if ended.status == 499:
        return "client_gone"
    if not ended.whole and ended.status < 400:
        # After its headers, nginx does not say which end broke off.
        return "cut_short"
    return str(ended.status)
