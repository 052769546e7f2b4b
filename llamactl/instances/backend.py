"""Which llama.cpp runs here: a configured command, ``llama-server`` on PATH, or the embedded."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from llamactl.config import LlamaCppConfig
from llamactl.instances.devices import visible_gpus
from llamactl.instances.environment import scrubbed
from llamactl.instances.hints import HOW_TO_INSTALL
from llamactl.instances.memory import RECENT, parse_devices, read_machine
from llamactl.models.fit import Machine

logger = logging.getLogger(__name__)

Kind: TypeAlias = Literal["command", "embedded", "missing"]

_FLAG = re.compile(r"(?:^|, +)(--?[A-Za-z][\w.-]*)")
_REMOVED = "the argument has been removed"
#: What lists fewer flags than that is no llama-server's help.
_FEWEST_FLAGS = 50
#: Seconds that a llama-server gets to tell its version; GPU libraries can be slow to load.
_PATIENCE = 30.0


@dataclass(frozen=True)
class BackendInfo:
    """``command`` is what runs, with the configured arguments; empty when there is nothing to run.

    ``warning`` is a sentence that the pages show loudly.
    """

    kind: Kind
    command: tuple[str, ...]
    version: str | None
    warning: str | None


class Backend:
    """Finds the llama.cpp anew at each question, so that an installation needs no restart."""

    def __init__(self, config: LlamaCppConfig, gpus: tuple[str, ...] | None = None) -> None:
        self._config = config
        self._gpus = visible_gpus() if gpus is None else gpus
        self._lock = threading.Lock()
        self._outputs: dict[tuple[str, ...], str] = {}
        self._devices_at = float("-inf")

    def find(self) -> tuple[Kind, tuple[str, ...]]:
        """What would run now; costs a look at PATH."""
        wanted = self._config.command
        program = wanted or "llama-server"
        if program.startswith("~"):
            program = str(Path(program).expanduser())
        found = shutil.which(program)
        if found is not None:
            return "command", (found, *self._config.args)
        if wanted is None and importlib.util.find_spec("xllamacpp") is not None:
            return "embedded", (*embedded_command(), *self._config.args)
        return "missing", ()

    def describe(self) -> BackendInfo:
        """The same with its version and what a person should know about it."""
        kind, command = self.find()
        version = self.output_of("--version") if kind != "missing" else None
        return BackendInfo(kind, command, _version_in(version), self.warning())

    def output_of(self, flag: str) -> str | None:
        """What the program prints for ``--version``, ``--help`` or ``--list-devices``; kept.

        None where it cannot be run. A program that was replaced is asked again.
        """
        kind, command = self.find()
        if kind == "missing":
            return None
        words = (*command, flag)
        key = (*words, _stamp(command[0]))
        with self._lock:
            if key not in self._outputs:
                self._outputs[key] = _run(words)
            return self._outputs[key]

    def known_flags(self, *, ask: bool = True) -> frozenset[str] | None:
        """The flags, with their dashes, that the program has by its own ``--help``.

        None where that tells nothing, for the embedded one, which has a table of its own, and
        without ``ask`` where the program was not asked before.
        """
        kind, command = self.find()
        if kind != "command":
            return None
        if not ask and (*command, "--help", _stamp(command[0])) not in self._outputs:
            return None
        lines = (self.output_of("--help") or "").splitlines()
        listed = [line for line in lines if line[:1] == "-" and _REMOVED not in line]
        found = {name for line in listed for name in _FLAG.findall(line)}
        return frozenset(found) if len(found) >= _FEWEST_FLAGS else None

    def machine(self, within: float = RECENT) -> Machine:
        """The memory of this machine and of the devices that llama.cpp computes on, as it is now.

        What the devices said ``within`` so many seconds will do: asking them starts a process and
        their drivers. Where there is none, llama.cpp is not asked a second time; the embedded one
        never has any.
        """
        kind, command = self.find()
        if kind != "command":
            return read_machine("")
        words = (*command, "--list-devices")
        key = (*words, _stamp(command[0]))
        with self._lock:
            listed = self._outputs.get(key)
            stale = time.monotonic() - self._devices_at > within
        if listed is None or (stale and parse_devices(listed)):
            listed = _run(words)
            with self._lock:
                self._outputs[key], self._devices_at = listed, time.monotonic()
        return read_machine(listed)

    def warning(self) -> str | None:
        """What a person should know about it, loudly."""
        kind, _ = self.find()
        if kind == "missing":
            what = self._config.command or "llama-server"
            return (
                f"There is no {what} on this machine, so that no instance can run. {HOW_TO_INSTALL}"
            )
        if kind == "embedded" and self._gpus:
            gpus = " and ".join(self._gpus)
            return (
                f"This machine has a GPU ({gpus}), and the embedded llama.cpp runs on the "
                f"processor only: expect a tenth of the speed. {HOW_TO_INSTALL}"
            )
        return None


def embedded_command() -> tuple[str, ...]:
    """The embedded server, started in a way that no folder of the user's can get between."""
    return (sys.executable, "-I", str(Path(__file__).with_name("embedded.py")))


def _stamp(program: str) -> str:
    try:
        status = Path(program).stat()
    except OSError:
        return ""
    return f"{status.st_mtime_ns}/{status.st_size}"


def _run(words: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=scrubbed(os.environ),
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("%s %s: %s", words[0], words[-1], error)
        return ""
    return done.stdout.decode("utf-8", "replace")


def _version_in(output: str | None) -> str | None:
    for line in (output or "").splitlines():
        if line.lower().startswith("version:"):
            return line.split(":", 1)[1].strip() or None
    return None
