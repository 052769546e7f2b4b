"""This machine's data directory: its holder does the work, a running server or this command."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from llamactl.access.management import FILE_NAME as KEY_FILE
from llamactl.cli.client import Server
from llamactl.cli.options import Where
from llamactl.config import Config, load_config
from llamactl.database import Database
from llamactl.downloads.queue import DownloadQueue
from llamactl.errors import LlamactlError
from llamactl.hub.client import HubClient
from llamactl.hub.tokens import current_token
from llamactl.locks import FileLock
from llamactl.models.cache import ModelCache
from llamactl.secret import Secret

#: Seconds that running transfers get to put their bytes in order.
STOP_SECONDS = 20.0


class DataDirectoryHeld(LlamactlError):
    """Another llamactl works in the data directory, and it is no server that could be asked."""

    code = "data_directory_held"


def find_server(where: Where) -> Server:
    """The server that ``--url`` names, else the one that holds this machine's data directory.

    The key of the data directory goes to the server that holds it and to no other.
    """
    url, key = where.url, where.key
    if url is not None and key is not None:
        return Server(url, key)
    config = load_config(where.config_file)
    held = holding_server(config, key)
    if url is not None and (held is None or held.url != url.rstrip("/")):
        return Server(url, key)
    if held is None:
        raise LlamactlError(
            f"No server runs on {config.data_dir}",
            hint="Start one with `llamactl`, or name one with --url.",
        )
    return held


def holding_server(config: Config, key: Secret | None = None) -> Server | None:
    """The running server of this data directory; None when nobody holds it.

    Raises ``DataDirectoryHeld`` when the holder is no server, or not one that listens yet.
    """
    lock = FileLock(config.server_lock_file)
    note = lock.holder()
    if not note:
        return None
    if not note.get("url"):
        raise DataDirectoryHeld(
            f"Another llamactl (process {note.get('pid') or 'unknown'}) works in {config.data_dir}",
            hint="Wait until it is done, then try again.",
        )
    return Server(str(note["url"]), key or management_key(config))


class Services(NamedTuple):
    """The part of a server that a command can be by itself."""

    cache: ModelCache
    downloads: DownloadQueue


@contextlib.contextmanager
def services(config: Config, *, transfers: bool) -> Iterator[Services]:
    """The caches and the queue over the open database; without ``transfers`` no job runs.

    Built here and not by the server's Runtime, which needs more than every system has. Only for
    the holder of the data directory.
    """
    database = Database(config.database_file)
    database.open()
    try:
        hub = hub_client(config)
        cache = model_cache(config, database)
        queue = DownloadQueue(config, database, hub, cache)
        queue.start(transfers=transfers)
        try:
            yield Services(cache, queue)
        finally:
            queue.request_stop()
            queue.join(STOP_SECONDS)
    finally:
        database.close()


def hub_client(config: Config) -> HubClient:
    """The hub that the configuration names, with its token."""
    return HubClient(config.hub.endpoint, lambda: current_token(config.hub), config.hub.offline)


def model_cache(config: Config, database: Database) -> ModelCache:
    """The caches of this machine. No server runs, so no instance uses them."""
    directories = config.llama_cpp
    return ModelCache(
        directories.cache_dir, directories.hub_dir, database, in_use=lambda _paths: []
    )


@contextlib.contextmanager
def cache_alone(config: Config) -> Iterator[ModelCache]:
    """The caches without what is remembered of them: for looking, whoever holds the database."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "empty.db")
        database.open()
        try:
            yield model_cache(config, database)
        finally:
            database.close()


@contextlib.contextmanager
def data_directory(config: Config) -> Iterator[Server | None]:
    """Hold the data directory for the length of a command: None; or the server that holds it."""
    lock = FileLock(config.server_lock_file)
    if not lock.acquire():
        yield holding_server(config)
        return
    try:
        lock.write_note(pid=os.getpid())
        yield None
    finally:
        lock.release()


def management_key(config: Config) -> Secret | None:
    """A key that the server of this data directory takes, where this user may read one."""
    if config.auth.management_keys:
        return config.auth.management_keys[0]
    with contextlib.suppress(OSError):
        return Secret((config.data_dir / KEY_FILE).read_text().strip())
    return None
