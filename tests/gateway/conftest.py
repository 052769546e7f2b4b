"""A real gunicorn with the inference routes, real fake instances behind it, clients on sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.llama import FakeLlama

ROOT = Path(__file__).parent.parent.parent
#: As in the shipped configuration.
WORKER = "llamactl.request_worker.RequestWorker"
#: Seconds that only something that hangs takes.
PATIENCE = 60.0


def eventually(check: Callable[[], Any]) -> Any:
    """What ``check`` gives once that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (result := check()):
        assert time.monotonic() < deadline, check
        time.sleep(0.01)
    return result


class Instance:
    """A fake llama-server that runs on a port of its own."""

    def __init__(self, directory: Path, key: str, **flags: object) -> None:
        self.fake = FakeLlama(directory, **flags)
        self.process = subprocess.Popen(
            [*self.fake.argv, "--port", "0"],
            env={**os.environ, "LLAMA_API_KEY": key},
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        self.port: int = self.fake.wait_for("listening")[0]["port"]

    def state(self) -> Any:
        """What the fake counts: active, requests, aborts."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", "/fake/state")
            return json.loads(connection.getresponse().read())

    def at_rest(self) -> Any:
        """What it counts once it serves nobody; an end reaches it after it was told to a client."""
        return eventually(lambda: state if (state := self.state())["active"] == 0 else None)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Stream:
    """A client's connection, read as the bytes come."""

    def __init__(
        self, port: int, head: str, body: bytes, receive_buffer: int | None = None
    ) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(head.encode() + body)
        self.received = b""

    def read_until(self, wanted: bytes) -> bytes:
        """Everything so far, once it holds ``wanted``."""
        while wanted not in self.received:
            data = self.socket.recv(65536)
            assert data, self.received
            self.received += data
        return self.received

    def read_all(self) -> bytes:
        """Everything up to the end of the connection."""
        with contextlib.suppress(ConnectionResetError):
            while data := self.socket.recv(65536):
                self.received += data
        return self.received

    def waiting(self, seconds: float) -> bool:
        """Whether something comes within ``seconds``."""
        return bool(select.select([self.socket], [], [], seconds)[0])

    def close(self) -> None:
        self.socket.close()


class Served:
    """gunicorn with the inference routes over ``instances``."""

    def __init__(
        self, directory: Path, instances: list[dict[str, Any]], key: str, **settings: object
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.streams: list[Stream] = []
        self.key = "management-key-" + secrets.token_hex(16)
        sections: dict[str, dict[str, object]] = {"auth": {"management_keys": [self.key]}}
        for name, value in settings.items():
            section, _, setting = name.partition("__")
            sections.setdefault(section, {})[setting] = value
        configuration = directory / "llamactl.yaml"
        configuration.write_text(json.dumps({"data_dir": str(directory / "data"), **sections}))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.log = directory / "gunicorn.log"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--worker-class", WORKER),
                *("--threads", "64", "--bind", f"fd://{self.listener.fileno()}"),
                *("--no-control-socket", "--log-file", str(self.log)),
                "tests.gateway.served:application()",
            ],
            cwd=ROOT,
            env={
                **{name: value for name, value in os.environ.items() if name != "HOME"},
                "HOME": str(directory),
                "TEST_CONFIG": str(configuration),
                "TEST_INSTANCES": json.dumps(instances),
                "TEST_INSTANCE_KEY": key,
            },
            pass_fds=[self.listener.fileno()],
            stdin=subprocess.DEVNULL,
        )
        self.listener.close()
        try:
            assert self.call("GET", "/healthz")[0] == 200
        except BaseException:
            self.stop()
            raise

    def call(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        key: str | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, str], bytes]:
        """One request of its own connection: status, headers in lower case, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        if key != "":
            sent.setdefault("Authorization", f"Bearer {key or self.key}")
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return response.status, got, response.read()

    def stream(
        self,
        body: dict[str, Any],
        path: str = "/v1/chat/completions",
        key: str | None = None,
        receive_buffer: int | None = None,
    ) -> Stream:
        """A POST whose answer is read as it comes; closed when the test is done, if not before."""
        raw = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {key or self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        )
        self.streams.append(Stream(self.port, head, raw, receive_buffer))
        return self.streams[-1]

    def state(self) -> Any:
        return json.loads(self.call("GET", "/test/state")[2])

    def settled(self) -> Any:
        """The state once nothing is inside any more: each lease was returned, and once."""
        state = eventually(lambda: self._idle())
        assert state["taken"] == state["returned"]
        return state

    def _idle(self) -> Any:
        state = self.state()
        return state if state["in_flight"] == 0 and state["taken"] == state["returned"] else None

    def make_key(self, **fields: object) -> tuple[int, str]:
        made = json.loads(self.call("POST", "/test/keys", {"name": "k", **fields})[2])
        return made["id"], made["key"]

    def stop(self) -> None:
        for stream in self.streams:
            stream.close()
        # At once: no test waits for what another left open.
        self.process.send_signal(signal.SIGQUIT)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def chat(**fields: Any) -> dict[str, Any]:
    """A streamed chat with the instance ``fake``; ``fake`` shapes its answer."""
    message = {"role": "user", "content": "hello"}
    return {"model": "fake", "stream": True, "messages": [message], **fields}


def events(received: bytes) -> list[bytes]:
    """The payloads of the server-sent events in an answer, chunked or not."""
    return [
        line[6:].rstrip(b"\r")
        for line in received.replace(b"\r\n", b"\n").split(b"\n")
        if line.startswith(b"data: ")
    ]


@pytest.fixture(scope="module")
def instance_key() -> str:
    return secrets.token_hex(16)


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory, instance_key: str) -> Iterator[Instance]:
    """A fake llama-server."""
    running = Instance(tmp_path_factory.mktemp("instance"), instance_key)
    yield running
    running.kill()


Serve = Callable[..., Served]


@pytest.fixture(scope="module")
def serve(
    tmp_path_factory: pytest.TempPathFactory, instance: Instance, instance_key: str
) -> Iterator[Serve]:
    """Start gunicorn over ``instance`` and others; ``serve(gateway__max_streams=2)``."""
    with contextlib.ExitStack() as stack:

        def start(more: tuple[dict[str, Any], ...] = (), **settings: object) -> Served:
            standing = {"id": 1, "name": "fake", "port": instance.port, "aliases": ["org/n:tag"]}
            directory = tmp_path_factory.mktemp("served")
            served = Served(directory, [standing, *more], instance_key, **settings)
            stack.callback(served.stop)
            return served

        yield start


@pytest.fixture(scope="module")
def served(serve: Serve) -> Served:
    """gunicorn over ``instance``, with the default limits."""
    return serve()
