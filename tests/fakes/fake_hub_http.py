"""The two web servers of a fake hub: HTTP/1.1, a thread per connection, every byte counted."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Literal
from urllib.parse import urlsplit

from tests.fakes import fake_hub_faults as faults
from tests.fakes.fake_hub_faults import Answer, Fault

Origin = Literal["hub", "cdn"]
CHUNK = 1 << 20
TICKS_PER_SECOND = 50


@dataclass
class Request:
    """One request as it came; `status` and `bytes_sent` are filled in while it is answered."""

    origin: Origin
    method: str
    path: str
    query: str
    headers: dict[str, str]
    connection: int
    status: int = 0
    bytes_sent: int = 0
    fault: str | None = None
    body: bytes = field(default=b"", repr=False)

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def byte_range(self) -> tuple[int, int] | None:
        """The single closed range that was asked, both ends included."""
        value = self.headers.get("range", "")
        first, _, last = value.removeprefix("bytes=").partition("-")
        if not value.startswith("bytes=") or not (first.isdigit() and last.isdigit()):
            return None
        return int(first), int(last)


class Weather:
    """What both origins share: the faults, the log, the pace, and the signal to close."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.leaks: list[Request] = []
        self.rate: int | None = None
        self.latency = 0.0
        self.closing = threading.Event()

    def note(self, request: Request) -> Fault | None:
        """Write the request down; return the fault that it is to meet."""
        with self.lock:
            self.log.append(request)
            for fault in self.faults:
                if fault.takes(request.origin, request.method, request.target):
                    request.fault = fault.kind
                    return fault
        return None

    def pause(self, seconds: float | None, release: threading.Event) -> None:
        """Wait, until the time is over, the fault is released or the hub closes."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self.closing.is_set():
            left = 0.05 if deadline is None else min(0.05, deadline - time.monotonic())
            if left <= 0 or release.wait(left):
                return


class OriginServer(ThreadingMixIn, TCPServer):
    """One origin; `close()` ends every connection and joins every thread."""

    allow_reuse_address = True
    daemon_threads = False
    request_queue_size = 128

    def __init__(
        self,
        origin: Origin,
        address: tuple[str, int],
        weather: Weather,
        answer: Callable[[Request], Answer],
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)
        self.origin: Origin = origin
        self.weather = weather
        self.answer = answer
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, name=f"fake-{origin}")

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def start(self) -> None:
        self._thread.start()

    def _accept(self) -> None:
        """Like serve_forever, which notices that it should end only when it next looks."""
        while not self.weather.closing.is_set():
            request, client_address = self.get_request()
            self.process_request(request, client_address)

    def close(self) -> None:
        host, port = self.server_address[:2]
        with contextlib.suppress(OSError):
            socket.create_connection((str(host), port)).close()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                _shut(connection)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == _RESET:
            # A shutdown would send FIN first; only a bare close sends RST alone.
            request.close()
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are everyday business here; anything else is a bug of the fake."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


_RESET = struct.pack("ii", 1, 0)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # The client was first.
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "fake-hub"
    disable_nagle_algorithm = True
    server: OriginServer

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        server = self.server
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = int(headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else b""
        request = Request(
            server.origin,
            self.command,
            url.path,
            url.query,
            headers,
            connection=self.client_address[1],
            body=body,
        )
        fault = server.weather.note(request)
        if server.weather.latency:
            server.weather.closing.wait(server.weather.latency)
        answer = server.answer(request)
        if fault is not None:
            faults.apply(fault, answer)
        request.status = answer.status
        self._send(request, answer, fault)

    def _send(self, request: Request, answer: Answer, fault: Fault | None) -> None:
        server = self.server
        delivery = answer.delivery
        release = fault.released if fault else threading.Event()
        if delivery.delay:
            server.weather.pause(delivery.stall_seconds, release)
        if answer.status:
            self._send_head(answer)
            if request.method != "HEAD" and answer.status not in (204, 304):
                sender = _BodySender(self.connection, request, answer, server.weather, release)
                sender.send()
        if delivery.ending != "keep" or "Connection" in answer.headers:
            self.close_connection = True
        if delivery.ending == "rst":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _send_head(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        self.send_header("Date", self.date_time_string())
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the log is `Weather.log`."""


class _BodySender:
    """Sends one body at the pace and to the end that its delivery asks for."""

    def __init__(
        self,
        connection: socket.socket,
        request: Request,
        answer: Answer,
        weather: Weather,
        release: threading.Event,
    ) -> None:
        self._socket = connection
        self._request = request
        self._answer = answer
        self._weather = weather
        self._release = release

    def send(self) -> None:
        answer, delivery = self._answer, self._answer.delivery
        end = answer.end
        if delivery.stop_after is not None:
            end = min(end, answer.start + delivery.stop_after)
        if delivery.stall_after is not None:
            middle = min(end, answer.start + delivery.stall_after)
            self._send_span(answer.start, middle)
            self._weather.pause(delivery.stall_seconds, self._release)
            self._send_span(middle, end)
        else:
            self._send_span(answer.start, end)
        if delivery.chunked:
            self._socket.sendall(b"0\r\n\r\n")

    def _send_span(self, start: int, end: int) -> None:
        path = self._answer.content.path
        if path is None:
            self._paced(start, end, self._send_bytes)
            return
        file = os.open(path, os.O_RDONLY)
        try:
            self._paced(start, end, lambda a, b: self._send_file(file, a, b))
        finally:
            os.close(file)

    def _paced(self, start: int, end: int, send: Callable[[int, int], int]) -> None:
        rate = self._rate
        began, position = time.monotonic(), start
        while position < end and not self._weather.closing.is_set():
            if rate != self._rate:
                rate = self._rate
                began, start = time.monotonic(), position
            step = CHUNK if rate is None else max(1, min(CHUNK, rate // TICKS_PER_SECOND))
            sent = send(position, min(position + step, end))
            if not sent:
                return  # The file is shorter than it was: the client sees a short body.
            position += sent
            self._request.bytes_sent += sent
            if rate is not None:
                ahead = (position - start) / rate - (time.monotonic() - began)
                if ahead > 0:
                    self._weather.closing.wait(ahead)

    @property
    def _rate(self) -> int | None:
        """Bytes per second now: its own pace, or that of all."""
        return self._answer.delivery.rate or self._weather.rate

    def _send_bytes(self, start: int, end: int) -> int:
        piece = self._answer.content.read(start, end)
        if self._answer.delivery.chunked:
            piece = b"%x\r\n%s\r\n" % (len(piece), piece)
        self._socket.sendall(piece)
        return end - start

    def _send_file(self, file: int, start: int, end: int) -> int:
        if self._answer.delivery.chunked:
            return self._send_bytes(start, end)
        return os.sendfile(self._socket.fileno(), file, start, end - start)
