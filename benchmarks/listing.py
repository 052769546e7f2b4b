"""How soon ``GET /api/v1/models`` answers when a thousand models are cached.

``python -m benchmarks.listing`` prints the rows. The models are small files, named and linked as a
download leaves them: what a list costs does not depend on their sizes.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.measure import machine, processor_seconds
from tests.e2e.processes import LlamactlProcess

MODELS = 1000
STARTS = 3
LISTS = 40
#: Seconds until a change is so old that nothing can follow it unseen.
SETTLED = 2.5


def main() -> None:
    print(f"\n## A list of {MODELS:,} models, on {machine()}\n")
    print("| what | measured (middle, slowest; processor time) | goal |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        server = LlamactlProcess(Path(folder))
        fill(server.flat, server.hub_dir)
        time.sleep(SETTLED)
        try:
            firsts = [first_list(server) for _ in range(STARTS)]
            row("the first list, asked for as soon as the server listens", firsts, "")
            with serving(server) as ask:
                ask()
                row("a list", [ask() for _ in range(LISTS)], "< 50 ms")
                changed = []
                for number in range(LISTS):
                    add_model(server.flat, server.hub_dir, MODELS + number)
                    changed.append(ask())
                row("a list right after a new model", changed, "< 50 ms")
        finally:
            server.kill_everything()


def row(what: str, costs: list[tuple[float, float]], goal: str) -> None:
    walls = sorted(wall for wall, _cpu in costs)
    cpu = statistics.mean(cpu for _wall, cpu in costs)
    figures = f"{statistics.median(walls):.0f} ms, {walls[-1]:.0f} ms; {cpu:.0f} ms"
    print(f"| {what} | {figures} | {goal} |")


def first_list(server: LlamactlProcess) -> tuple[float, float]:
    with serving(server) as ask:
        return ask()


class Asking:
    """Asks for the list over one connection; wall and processor time of the server, in ms."""

    def __init__(self, server: LlamactlProcess) -> None:
        address = urlsplit(server.url)
        self.connection = http.client.HTTPConnection(str(address.hostname), address.port)
        self._headers = server.headers
        self._worker = server.worker

    def __call__(self) -> tuple[float, float]:
        began, before = time.monotonic(), processor_seconds(self._worker)
        self.connection.request("GET", "/api/v1/models", headers=self._headers)
        answer = self.connection.getresponse()
        body = answer.read()
        wall = time.monotonic() - began
        assert answer.status == 200 and len(json.loads(body)) >= MODELS, body[:200]
        return wall * 1000, (processor_seconds(self._worker) - before) * 1000


@contextlib.contextmanager
def serving(server: LlamactlProcess) -> Iterator[Asking]:
    """The server, started for this."""
    server.start()
    asking = Asking(server)
    try:
        yield asking
    finally:
        asking.connection.close()
        server.stop()


def fill(flat: Path, hub: Path) -> None:
    flat.mkdir(parents=True)
    hub.mkdir(parents=True)
    for number in range(MODELS):
        add_model(flat, hub, number)


def add_model(flat: Path, hub: Path, number: int) -> None:
    """One model under all its names."""
    owner, name, filename = f"org{number % 50}", f"M{number}-GGUF", f"M{number}-Q4_K_M.gguf"
    content = f"GGUF {number}".encode()
    oid, commit = sha256(content).hexdigest(), f"{number:040x}"
    repo_dir = hub / f"models--{owner}--{name}"
    for part in ("blobs", "refs", f"snapshots/{commit}"):
        (repo_dir / part).mkdir(parents=True)
    (repo_dir / "blobs" / oid).write_bytes(content)
    (repo_dir / "snapshots" / commit / filename).symlink_to(f"../../blobs/{oid}")
    (repo_dir / "refs" / "main").write_text(commit)
    path = flat / f"{owner}_{name}_{filename}"
    os.link(repo_dir / "blobs" / oid, path)
    path.with_name(f"{path.name}.etag").write_text(f'"{oid}"')
    lfs = {"sha256": oid, "size": len(content)}
    manifest = {"ggufFile": {"rfilename": filename, "size": len(content), "lfs": lfs}}
    (flat / f"manifest={owner}={name}=Q4_K_M.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    main()
