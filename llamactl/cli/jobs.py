"""Jobs, whoever works on them: this process, or the server that holds the data directory."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, Protocol

from llamactl.cli.client import Server
from llamactl.cli.local import Services, data_directory, find_server, services
from llamactl.cli.options import Where
from llamactl.cli.output import say
from llamactl.cli.progress import UNDER_WAY, Bar, Display, Events, Job, Lines
from llamactl.config import load_config
from llamactl.downloads.snapshots import job_json
from llamactl.errors import InvalidState
from llamactl.models.reference import ModelRef
from llamactl.models.snapshots import cached_model_json
from llamactl.sizes import size_text

MODELS = "/backends/llama-cpp/models"

#: A cached model in the REST interface's form.
CachedModel = Mapping[str, Any]

#: Seconds between two looks at a job of this process, and of a server.
_LOOK_HERE, _LOOK_THERE = 0.1, 0.5
_WANTS_A_TOKEN = frozenset({"not_found", "unauthorized", "gated"})


class Jobs(Protocol):
    """What a command asks of whoever does the work; answers have the REST interface's form."""

    def models(self) -> list[CachedModel]: ...

    def download(self, ref: ModelRef) -> str:
        """Queue it; the job's id."""

    def verify(self, repo_id: str, tag: str | None, repair: bool) -> str:
        """Queue a check; the job's id."""

    def job(self, job_id: str) -> Job: ...

    def wait(self, job_id: str) -> Job:
        """The job a moment later, or as soon as it has ended."""

    def interrupt(self, job_id: str) -> str:
        """Make the state resumable; the sentence that says how it goes on."""


class Here:
    """The queue of this process, with the data directory to itself."""

    def __init__(self, own: Services) -> None:
        self._cache = own.cache
        self._queue = own.downloads

    def models(self) -> list[CachedModel]:
        return [cached_model_json(model) for model in self._cache.list()]

    def download(self, ref: ModelRef) -> str:
        job_id = self._queue.submit(ref).job.id
        for job in (each.job for each in self._queue.jobs()):
            if job.status in UNDER_WAY and job.id != job_id:
                say(f"Goes on meanwhile: {job.repo_id}:{job.tag}, which a server had begun.")
        return job_id

    def verify(self, repo_id: str, tag: str | None, repair: bool) -> str:
        return self._queue.verify(repo_id, tag, repair=repair).job.id

    def job(self, job_id: str) -> Job:
        return job_json(self._queue.job(job_id))

    def wait(self, job_id: str) -> Job:
        return job_json(self._queue.wait(job_id, _LOOK_HERE))

    def interrupt(self, job_id: str) -> str:
        if self._queue.job(job_id).job.kind == "verify":
            self._queue.delete(job_id)
            return "Interrupted; the same command begins anew."
        # Paused rather than queued: a person stopped it, so no later start takes it up unasked.
        try:
            progress = self._queue.pause(job_id).progress
        except InvalidState:
            return "Interrupted as it ended; the same command says how."
        there = size_text(progress.bytes_downloaded)
        if progress.total_bytes is not None:
            there = f"{there} of {size_text(progress.total_bytes)}"
        return f"Interrupted with {there} on the disk; the same command goes on from there."


class There:
    """A running server, which goes on whatever becomes of this command."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def models(self) -> list[CachedModel]:
        found: list[CachedModel] = self._server.get(MODELS)
        return found

    def download(self, ref: ModelRef) -> str:
        return str(self._server.post(f"{MODELS}/download", {"repo": str(ref)})["job_id"])

    def verify(self, repo_id: str, tag: str | None, repair: bool) -> str:
        mend = "true" if repair else None
        answer = self._server.post(f"{MODELS}/verify", repo=repo_id, tag=tag, repair=mend)
        return str(answer["job_id"])

    def job(self, job_id: str) -> Job:
        job: Job = self._server.get(f"{MODELS}/jobs/{job_id}")
        return job

    def wait(self, job_id: str) -> Job:
        time.sleep(_LOOK_THERE)
        return self.job(job_id)

    def interrupt(self, job_id: str) -> str:
        return f"The server at {self._server.url} goes on with it; the same command follows it."


@contextlib.contextmanager
def open_jobs(where: Where) -> Iterator[Jobs]:
    """The server that ``where`` names or that holds the data directory, else this process itself.

    Inside, SIGTERM and a closed terminal end the command as Ctrl-C does.
    """
    with _interrupted_by_signals(), contextlib.ExitStack() as stack:
        if where.url is not None:
            yield There(find_server(where))
            return
        config = load_config(where.config_file)
        server = stack.enter_context(data_directory(config))
        if server is not None:
            yield There(server)
        else:
            yield Here(stack.enter_context(services(config, transfers=True)))


def follow(jobs: Jobs, job_id: str, display: Display) -> Job:
    """Show the job until it has ended; that state of it."""
    with _warnings_held() as held:
        try:
            job = jobs.job(job_id)
            while True:
                if held:
                    display.close()
                    _say_all(held)
                display.update(job)
                if job["status"] not in UNDER_WAY:
                    return job
                job = jobs.wait(job_id)
        except KeyboardInterrupt:
            display.close()
            say(jobs.interrupt(job_id))
            raise
        finally:
            display.close()
            _say_all(held)


def display_for(as_json: bool) -> Display:
    """Events for a program, a bar on a terminal, plain lines elsewhere."""
    if as_json:
        return Events()
    return Bar() if sys.stderr.isatty() else Lines()


def reason(job: Job, jobs: Jobs) -> str:
    """Why a job that has ended is not completed."""
    if job["status"] == "paused":
        return "It was paused; the same command goes on with it."
    told = job["error"] or f"It was {job['status']}."
    if job["error_code"] in _WANTS_A_TOKEN and isinstance(jobs, There) and "HF_TOKEN" in os.environ:
        return f"{told} The server downloads, with its own token: HF_TOKEN of this shell is not it."
    return str(told)


@contextlib.contextmanager
def _warnings_held() -> Iterator[deque[str]]:
    """What other threads warn of, to be said where it does not tear a bar apart."""
    held: deque[str] = deque()

    class Holder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            held.append(record.getMessage())

    holder, ours = Holder(logging.WARNING), logging.getLogger("llamactl")
    ours.addHandler(holder)
    try:
        yield held
    finally:
        ours.removeHandler(holder)


def _say_all(held: deque[str]) -> None:
    while held:
        say(held.popleft())


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
