"""Real processes for the end-to-end tests: a llamactl server, a hub, and word of what is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import requests
import yaml

from tests.ports import instance_ports

MARK = "E2E_MARK"
PATIENCE = 60.0

Value = TypeVar("Value")


def wait_for(what: str, probe: Callable[[], Value | None], seconds: float = PATIENCE) -> Value:
    """Ask until the answer is neither None nor False; fails with ``what`` at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer is not None and answer is not False:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:g} seconds: {what}"
        time.sleep(0.02)


class LlamactlProcess:
    """``llamactl serve``, or another command line, on directories of its own below ``folder``.

    Everything that it starts inherits a mark in its environment, by which ``processes`` finds it.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.data_dir = folder / "data"
        self.flat = folder / "flat"
        self.hub_dir = folder / "hub"
        self.config_file = folder / "llamactl.yaml"
        self.output_file = folder / "output.txt"
        folder.mkdir(parents=True, exist_ok=True)
        self.config_file.write_text(yaml.safe_dump(nested(self._settings(settings or {}))))
        self._command = command or (sys.executable, "-m", "llamactl", "serve", *arguments)
        self.environment = self._clean_environment(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def _settings(self, changes: Mapping[str, object]) -> dict[str, object]:
        return {
            "server.port": 0,
            "data_dir": str(self.data_dir),
            "backends.llama-cpp.cache_dir": str(self.flat),
            "backends.llama-cpp.hub_dir": str(self.hub_dir),
            "downloads.min_free_space": 0,
            "instances.port_range": instance_ports(20500, 20999),
            **changes,
        }

    def _clean_environment(self, changes: Mapping[str, str]) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("LLAMACTL_", "LLAMA_", "HF_", "XDG_"))
        }
        return {
            **kept,
            "HOME": str(self.folder),
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "LLAMACTL_CONFIG_PATH": str(self.config_file),
            MARK: self.mark,
            **changes,
        }

    def start(self) -> LlamactlProcess:
        """Start it and return once it says that it listens."""
        self.spawn()
        wait_for("the listening line", self._listens)
        return self

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it; whether it comes up is for the caller to see."""
        with self.output_file.open("wb") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment,
                start_new_session=True,
            )
        return self._process

    def _listens(self) -> bool:
        assert self.process.poll() is None, f"it ended instead of listening:\n{self.output}"
        return re.search(r"^llamactl is listening on \S+$", self.output, re.MULTILINE) is not None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def output(self) -> str:
        """Everything that it wrote so far."""
        return self.output_file.read_text(errors="replace")

    @property
    def url(self) -> str:
        match = re.search(r"^llamactl is listening on (\S+)$", self.output, re.MULTILINE)
        assert match is not None, self.output
        return match[1]

    @property
    def key(self) -> str:
        """The management key."""
        return (self.data_dir / "management.key").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def api(self, method: str, path: str, **arguments: object) -> requests.Response:
        """A call below ``/api/v1`` with the management key."""
        return requests.request(
            method,
            f"{self.url}/api/v1{path}",
            headers=self.headers,
            timeout=PATIENCE,
            **arguments,  # type: ignore[arg-type]  # handed on as they are
        )

    @property
    def master(self) -> int:
        return self.process.pid

    @property
    def worker(self) -> int:
        """gunicorn's worker: the child of the master."""
        (pid,) = children(self.master)
        return pid

    def processes(self) -> set[int]:
        """Every living process that this server started, itself included."""
        return marked(self.mark)

    def stop(self, seconds: float = PATIENCE) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(seconds)

    def kill_everything(self) -> None:
        """End whatever is left, for the end of a test."""
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait(PATIENCE)
        for pid in marked(self.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for("the end of all processes", lambda: not marked(self.mark))


def nested(settings: Mapping[str, object]) -> dict[str, object]:
    """Dotted keys as the mappings of the configuration file."""
    root: dict[str, object] = {}
    for name, value in settings.items():
        *sections, key = name.split(".")
        place = root
        for section in sections:
            inner = place.setdefault(section, {})
            assert isinstance(inner, dict)
            place = inner
        place[key] = value
    return root


def marked(mark: str) -> set[int]:
    """The processes with this mark in their environment; zombies have none any more."""
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
    return found


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


@contextmanager
def fake_hub(*arguments: str) -> Iterator[str]:
    """The fake hub as a process of its own; gives its endpoint."""
    process = subprocess.Popen(
        (sys.executable, "-m", "tests.fakes.fake_hub", *arguments),
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(PATIENCE)
        process.stdout.close()
