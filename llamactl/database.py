"""SQLite: one connection that one thread at a time uses, and the migrations.

One writer is a matter of correctness here: the SQLite that some systems ship loses data when
several connections write and checkpoint one WAL file at the same time.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llamactl.errors import ConfigError

#: Each entry moves the database one version on, in a transaction of its own.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        repo_id TEXT NOT NULL,
        tag TEXT NOT NULL,
        status TEXT NOT NULL,
        error_code TEXT,
        error TEXT,
        created_at REAL NOT NULL,
        completed_at REAL,
        model_path TEXT,
        commit_hash TEXT,
        plan TEXT,
        position INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE verified (
        path TEXT PRIMARY KEY,
        oid TEXT NOT NULL,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        inode INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE instances (
        name TEXT PRIMARY KEY,
        id INTEGER NOT NULL UNIQUE,
        options TEXT NOT NULL,
        created_at REAL NOT NULL,
        wanted INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY,
        instance TEXT NOT NULL,
        pid INTEGER,
        start_ticks INTEGER,
        boot_id TEXT NOT NULL,
        port INTEGER NOT NULL,
        started_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE keys (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        public_id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        digest BLOB NOT NULL,
        permission_mode TEXT NOT NULL,
        instance_ids TEXT NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL,
        last_used_at REAL,
        revoked_at REAL,
        requests INTEGER NOT NULL DEFAULT 0,
        tokens INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE sessions (
        digest BLOB PRIMARY KEY,
        csrf TEXT NOT NULL,
        created_at REAL NOT NULL,
        last_seen_at REAL NOT NULL
    ) STRICT;
    """,
    """
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        who TEXT NOT NULL,
        what TEXT NOT NULL,
        about TEXT NOT NULL,
        status INTEGER NOT NULL,
        source TEXT NOT NULL,
        refused INTEGER NOT NULL,
        unwritten INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX audit_by_kind ON audit (refused, id);
    """,
    """
    CREATE TABLE download_limits (
        max_concurrent INTEGER NOT NULL,
        bandwidth_limit INTEGER
    ) STRICT;
    """,
    """
    ALTER TABLE instances ADD COLUMN last_used_at REAL;
    """,
)


class Database:
    """The state that outlives the process. Thread-safe; every call takes the one lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the file, make it if it is missing, and bring it to today's schema.

        Raises ``ConfigError`` when it cannot be opened or was written by a newer llamactl.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.touch(mode=0o600)
            connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=5.0
            )
        except (sqlite3.Error, OSError) as error:
            raise _unusable(self.path, error) from error
        try:
            _prepare(connection)
            _migrate(connection, self.path)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise _unusable(self.path, error) from error
            raise
        self._connection = connection

    def close(self) -> None:
        """Close the file. Nothing may use the database afterwards."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Cursor]:
        """One transaction: all of the block's changes are durable at its end, or none is."""
        with self._lock:
            cursor = self._open_connection().cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if self._open_connection().in_transaction:
                    cursor.execute("ROLLBACK")
                raise
            finally:
                cursor.close()

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of one query."""
        with self._lock:
            return self._open_connection().execute(sql, tuple(parameters)).fetchall()

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError(f"{self.path} is not open")
        return self._connection


def _unusable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path}: the database cannot be used: {error}",
        hint="Check the directory's owner and free space, or move the file away.",
    )


def _prepare(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # a job that was acknowledged survives a power cut
        "foreign_keys=ON",
        "trusted_schema=OFF",
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"{path} was written by a newer llamactl (schema {version}, "
            f"this one knows {len(MIGRATIONS)})",
            hint="Install that version again, or choose another data_dir.",
        )
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements.split(";"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version={number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
