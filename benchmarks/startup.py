"""How soon llamactl answers, and what it costs while it has nothing to do.

``python -m benchmarks.startup`` prints the rows; nothing is started that does not end with it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.measure import machine, processor_seconds, proportional_kilobytes, run
from tests.e2e.processes import LlamactlProcess

ROUNDS = 7
IDLE_SECONDS = 20.0


def main() -> None:
    print(f"\n## Start and idle, on {machine()}\n")
    print("| what | measured | goal |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        seconds = median_of(lambda: help_seconds(Path(folder) / "help.txt"))
        print(f"| `llamactl --help` | {seconds:.2f} s | < 0.3 s |")
        servers = [LlamactlProcess(Path(folder) / f"server{n}") for n in range(ROUNDS)]
        try:
            starts = [seconds_to_first_answer(server) for server in servers[:-1]]
            seconds = statistics.median(starts)
            print(f"| server start to the first 200 | {seconds:.2f} s | < 1.0 s |")
            cost = idle(servers[-1].start())
            print(f"| idle server, all its processes | {cost} | ≤ 90 MB, ≤ 0.5 % |")
        finally:
            for server in servers:
                server.kill_everything()


def median_of(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(ROUNDS))


def help_seconds(output: Path) -> float:
    return run((sys.executable, "-m", "llamactl", "--help"), os.environ, output).wall


def seconds_to_first_answer(server: LlamactlProcess) -> float:
    """From the start of the process; its address is read from what it prints."""
    began = time.monotonic()
    server.start()
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port)
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
    took = time.monotonic() - began
    server.stop()
    return took


def idle(server: LlamactlProcess) -> str:
    """Proportional set size and share of a core, once the start is over."""
    time.sleep(3)
    before = sum(map(processor_seconds, server.processes()))
    time.sleep(IDLE_SECONDS)
    share = (sum(map(processor_seconds, server.processes())) - before) / IDLE_SECONDS
    megabytes = sum(map(proportional_kilobytes, server.processes())) / 1000
    return f"{megabytes:.0f} MB, {share:.2%} of a core"


if __name__ == "__main__":
    main()
