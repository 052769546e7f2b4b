"""What a command or a process took: seconds, processor time, memory."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


@dataclass(frozen=True)
class Cost:
    """``wall`` and ``cpu`` in seconds, ``memory`` the largest resident size in MB."""

    wall: float
    cpu: float
    memory: float


def run(command: Sequence[str], environment: Mapping[str, str], output: Path) -> Cost:
    """Run to the end; raises ``RuntimeError`` with the last lines when it fails.

    Python's own programs find their bytecode, as they do where they were installed.
    """
    environment = {name: environment[name] for name in environment if name != _NO_BYTECODE}
    with output.open("w+b") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        # The child is reaped; Popen must not wait for it again.
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = output.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{command[0]} ended with {process.returncode}:\n{said}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def median(costs: Sequence[Cost]) -> Cost:
    """Each figure's median by itself."""
    figures = ("wall", "cpu", "memory")
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in figures))


def rounds(
    contenders: Mapping[str, Callable[[], Cost]], count: int, say: Callable[[str], None]
) -> dict[str, Cost]:
    """Let each contender run once a round, so that all meet the same weather."""
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for number in range(count):
        for name, contend in contenders.items():
            cost = contend()
            costs[name].append(cost)
            say(f"  {number + 1}/{count} {name}: {cost.wall:.2f} s, {cost.cpu:.2f} s of processor")
    return {name: median(found) for name, found in costs.items()}


def processor_seconds(pid: int) -> float:
    """Processor time of a process, its threads that have ended included, in steps of a tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def proportional_kilobytes(pid: int) -> int:
    """Memory of a process, with its share of what it shares with others."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def machine() -> str:
    """The machine in one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{os.cpu_count()} × {model}, {platform.system()} {platform.release()}"
