"""Downloads beside ``aria2c``, ``curl`` and ``hf download``: the same bytes, the same run.

    python -m benchmarks.download [--size MB] [--rounds N] [--only ROW]

A hub on loopback, in a process of its own, serves one file from the disk. llamactl is measured as
its users run it, ``llamactl download``: with the interpreter's start, the sha256 and the sync to
the disk, which none of the peers does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Cost, machine, rounds, run

MB = 1_000_000
REPO = "bench/model-GGUF"
FILE = "model-Q4_K_M.gguf"
SHARDS = 64
#: What llamactl may take of memory at its peak, however large the file, in MB.
MEMORY = 120
#: What llamactl may take of processor time, against ``curl`` and then ``openssl sha256``.
PROCESSOR = 1.3


@dataclass(frozen=True)
class Row:
    """One situation: how large, how many files, how fast the line; and who takes part."""

    name: str
    title: str
    size: int
    peers: tuple[str, ...]
    goals: Mapping[str, float]
    shards: int = 1
    throttle: int | None = None
    latency: float = 0.0
    #: All rows together must not take longer than somebody waits for them.
    most_rounds: int = 100
    files: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = [f"model-Q4_K_M-{n:05}-of-{self.shards:05}.gguf" for n in range(1, self.shards + 1)]
        object.__setattr__(self, "files", tuple(names) if self.shards > 1 else (FILE,))


def rows(size: int) -> list[Row]:
    """The rows of the table for a main file of ``size`` bytes."""
    everyone = ("aria2c", "curl", "hf")
    free = {"aria2c": 0.7, "hf": 0.35, "curl": 1.1}
    return [
        Row("free", "unthrottled", size, everyone, free),
        Row(
            "paced",
            "20 MB/s per connection",
            size,
            ("aria2c", "curl"),
            {"curl": 1 / 7.5},
            throttle=20 * MB,
            most_rounds=1,
        ),
        Row("far", "50 ms before each answer", size, everyone, {}, latency=0.05, most_rounds=3),
        Row("large", "a file of 4 GiB", 4 << 30, everyone, free, most_rounds=2),
        Row(
            "shards",
            f"{SHARDS} shards",
            size,
            ("aria2c", "hf"),
            {},
            shards=SHARDS,
            most_rounds=3,
        ),
    ]


class Bench:
    """One row's hub and folders."""

    def __init__(self, row: Row, folder: Path) -> None:
        self.row = row
        self._folder = folder
        self._source = folder / "source"
        self._target = folder / "target"
        self._log = folder / "log"
        self.endpoint = ""

    @contextlib.contextmanager
    def hub(self) -> Iterator[None]:
        """Serve the row's files."""
        self._source.mkdir(parents=True)
        each = self.row.size // len(self.row.files)
        for name in self.row.files:
            with (self._source / name).open("wb") as stream:
                for start in range(0, each, MB):
                    stream.write(os.urandom(min(MB, each - start)))
        command = [sys.executable, "-m", "tests.fakes.fake_hub", "--repo", f"{REPO}={self._source}"]
        command += ["--latency", str(self.row.latency)]
        if self.row.throttle is not None:
            command += ["--throttle", str(self.row.throttle)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                self.endpoint = process.stdout.readline().strip()
                # The hub hashes its files when they are first listed; that is nobody's time.
                urllib.request.urlopen(f"{self.endpoint}/api/models/{REPO}/tree/main").read()
                yield
            finally:
                process.terminate()
        shutil.rmtree(self._source)

    def contenders(self) -> dict[str, Callable[[], Cost]]:
        every: dict[str, Callable[[], Cost]] = {
            "llamactl": self._llamactl,
            "aria2c": self._aria2c,
            "curl": self._curl,
            "hf": self._hf,
        }
        return {name: every[name] for name in ("llamactl", *self.row.peers)}

    def _llamactl(self) -> Cost:
        folder = self._target
        environment = {
            "LLAMACTL_DATA_DIRECTORY": str(folder / "data"),
            "LLAMACTL_LLAMACPP_CACHE_DIR": str(folder / "flat"),
            "LLAMACTL_HUB_DIR": str(folder / "hub"),
        }
        return self._run([_beside("llamactl"), "download", f"{REPO}:Q4_K_M"], environment)

    def _hf(self) -> Cost:
        environment = {"HF_HUB_CACHE": str(self._target), "HF_HUB_DISABLE_XET": "1"}
        return self._run([_beside("hf"), "download", REPO, *self.row.files], environment)

    def _aria2c(self) -> Cost:
        quiet = ["--quiet", "--allow-overwrite=true", f"--dir={self._target}"]
        if len(self.row.files) == 1:
            return self._run(["aria2c", "-x16", "-s16", *quiet, f"--out={FILE}", self._url(FILE)])
        names = "\n".join(f"{self._url(name)}\n out={name}" for name in self.row.files)
        listing = self._folder / "urls"
        listing.write_text(names)
        return self._run(["aria2c", "-x16", "-s16", "-j16", *quiet, f"--input-file={listing}"])

    def _curl(self) -> Cost:
        target = self._target / FILE
        return self._run(["curl", "-sSfL", "-o", str(target), self._url(FILE)])

    def sha256(self) -> Cost:
        """What a person adds to ``curl`` to know that the bytes are right."""
        return run(
            ["openssl", "dgst", "-sha256", str(self._source / self.row.files[0])],
            os.environ,
            self._log,
        )

    def _url(self, name: str) -> str:
        return f"{self.endpoint}/{REPO}/resolve/main/{name}"

    def _run(self, command: Sequence[str], extra: Mapping[str, str] | None = None) -> Cost:
        self._target.mkdir()
        environment = {**os.environ, "HF_ENDPOINT": self.endpoint, **(extra or {})}
        try:
            cost = run(command, environment, self._log)
            self._check()
        finally:
            shutil.rmtree(self._target)
            # What one contender leaves for the disk to write must not slow the next one down.
            os.sync()
        return cost

    def _check(self) -> None:
        """The contender really has all the bytes."""
        found = {path.stat().st_ino: path.stat().st_size for path in self._target.rglob("*.gguf")}
        expected = self.row.size // len(self.row.files) * len(self.row.files)
        if sum(found.values()) != expected:
            raise RuntimeError(f"{sum(found.values())} bytes arrived of {expected}")


def _beside(program: str) -> str:
    """A program of the environment that this runs in."""
    return str(Path(sys.executable).parent / program)


def measure(row: Row, count: int, folder: Path) -> list[str]:
    """Run one row and give its lines of the table."""
    say(f"{row.title}, {row.size / MB:.0f} MB")
    bench = Bench(row, folder)
    with bench.hub():
        # The first to write so much makes the system find the memory for it.
        next(iter(bench.contenders().values()))()
        costs = rounds(bench.contenders(), min(count, row.most_rounds), say)
        hashing = bench.sha256() if "curl" in costs and row.shards == 1 else None
    ours = costs["llamactl"]
    lines = []
    for name, cost in costs.items():
        ratio = ours.wall / cost.wall
        verdict = "" if name not in row.goals else _verdict(ratio, row.goals[name])
        if cost is ours:
            verdict = f"memory: {_verdict(ours.memory, MEMORY)}"
        lines.append(
            f"| {row.title}, {row.size / MB:.0f} MB | {name} | {cost.wall:.2f} "
            f"| {row.size / MB / cost.wall:.0f} | {cost.cpu / (row.size / 1e9):.2f} "
            f"| {cost.memory:.0f} | {ratio:.2f} | {verdict} |"
        )
    if hashing is not None:
        both = costs["curl"].cpu + hashing.cpu
        ratio = ours.cpu / both
        lines.append(
            f"| {row.title}, {row.size / MB:.0f} MB | curl, then openssl sha256 | "
            f"{costs['curl'].wall + hashing.wall:.2f} | | {both / (row.size / 1e9):.2f} | "
            f"| processor: {ratio:.2f} | {_verdict(ratio, PROCESSOR)} |"
        )
    return lines


def _verdict(figure: float, goal: float) -> str:
    return f"≤ {goal:.4g} {'✓' if figure <= goal else '✗'}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.download")
    parser.add_argument("--size", type=int, default=2000, help="MB of the main file")
    parser.add_argument("--rounds", type=int, default=5, help="at most; some rows take fewer")
    parser.add_argument("--only", action="append", help="the name of a row: free, paced, far, …")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: $TMPDIR)")
    options = parser.parse_args()
    table = [
        "| situation | who | seconds | MB/s | processor s/GB | memory MB | llamactl / it | goal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows(options.size * MB):
        if options.only and row.name not in options.only:
            continue
        with tempfile.TemporaryDirectory(prefix="llamactl-bench-", dir=options.folder) as folder:
            table += measure(row, options.rounds, Path(folder))
    print(f"{machine()}\n")
    print("\n".join(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
