"""What the gateway adds: to a request, to a streamed event, to many streams at once.

``python -m benchmarks.gateway`` starts a server and an instance without a model, and measures side
by side in one run: the instance itself, plain nginx before it, llamactl, nginx before llamactl, and
nginx carrying the answers for llamactl.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from benchmarks.front import Front
from benchmarks.measure import machine
from tests.e2e.processes import LlamactlProcess
from tests.ports import free_port

LLAMACTL = "llamactl"
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

    async def events(self, request: bytes, count: int) -> None:
        """Send a request for a stream; returns once so many events are there."""
        await self.head(request)
        seen = 0
        rest = b""
        while seen < count:
            data = rest + await self.reader.read(1 << 16)
            assert len(data) > len(rest), f"{count - seen} events of a stream were lost"
            seen += data.count(b"\n\n")
            rest = data[-1:]

    async def late(self, request: bytes) -> list[float]:
        """Send a request for a stream; the milliseconds by which each event came late."""
        await self.head(request)
        late: list[float] = []
        rest = b""
        while (size := int((await self.reader.readline()).strip(), 16)) > 0:
            # A chunk may hold several events, and end inside one.
            rest += (await self.reader.readexactly(size + 2))[:-2]
            now = time.monotonic()
            whole, _, rest = rest.rpartition(b"\n\n")
            late += [(now - float(at)) * 1000 for at in _AT.findall(whole)]
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


async def pace(target: Target, streams: int, events: int) -> float:
    """Events a second of so many streams together, of an instance that never waits."""
    body: dict[str, object] = {"model": "fast", "stream": True, "events": events, "gap": 0}
    request = target.request("POST", "/v1/chat/completions", body)

    async def one() -> None:
        connection = await Connection.open(target)
        await connection.events(request, events)
        connection.writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(streams)))
    return streams * events / (time.perf_counter() - began)


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


Ways = Mapping[str, Target]


async def requests_table(ways: Ways, clients: int, count: int) -> None:
    """The latency of small requests on each way, and what it is above the instance's own."""
    print(f"\n| a request, {clients} client(s), ms | p50 | p99 | added at p50 |\n|---|---|---|---|")
    own = 0.0
    for name, target in ways.items():
        await latency(target, clients, 4 * clients)
        times = await latency(target, clients, count)
        middle = point(times, 0.5)
        own = own or middle
        print(f"| {name} | {middle:.2f} | {point(times, 0.99):.2f} | {middle - own:.2f} |")


async def streams_table(ways: Ways, streams: int, events: int, gap: float) -> None:
    """How late streamed events come on each way; ``gap`` is in seconds between two of a stream."""
    print(
        f"\n| {streams} stream(s), {streams / gap:.0f} events a second, ms late | p50 | p99 ",
        end="",
    )
    print("| worst | by more than 50 | /healthz worst |\n|---|---|---|---|---|---|")
    health = ways[LLAMACTL]
    for name, target in ways.items():
        work = functools.partial(lateness, target, streams, events, gap)
        late, checks = await while_asking_health(health, work)
        print(
            f"| {name} | {point(late, 0.5):.2f} | {point(late, 0.99):.2f} | {max(late):.0f} |"
            f" {sum(each > 50 for each in late)} of {len(late)} | {max(checks):.0f} ms |"
        )


async def pace_table(ways: Ways, events: int) -> None:
    """How many events a second pass on each way, all streams together."""
    print("\n| events a second | 1 stream | 16 streams |\n|---|---|---|")
    for name, target in ways.items():
        alone, together = [await pace(target, count, events // count) for count in (1, 16)]
        print(f"| {name} | {alone:,.0f} | {together:,.0f} |")


async def measure(ways: Ways, options: argparse.Namespace) -> None:
    """Print the tables."""
    print(f"\n## The gateway, on {machine()}")
    print("\nGoals: a request + 1.5 ms (carried by nginx + 1.0), an event + 0.5 ms, none of 200")
    print("streams later by 50 ms, /healthz below 250 ms meanwhile.")
    for clients in (1, 16):
        await requests_table(ways, clients, options.requests)
    await pace_table(ways, 32_000)
    await streams_table(ways, 1, 500, 0.005)
    for streams in options.streams:
        # Beyond that many events a second, the client that measures is what is measured.
        gap = streams / 4000 if streams <= 200 else streams / 2000
        await streams_table(ways, streams, max(10, round(3 / gap)), gap)


def main() -> None:
    """Start a server and an instance, measure, end both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--streams", type=int, nargs="*", default=[200, 1000])
    options = parser.parse_args()
    most = max(options.streams, default=1)
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "backends.llama-cpp.command": sys.executable,
            "backends.llama-cpp.args": [str(INSTANCE)],
            "instances.port_range": "23000-23099",
            "server.port": free_port(),
            "server.accel": "nginx",
            "server.allowed_hosts": ["llm.example"],
            "server.threads": most + 64,
            "gateway.max_streams": most + 32,
        }
        server = LlamactlProcess(Path(folder), settings)
        try:
            server.start()
            port, key = start_instance(server, Path(folder) / "model.gguf")
            llamactl = int(server.url.rpartition(":")[2])
            nginx = Path(folder) / "nginx"
            with Front(nginx, port, key, llamactl, server.data_dir) as front:
                ways = {
                    "the instance itself": Target(port, key),
                    "nginx before it": Target(front.plain, key),
                    LLAMACTL: Target(llamactl, server.key),
                    "nginx before llamactl": Target(front.shipped, server.key),
                    "nginx carries for llamactl": Target(front.accel, server.key),
                }
                asyncio.run(measure(ways, options))
        finally:
            server.kill_everything()


def start_instance(server: LlamactlProcess, model: Path) -> tuple[int, str]:
    """An instance without a model that answers at once; its port and its key."""
    model.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    body = {"backend_type": "llama_cpp", "backend_options": {"model": str(model)}}
    assert server.api("POST", "/instances/fast", json=body).ok
    started = server.api("POST", "/instances/fast/start?wait=60").json()
    environ = Path(f"/proc/{started['pid']}/environ").read_bytes().split(b"\0")
    key = next(each[14:].decode() for each in environ if each.startswith(b"LLAMA_API_KEY="))
    return started["port"], key


if __name__ == "__main__":
    main()
