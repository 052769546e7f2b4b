"""``llamactl doctor``: what llamactl needs of this machine, one line each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from llamactl.cli.local import DataDirectoryHeld, holding_server
from llamactl.cli.options import config_option, json_option
from llamactl.cli.output import plain, print_json
from llamactl.config import Config, load_config
from llamactl.errors import LlamactlError
from llamactl.hub.client import HubClient
from llamactl.hub.tokens import current_token
from llamactl.instances.backend import Backend
from llamactl.instances.devices import visible_gpus
from llamactl.paths import nearest_existing
from llamactl.secret import Secret
from llamactl.sizes import size_text

#: Seconds before a second attempt: an answer is wanted soon.
BACKOFF = 0.1


class Finding(NamedTuple):
    """One line of the report."""

    subject: str
    passed: bool
    text: str


@click.command()
@json_option
@config_option
def doctor(as_json: bool, config_file: Path | None) -> None:
    """Check what llamactl needs, one line each; exit code 1 if anything fails."""
    findings = []
    for finding in examine(load_config(config_file)):
        findings.append(finding)
        if not as_json:
            mark = "ok  " if finding.passed else "FAIL"
            click.echo(f"{mark}  {finding.subject:<15} {plain(finding.text)}")
    if as_json:
        print_json([finding._asdict() for finding in findings])
    if not all(finding.passed for finding in findings):
        click.get_current_context().exit(1)


def examine(config: Config) -> Iterator[Finding]:
    """All findings, each as soon as it is known."""
    source = str(config.source) if config.source else "no file; defaults and environment"
    yield Finding("configuration", True, source)
    yield _server(config)
    for subject, folder in (
        ("data directory", config.data_dir),
        ("flat cache", config.llama_cpp.cache_dir),
        ("hub cache", config.llama_cpp.hub_dir),
        ("logs", config.instances.logs_dir),
    ):
        yield _directory(subject, folder)
    yield _free_space(config)
    yield from _llama_cpp(config)
    yield from _hub(config)


def _server(config: Config) -> Finding:
    try:
        held = holding_server(config)
    except DataDirectoryHeld as busy:
        return Finding("server", True, busy.message)
    return Finding("server", True, f"runs at {held.url}" if held else "does not run")


def _directory(subject: str, folder: Path) -> Finding:
    """Whether files can be made there; a missing directory is as good as the one it would be in."""
    there = nearest_existing(folder)
    if not there.is_dir():
        return Finding(subject, False, f"{there} is not a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(subject, False, f"{there} is not writable; make it yours, or choose another")
    return Finding(subject, True, f"{folder}{'' if there == folder else ' (will be made)'}")


def _free_space(config: Config) -> Finding:
    free = shutil.disk_usage(nearest_existing(config.llama_cpp.hub_dir)).free
    wanted = config.downloads.min_free_space
    text = f"{size_text(free)} beside the caches"
    if free <= wanted:
        text += f"; downloads leave {size_text(wanted)} free (downloads.min_free_space)"
    return Finding("free space", free > wanted, text)


def _llama_cpp(config: Config) -> Iterator[Finding]:
    gpus = visible_gpus()
    backend = Backend(config.llama_cpp, gpus).describe()
    if backend.kind == "missing":
        yield Finding("llama.cpp", False, backend.warning or "none")
    else:
        name = "embedded" if backend.kind == "embedded" else backend.command[0]
        text = f"{name}, {backend.version or 'which does not tell its version when it is run'}"
        yield Finding("llama.cpp", backend.version is not None, text)
    # A GPU that stands idle beside the CPU build is what people come here to ask about.
    idle = backend.warning if gpus and backend.kind == "embedded" else None
    seen = ", ".join(gpus) or "none seen; models run on the CPU"
    yield Finding("GPU", idle is None, idle or seen)


def _hub(config: Config) -> Iterator[Finding]:
    endpoint = config.hub.endpoint
    token = current_token(config.hub)
    if config.hub.offline:
        yield Finding("hub", True, f"{endpoint} is not asked: HF_HUB_OFFLINE is set")
        yield Finding("token", True, "not tried")
        return
    refusal = _refusal(endpoint, None)
    yield Finding("hub", refusal is None, refusal or endpoint)
    if token is None:
        yield Finding("token", True, "none; public models only")
    elif refusal is not None:
        yield Finding("token", True, "not tried")
    else:
        refusal = _refusal(endpoint, token)
        yield Finding("token", refusal is None, refusal or "accepted by the hub")


def _refusal(endpoint: str, token: Secret | None) -> str | None:
    """What the hub has against a small request; None when it answers."""
    try:
        HubClient(endpoint, lambda: token, offline=False, backoff=BACKOFF).search("gguf", 1)
    except LlamactlError as error:
        return error.details
    return None
