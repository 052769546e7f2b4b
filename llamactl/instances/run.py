"""One process of an instance: what it is made from, and what is known of it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shlex
import shutil
import signal
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llamactl.config import Config
from llamactl.errors import InvalidRequest, StartFailed, UnsupportedFlag
from llamactl.hub.tokens import current_token
from llamactl.instances import commandline, processes
from llamactl.instances.embedded_flags import check_embedded
from llamactl.instances.environment import child_environment
from llamactl.instances.hints import HOW_TO_INSTALL
from llamactl.instances.masking import masked_words
from llamactl.instances.modelfiles import expand, find_files
from llamactl.instances.permissions import check_permitted
from llamactl.instances.shared import Shared, Timing
from llamactl.instances.spawner import Order, Process
from llamactl.instances.store import Run as RunRecord
from llamactl.secret import Secret

if TYPE_CHECKING:
    from llamactl.instances.instance import Instance
    from llamactl.instances.options import Options

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"

#: The line that follows from it looks like somebody who tried to get in.
_ASKED_ONCE = '--- llamactl asks it once without its key, which has to be "unauthorized"'


@dataclass(eq=False)
class Run:
    """A process from its making to its end. ``exit_code`` counts once it has ended."""

    instance: Instance
    argv: Sequence[str]
    port: int
    key: Secret
    files: tuple[Path, ...]
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))
    host: str = HOST
    ready_at: float | None = None
    exit_code: int | None = None
    _ended: bool = False
    _process: Process | None = None
    _written: int = 0
    _fetched: int = 0
    _progress_at: float = 0.0

    def launch(self) -> None:
        """Make the process, recorded before it is there; ``StartFailed`` if it cannot be made."""
        shared, log = self.instance.shared, self.instance.log
        options = self.instance.options
        token = current_token(shared.config.hub) if options.wants_hub else None
        environment = child_environment(os.environ, shared.config, options, self.key, token)
        shown = commandline.shown(masked_words(self.argv))
        log.write(f"--- llamactl starts: {shown}\n{_ASKED_ONCE}\n".encode())
        log.begin_report()
        mark = shared.mark_prefix + self.run_id
        record = RunRecord(
            self.run_id, self.instance.name, None, None, processes.boot_id(), self.port, time.time()
        )
        shared.store.begin(record)
        try:
            process = shared.spawner.spawn(Order(self.argv, environment, Path.cwd(), mark))
        except OSError as error:
            raise StartFailed(f"no process can be made: {error.strerror}") from error
        self._process = process
        self._written, self._progress_at = log.written, time.monotonic()
        self._fetched = self._fetched_bytes()
        shared.watcher.watch(process, log, self._on_end)
        try:
            shared.store.identify(self.run_id, process.pid, processes.start_ticks(process.pid))
        except sqlite3.Error as error:
            # Its mark finds it all the same.
            logger.warning("%s: %s", self.instance.name, error)

    def forget(self) -> None:
        """Give back the port and the record. Ends the process, should it still be there."""
        shared = self.instance.shared
        if not self._ended:
            self.signal(signal.SIGKILL)
        shared.ports.release(self.port)
        try:
            shared.store.end(self.run_id)
        except sqlite3.Error as error:
            # What stays behind is compared with the process table at the next start.
            logger.warning("%s: %s", self.instance.name, error)
        self.instance.log.release()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def has_ended(self) -> bool:
        """Whether it is gone, with all of its output read."""
        return self._ended

    def signal(self, number: int) -> None:
        """Send a signal to the process and its group."""
        if self._process is not None:
            self._process.signal(number)

    def stalled(self, timing: Timing) -> bool:
        """Whether it has written nothing for longer than any load is silent.

        A llama-server that fetches its model is silent for as long as that takes: while the files
        in the Hub cache grow, it goes on.
        """
        written, now = self.instance.log.written, time.monotonic()
        if written != self._written:
            self._written, self._progress_at = written, now
        if now - self._progress_at <= timing.load_patience:
            return False
        if (fetched := self._fetched_bytes()) == self._fetched:
            return True
        self._fetched, self._progress_at = fetched, now
        return False

    def _fetched_bytes(self) -> int:
        """What is there of the repositories that it reads from the hub by itself."""
        hub_dir = self.instance.shared.config.llama_cpp.hub_dir
        return sum(fetched_bytes(hub_dir, repo) for repo in self.instance.options.hub_repos)

    def _on_end(self, exit_code: int) -> None:
        with self.instance.shared.lock:
            self.exit_code, self._ended = exit_code, True
            self.instance.ring()


def fetched_bytes(hub_dir: Path, repo: str) -> int:
    """The bytes that the Hub cache holds of a repository, whole files and partial ones."""
    org, _, name = repo.partition(":")[0].partition("/")
    total = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(hub_dir / f"models--{org}--{name}" / "blobs"):
            with contextlib.suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_size
    return total


def make_run(instance: Instance, avoid_ports: Sequence[int]) -> Run:
    """Everything that can be known before a process is made; ``StartFailed`` if it can never run.

    The port is reserved; ``forget`` gives it back.
    """
    shared, options = instance.shared, instance.options
    if instance.unusable:
        raise StartFailed(instance.unusable, hint="Save its options again.")
    _check_options(options, shared)
    files = find_files(options, shared.resolve_model)
    program = program_of(options, shared)
    preset = _write_preset(instance) if options.preset_ini else None
    port = shared.ports.reserve(avoid_ports)
    launch = commandline.Launch(
        HOST,
        port,
        _text(files.model),
        _text(files.mmproj),
        models_preset=_text(preset),
        metrics=shared.config.server.accel is not None,
    )
    try:
        words = words_of(program, options, instance.name, launch, shared)
    except UnsupportedFlag as error:
        shared.ports.release(port)
        raise StartFailed(error.message, hint=error.hint) from error
    key = Secret(secrets.token_urlsafe(32))
    return Run(instance, words, port, key, files.all)


def _check_options(options: Options, shared: Shared) -> None:
    """Asked at each start: what was allowed when it was stored may not be any more."""
    try:
        check_permitted(options, shared.config.security)
    except InvalidRequest as error:
        raise StartFailed(error.message, hint=error.hint) from error
    if options.preset_ini and not options.is_router:
        raise StartFailed(
            "preset_ini is for router mode, and this instance has a model of its own",
            hint="Leave out either the model or preset_ini.",
        )


@dataclass(frozen=True)
class Program:
    """What an instance runs: the words in front of its flags."""

    embedded: bool
    words: tuple[str, ...]


def words_of(
    program: Program, options: Options, name: str, launch: commandline.Launch, shared: Shared
) -> list[str]:
    """The whole command line. Raises ``UnsupportedFlag`` for what the embedded one lacks."""
    known = None
    if not options.command_override:
        known = shared.backend.known_flags(ask=commandline.has_renamed(options))
    words = commandline.arguments(options, name, launch, expand, known)
    if program.embedded:
        check_embedded(words)
    return [*program.words, *words]


def program_of(options: Options, shared: Shared) -> Program:
    """The program that these options run; ``StartFailed`` where it is not there."""
    if options.command_override:
        try:
            words = shlex.split(options.command_override) or [""]
        except ValueError as error:
            raise StartFailed(
                f"command_override cannot be read: {error}", hint="Check its quotes."
            ) from error
        found = shutil.which(expand(words[0]) if words[0].startswith(("~", "$")) else words[0])
        if found is None:
            raise StartFailed(
                f"there is no program {words[0]}", hint="Check the instance's command_override."
            )
        return Program(False, (found, *words[1:]))
    kind, command = shared.backend.find()
    if kind == "missing":
        wanted = shared.config.llama_cpp.command or "llama-server"
        raise StartFailed(f"there is no program {wanted}", hint=HOW_TO_INSTALL)
    return Program(kind == "embedded", command)


def preset_path(config: Config, name: str) -> Path:
    """Where an instance's ``preset_ini`` lies while it runs."""
    return config.data_dir / "presets" / f"{name}.ini"


def _write_preset(instance: Instance) -> Path:
    path = preset_path(instance.shared.config, instance.name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_suffix(".incomplete")
    partial.write_text(instance.options.preset_ini or "", encoding="utf-8")
    partial.chmod(0o600)
    partial.replace(path)
    return path


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
