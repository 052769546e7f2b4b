from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamactl.instances.health import Probe
from llamactl.secret import Secret
from tests.fakes.llama import FakeLlama

KEY = Secret("k1")
Serve = Callable[..., int]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a fake by hand; gives its port."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*, key: str = "k1", **flags: object) -> int:
        fake = FakeLlama(tmp_path, **flags)
        environment = {"LLAMA_API_KEY": key} if key else {}
        argv = [*fake.argv, "--port", "0", "-m", "x"]
        running.append(subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL))
        return int(fake.wait_for("listening")[0]["port"])

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_a_server_that_knows_our_key_is_ready(serve: Serve) -> None:
    assert Probe("127.0.0.1", serve(), KEY).readiness(30) == "ready"


def test_a_loading_server_is_loading(serve: Serve) -> None:
    assert Probe("127.0.0.1", serve(load=60), KEY).readiness(30) == "loading"


def test_a_server_with_another_key_is_foreign(serve: Serve) -> None:
    assert Probe("127.0.0.1", serve(key="k2"), KEY).readiness(30) == "foreign"


def test_a_server_that_lets_everybody_in_is_foreign(serve: Serve) -> None:
    assert Probe("127.0.0.1", serve(key=""), KEY).readiness(30) == "foreign"


def test_nobody_there_is_silent() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert Probe("127.0.0.1", unused.getsockname()[1], KEY).readiness(30) == "silent"


def test_a_server_that_never_answers_is_silent_after_the_timeout(serve: Serve) -> None:
    assert Probe("127.0.0.1", serve(health_hang=True), KEY).readiness(0.05) == "silent"


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n", b"", b"HTTP/1.1 abc\r\n", b"x" * 9000])
def test_what_is_no_http_is_silent(answer: bytes) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def speak() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionError):
                connection.sendall(answer)
                connection.recv(9000)

        speaker = threading.Thread(target=speak)
        speaker.start()
        probe = Probe("127.0.0.1", listener.getsockname()[1], KEY)
        assert probe.readiness(2) == "silent"
        speaker.join(60)


def test_an_interrupt_ends_the_wait_at_once(serve: Serve) -> None:
    reading, writing = os.pipe()
    probe = Probe("127.0.0.1", serve(health_hang=True), KEY, interrupt=reading)
    ringer = threading.Timer(0.1, lambda: os.write(writing, b"x"))
    ringer.start()
    began = time.monotonic()
    assert probe.status("/health", timeout=600) is None
    assert time.monotonic() - began < 60
    ringer.join()
    os.close(reading)
    os.close(writing)


def test_many_descriptors_do_not_hinder_it(serve: Serve) -> None:
    """``select`` refuses descriptors beyond 1023; a busy server has them."""
    port = serve()
    script = (
        "import os, resource; resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))\n"
        "held = [os.open('/dev/null', os.O_RDONLY) for _ in range(1100)]\n"
        "from llamactl.instances.bell import Bell\n"
        "from llamactl.instances.health import Probe\n"
        "from llamactl.secret import Secret\n"
        "bell = Bell(); bell.ring(); assert bell.wait(5)\n"
        f"print(Probe('127.0.0.1', {port}, Secret('k1'), bell.fileno()).readiness(30))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "ready", done.stderr
