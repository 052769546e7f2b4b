"""``llamactl download``: one model, by the running server or by this process itself."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Protocol

import click

from llamactl.cli.client import Server
from llamactl.cli.local import data_directory, find_server, services
from llamactl.cli.options import json_option, server_options
from llamactl.cli.output import say
from llamactl.cli.progress import ACTIVE, Bar, Display, Events, Job, Lines
from llamactl.config import load_config
from llamactl.downloads.queue import DownloadQueue
from llamactl.downloads.snapshots import job_json
from llamactl.errors import LlamactlError
from llamactl.models.reference import ModelRef

MODELS = "/backends/llama-cpp/models"


class DownloadFailed(LlamactlError):
    """The job ended without its model."""

    code = "download_failed"


class Downloader(Protocol):
    """Who does the work: this process or a server."""

    poll_seconds: float

    def submit(self, ref: ModelRef) -> str: ...

    def job(self, job_id: str) -> Job: ...

    def interrupt(self, job_id: str) -> str:
        """Make the state resumable; the sentence that says how it goes on."""


class Here:
    """The queue of this process, with the data directory to itself."""

    poll_seconds = 0.1

    def __init__(self, queue: DownloadQueue) -> None:
        self._queue = queue

    def submit(self, ref: ModelRef) -> str:
        job_id = self._queue.submit(ref).job.id
        others = [each.job for each in self._queue.jobs() if each.job.status in ACTIVE]
        for job in others:
            if job.id != job_id:
                say(f"Goes on meanwhile: {job.repo_id}:{job.tag}, which a server had begun.")
        return job_id

    def job(self, job_id: str) -> Job:
        return job_json(self._queue.job(job_id))

    def interrupt(self, job_id: str) -> str:
        # Paused rather than queued: a person stopped it, so no later start takes it up unasked.
        self._queue.pause(job_id)
        return "Interrupted; the same command goes on from the bytes that are there."


class There:
    """A running server, which goes on whatever becomes of this command."""

    poll_seconds = 0.5

    def __init__(self, server: Server) -> None:
        self._server = server

    def submit(self, ref: ModelRef) -> str:
        return str(self._server.post(f"{MODELS}/download", {"repo": str(ref)})["job_id"])

    def job(self, job_id: str) -> Job:
        job: Job = self._server.get(f"{MODELS}/jobs/{job_id}")
        return job

    def interrupt(self, job_id: str) -> str:
        return f"The server at {self._server.url} goes on with it; the same command follows it."


@click.command()
@click.argument("reference", metavar="ORG/NAME[:TAG]")
@json_option
@server_options
def download(
    reference: str, as_json: bool, url: str | None, key: str | None, config_file: Path | None
) -> None:
    """Download a model into the cache and print the path of its GGUF.

    Works with and without a running server. What was interrupted goes on with the same command.
    """
    ref = ModelRef.parse(reference)
    display = _display(as_json)
    with _interrupted_by_signals():
        if url is not None:
            job = follow(There(find_server(config_file, url, key)), ref, display)
        else:
            config = load_config(config_file)
            with data_directory(config) as server:
                if server is not None:
                    job = follow(There(server), ref, display)
                else:
                    with services(config, transfers=True) as own:
                        job = follow(Here(own.downloads), ref, display)
    if job["status"] != "completed":
        raise DownloadFailed(_reason(job))
    if not as_json:
        click.echo(job["model_path"])


def follow(downloader: Downloader, ref: ModelRef, display: Display) -> Job:
    """Hand the model to ``downloader`` and show the job until it has ended."""
    job_id = downloader.submit(ref)
    try:
        while True:
            job = downloader.job(job_id)
            display.update(job)
            if job["status"] not in ACTIVE:
                return job
            time.sleep(downloader.poll_seconds)
    except KeyboardInterrupt:
        display.close()
        say(downloader.interrupt(job_id))
        raise
    finally:
        display.close()


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end the command as Ctrl-C does, with a resumable state."""

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


def _display(as_json: bool) -> Display:
    if as_json:
        return Events()
    return Bar() if sys.stderr.isatty() else Lines()


def _reason(job: Job) -> str:
    if job["status"] == "paused":
        return "The download was paused; the same command goes on with it."
    return job["error"] or f"The download was {job['status']}."
