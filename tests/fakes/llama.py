"""``FakeLlama``: settings that make llamactl run the fake llama-server, and what it recorded."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("fake_llama_server.py")


class FakeLlama:
    """A fake llama-server for one test. Flags are written as ``FakeLlama(tmp_path, load=0.2)``.

    ``settings`` goes into ``make_config``; ``model`` is a file that passes for a GGUF.
    """

    def __init__(self, directory: Path, **flags: object) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.record = directory / "fake-llama.jsonl"
        self.model = directory / "fake-model.gguf"
        #: While this file is there the fake answers that it loads.
        self.loading = directory / "loading"
        self.model.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
        self.flags: list[str] = ["--fake-record", str(self.record)]
        self.also(**flags)

    def also(self, **flags: object) -> FakeLlama:
        """Add flags: ``ignore_term=True`` becomes ``--fake-ignore-term``."""
        for name, value in flags.items():
            self.flags.append("--fake-" + name.replace("_", "-"))
            if value is not True:
                self.flags.append(str(value))
        return self

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-I", "-S", str(PROGRAM), *self.flags]

    @property
    def settings(self) -> dict[str, object]:
        """The overrides for ``make_config`` that put the fake in llama-server's place."""
        return {
            "backends.llama-cpp.command": self.argv[0],
            "backends.llama-cpp.args": self.argv[1:],
        }

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What the fake's processes wrote so far, oldest first."""
        if not self.record.exists():
            return []
        # A line can be read while it is being written: what follows the last newline is not whole.
        whole = self.record.read_text().rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if kind in (None, line["event"])]

    def wait_for(self, kind: str, count: int = 1, timeout: float = 60.0) -> list[dict[str, Any]]:
        """The events of one kind once there are ``count`` of them."""
        deadline = time.monotonic() + timeout
        while len(found := self.events(kind)) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"no {count} events {kind!r}: {self.events()}")
            time.sleep(0.01)
        return found
