"""The files that were hashed and found right, so that no start and no download hashes them again.

A file that was touched since (size, time or inode differ) counts as unknown. Content that changed
in place without leaving a trace in those three is beyond this record; ``verify`` hashes anew.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from llamactl.database import Database

#: size, mtime_ns and inode: what a change of the file changes.
_State = tuple[int, int, int]


class VerifiedFiles:
    """The table ``verified``, by path."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = VerifiedRows(database)

    def record(self, paths: Iterable[Path], oid: str) -> None:
        """Remember that each of these files has the digest ``oid``."""
        rows = [(str(path), oid, *_state(path.stat())) for path in paths]
        with self._database.write() as cursor:
            cursor.executemany("INSERT OR REPLACE INTO verified VALUES (?, ?, ?, ?, ?)", rows)
        self._rows = VerifiedRows(self._database)

    def forget(self, paths: Iterable[str]) -> None:
        with self._database.write() as cursor:
            cursor.executemany("DELETE FROM verified WHERE path = ?", [(path,) for path in paths])
        self._rows = VerifiedRows(self._database)

    def now(self) -> VerifiedRows:
        """The table as it is, for asking about many files.

        It is the same object as before for as long as nothing was recorded or forgotten: the data
        directory's lock sees to it that no other process writes here.
        """
        return self._rows


class VerifiedRows:
    """A copy of the table that is read when it is first needed, and never changes then."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @cached_property
    def _rows(self) -> dict[str, tuple[str, _State]]:
        rows = self._database.read("SELECT path, oid, size, mtime_ns, inode FROM verified")
        return {row[0]: (row[1], (row[2], row[3], row[4])) for row in rows}

    def oid(self, path: str, status: os.stat_result) -> str | None:
        """The digest of an untouched file; None when it is unknown or was touched."""
        oid, state = self._rows.get(path, ("", None))
        return oid if state == _state(status) and stat.S_ISREG(status.st_mode) else None


def _state(status: os.stat_result) -> _State:
    return status.st_size, status.st_mtime_ns, status.st_ino
