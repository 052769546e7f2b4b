"""Instances: how soon a stopped one answers, how soon a ready one is seen, what the rest costs.

``python -m benchmarks.instances`` measures llama-server started by hand beside llamactl in one run:
the same program, the same model, the same flags, in turns.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import machine, processor_seconds, proportional_kilobytes
from tests.e2e.processes import PATIENCE, LlamactlProcess
from tests.fakes.gguf_files import tiny_gguf
from tests.fakes.llama import FakeLlama
from tests.ports import free_port

ROUNDS = 11
READY_ROUNDS = 30
STOPPED, RUNNING = 50, 5
IDLE_SECONDS = 30.0
#: Between two questions of whoever starts a server by hand and waits for it.
HAND_POLL = 0.01
KEY = "by-hand"
QUESTION = {"prompt": "a", "max_tokens": 4, "stream": True}


@dataclass(frozen=True)
class Server:
    """An address that answers completions."""

    port: int
    key: str

    def first_token(self, model: str) -> float:
        """Ask for a stream; the moment (monotonic) at which its first event is there."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        body = json.dumps({**QUESTION, "model": model})
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        with contextlib.closing(connection):
            connection.request("POST", "/v1/completions", body, headers)
            answer = connection.getresponse()
            while not (line := answer.readline()).startswith(b"data: {"):
                assert line, f"no token: {answer.status}"
            return time.monotonic()

    def is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False


def main() -> None:
    print(f"\n## Instances, on {machine()}")
    programs = {"llama-server": llama_server(), "the embedded llama.cpp": None}
    print("\n| first token of a stopped instance, ms | by hand | llamactl | ours more | goal |")
    print("|---|---|---|---|---|")
    for name, program in programs.items():
        if name == "llama-server" and program is None:
            print(f"| {name} | not on this machine | | | |")
            continue
        with tempfile.TemporaryDirectory() as folder:
            print(first_tokens_row(name, program, Path(folder)))
    with tempfile.TemporaryDirectory() as folder:
        late = sorted(ready_seen(Path(folder)))
    print("\n| what | measured | goal |\n|---|---|---|")
    shown = ", ".join(
        f"{name} {late[min(len(late) - 1, int(len(late) * share))]:.0f}"
        for name, share in (("p50", 0.5), ("p90", 0.9), ("worst", 1.0))
    )
    print(f"| from an instance's being able to answer to `running`, ms | {shown} | ≤ 50 |")
    with tempfile.TemporaryDirectory() as folder:
        cost = idle_cost(Path(folder))
    print(f"| llamactl's own processes, {STOPPED} stopped and {RUNNING} running | {cost} |", end="")
    print(" ≤ 90 MB, ≤ 0.5 % |")


def llama_server() -> str | None:
    """The real llama-server that the tests use, where there is one."""
    return os.environ.get("LLAMACTL_TEST_LLAMA_SERVER") or shutil.which("llama-server")


def first_tokens_row(name: str, program: str | None, folder: Path) -> str:
    """Rounds in turns: the medians, and the median of what ours took more."""
    model = tiny_gguf(folder / "tiny.gguf")[0]
    settings = {"backends.llama-cpp.command": program} if program else {}
    # Without a llama-server on the PATH it is the embedded one.
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    with running(folder / "server", settings, {"PATH": path}) as server:
        options = {"model": str(model), "ctx_size": 512, "parallel": 1, "threads": 1}
        create(server, "tiny", backend_options=options)
        ours = Server(int(server.url.rpartition(":")[2]), server.key)
        words = command_line(server)
        hand, llamactl = [], []
        for _ in range(ROUNDS):
            hand.append(by_hand(words))
            began = time.monotonic()
            llamactl.append(ours.first_token("tiny") - began)
            assert server.api("POST", "/instances/tiny/stop?wait=60").json()["status"] == "stopped"
    theirs, mine = (statistics.median(each) * 1000 for each in (hand, llamactl))
    return f"| {name} | {theirs:.0f} | {mine:.0f} | {mine - theirs:+.0f} | ≤ +50 |"


def command_line(server: LlamactlProcess) -> list[str]:
    """How llamactl runs the instance; it is started and stopped for that."""
    pid = server.api("POST", "/instances/tiny/start?wait=60").json()["pid"]
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    server.api("POST", "/instances/tiny/stop?wait=60")
    return words


def by_hand(words: Sequence[str]) -> float:
    """Start the same program on another port, poll it, and ask it; seconds to the first token."""
    port = free_port()
    argv = list(words)
    argv[argv.index("--port") + 1] = str(port)
    server = Server(port, KEY)
    began = time.monotonic()
    process = subprocess.Popen(
        argv,
        env={**os.environ, "LLAMA_API_KEY": KEY},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not server.is_healthy():
            assert process.poll() is None, f"it ended with {process.returncode}: {argv}"
            time.sleep(HAND_POLL)
        return server.first_token("tiny") - began
    finally:
        process.kill()
        process.wait()


def ready_seen(folder: Path) -> Iterator[float]:
    """Milliseconds from an instance's listening to the answer to who waits for its start."""
    fake = FakeLlama(folder / "fake")
    chance = random.Random(1)
    with running(folder / "server", fake.settings) as server:
        create(server, "one", backend_options={"model": str(fake.model)})
        for number in range(READY_ROUNDS):
            seconds = 0.05 + chance.random() * 0.2
            body = {
                "backend_options": {"model": str(fake.model)},
                "environment": {"FAKE_LLAMA": f"--fake-listen-after {seconds:.3f}"},
            }
            server.api("PUT", "/instances/one", json={"backend_type": "llama_cpp", **body})
            told = server.api("POST", "/instances/one/start?wait=60").json()
            seen = time.time()
            assert told["status"] == "running", told
            yield (seen - fake.wait_for("listening", number + 1)[-1]["at"]) * 1000
            server.api("POST", "/instances/one/stop?wait=60")


def idle_cost(folder: Path) -> str:
    """Memory and processor of llamactl itself, without its instances, while nothing is asked."""
    fake = FakeLlama(folder / "fake")
    with running(folder / "server", {**fake.settings, "server.threads": 64}) as server:
        for number in range(STOPPED + RUNNING):
            create(server, f"i{number}", backend_options={"model": str(fake.model)})
        for number in range(RUNNING):
            server.api("POST", f"/instances/i{number}/start?wait=60")
        time.sleep(3)
        own = (server.master, server.worker)
        before = sum(map(processor_seconds, own))
        time.sleep(IDLE_SECONDS)
        share = (sum(map(processor_seconds, own)) - before) / IDLE_SECONDS
        megabytes = sum(map(proportional_kilobytes, own)) / 1000
    return f"{megabytes:.0f} MB, {share:.2%} of a core"


@contextlib.contextmanager
def running(
    folder: Path, settings: Mapping[str, object], environment: Mapping[str, str] | None = None
) -> Iterator[LlamactlProcess]:
    server = LlamactlProcess(
        folder,
        {"instances.port_range": "23200-23299", **settings},
        environment=environment,
    )
    try:
        yield server.start()
    finally:
        server.kill_everything()


def create(server: LlamactlProcess, name: str, **options: object) -> None:
    answer = server.api("POST", f"/instances/{name}", json={"backend_type": "llama_cpp", **options})
    assert answer.ok, answer.text


if __name__ == "__main__":
    main()
