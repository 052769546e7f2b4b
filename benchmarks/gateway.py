"""What the gateway adds: to a request, to a streamed event, to two hundred streams at once.

``python -m benchmarks.gateway`` starts a server and an instance without a model, and measures both
side by side in one run: the instance itself, and the same through the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tests.e2e.processes import LlamactlProcess

INSTANCE = Path(__file__).with_name("fast_instance.py")
_AT = re.compile(rb'"at":([0-9.]+)')


@dataclass(frozen=True)
class Target:
    """Where to send requests, and with which key."""

    port: int
    key: str

    def request(self, method: str, path: str, body: dict[str, object] | None) -> bytes:
        raw = json.dumps(body).encode() if body is not None else b""
        return (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        ).encode() + raw


class Connection:
    """A client's connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, target: Target) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", target.port, limit=1 << 20))

    async def head(self, request: bytes) -> bytes:
        """Send a request; the head of its answer."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        return head

    async def whole(self, request: bytes) -> bytes:
        """Send a request; the body of its answer."""
        head = await self.head(request)
        match = re.search(rb"(?i)content-length: ([0-9]+)", head)
        assert match is not None, head
        return await self.reader.readexactly(int(match[1]))

    async def late(self, request: bytes) -> list[float]:
        """Send a request for a stream; the milliseconds by which each event came late."""
        await self.head(request)
        late: list[float] = []
        while (size := int((await self.reader.readline()).strip(), 16)) > 0:
            chunk = await self.reader.readexactly(size + 2)
            now = time.monotonic()
            late += [(now - float(at)) * 1000 for at in _AT.findall(chunk)]
        await self.reader.readline()
        return late


async def latency(target: Target, clients: int, requests: int) -> list[float]:
    """The milliseconds of each of so many requests, sent by so many clients at once."""
    request = target.request("POST", "/v1/embeddings", {"model": "fast", "input": "x"})

    async def one() -> list[float]:
        connection = await Connection.open(target)
        times: list[float] = []
        for _ in range(requests // clients):
            began = time.perf_counter()
            await connection.whole(request)
            times.append((time.perf_counter() - began) * 1000)
        connection.writer.close()
        return times

    return list(chain(*await asyncio.gather(*(one() for _ in range(clients)))))


async def lateness(target: Target, streams: int, events: int, gap: float) -> list[float]:
    """The milliseconds by which each event of so many streams came late."""
    body: dict[str, object] = {"model": "fast", "stream": True, "events": events, "gap": gap}
    request = target.request("POST", "/v1/chat/completions", body)

    async def one(number: int) -> list[float]:
        await asyncio.sleep(number * gap / streams)
        connection = await Connection.open(target)
        late = await connection.late(request)
        connection.writer.close()
        assert len(late) == events, f"{events - len(late)} events of a stream were lost"
        return late

    return list(chain(*await asyncio.gather(*(one(number) for number in range(streams)))))


async def while_asking_health(
    target: Target, work: Callable[[], Awaitable[list[float]]]
) -> tuple[list[float], list[float]]:
    """Do ``work``; what it gave, and the milliseconds of every health check meanwhile."""
    request = target.request("GET", "/healthz", None)
    checks: list[float] = []

    async def ask() -> None:
        while True:
            connection = await Connection.open(target)
            began = time.perf_counter()
            await connection.whole(request)
            checks.append((time.perf_counter() - began) * 1000)
            connection.writer.close()
            await asyncio.sleep(0.1)

    asking = asyncio.create_task(ask())
    result = await work()
    asking.cancel()
    return result, checks


def point(values: list[float], share: float) -> float:
    """The value below which ``share`` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def row(name: str, direct: list[float], through: list[float], goal: str) -> None:
    """One line of the table: median and 99th percentile on both ways, and what was added."""
    cells = [point(values, share) for values in (direct, through) for share in (0.5, 0.99)]
    added = cells[2] - cells[0]
    times = "".join(f"{cell:11.2f}" for cell in cells)
    print(f"{name:34}{times}{added:11.2f}{cells[2] / cells[0]:8.1f}x   {goal}")


async def measure(direct: Target, through: Target, options: argparse.Namespace) -> None:
    """Print the table."""
    heads = ("direct p50", "p99", "llamactl p50", "p99", "added p50", "ratio")
    print(f"{'milliseconds':34}" + "".join(f"{head:>11.11}" for head in heads) + "   goal")
    await latency(through, 1, 50)
    for clients, goal in ((1, "added <= 1.5"), (16, "")):
        row(
            f"request, {clients} client(s)",
            await latency(direct, clients, options.requests),
            await latency(through, clients, options.requests),
            goal,
        )
    row(
        "event of one stream",
        await lateness(direct, 1, 500, 0.005),
        await lateness(through, 1, 500, 0.005),
        "added <= 0.5",
    )
    count = options.streams
    alone = await lateness(direct, count, 60, 0.05)
    late, checks = await while_asking_health(through, lambda: lateness(through, count, 60, 0.05))
    row(f"event of {count} streams", alone, late, "none later by 50")
    worst = f"{sum(each > 50 for each in late)} of {len(late)}, the worst by {max(late):.0f}"
    print(f"events later than 50: {worst}; beside it directly the worst by {max(alone):.0f}")
    print(f"/healthz meanwhile: median {point(checks, 0.5):.0f}, worst {max(checks):.0f}, goal 250")


def main() -> None:
    """Start a server and an instance, measure, end both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "backends.llama-cpp.command": sys.executable,
            "backends.llama-cpp.args": [str(INSTANCE)],
            "instances.port_range": "23000-23099",
        }
        server = LlamactlProcess(Path(folder), settings)
        try:
            server.start()
            model = Path(folder) / "model.gguf"
            model.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
            body = {"backend_type": "llama_cpp", "backend_options": {"model": str(model)}}
            assert server.api("POST", "/instances/fast", json=body).ok
            started = server.api("POST", "/instances/fast/start?wait=60").json()
            pid, port = started["pid"], started["port"]
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            key = next(each[14:].decode() for each in environ if each.startswith(b"LLAMA_API_KEY="))
            through = Target(int(server.url.rpartition(":")[2]), server.key)
            asyncio.run(measure(Target(port, key), through, options))
        finally:
            server.kill_everything()


if __name__ == "__main__":
    main()
