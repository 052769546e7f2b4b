"""The audit: who changed what, from where, and how it ended. Rows are added and never changed.

It is bounded: of what was done the newest ``KEPT`` rows stay, of what was refused the newest
``KEPT_REFUSALS``, so that a stranger who tries keys cannot push out what was done. Rows are
numbered without a gap, so whoever reads knows how many are gone.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from llamactl.database import Database

KEPT = 10_000
KEPT_REFUSALS = 1_000
#: Seconds between two refusals that are written, whoever was refused, and of one address.
REFUSAL_SECONDS = 5.0
ADDRESS_SECONDS = 60.0
#: Characters of each text.
_LONGEST = 500


@dataclass(frozen=True)
class AuditEntry:
    """One row. ``at`` is in unix seconds, ``status`` the HTTP status of the answer.

    ``who`` is a key's or a session's identifier, ``what`` method and path, ``about`` what the
    request named beside it, ``source`` the address that it came from. ``unwritten`` is how many
    refusals before this one were counted and not written.
    """

    id: int
    at: float
    who: str
    what: str
    about: str
    status: int
    source: str
    refused: bool
    unwritten: int


@dataclass(frozen=True)
class AuditPage:
    """Some rows, the newest first; ``forgotten`` is how many rows were written and are gone."""

    entries: tuple[AuditEntry, ...]
    kept: int
    forgotten: int


class Audit:
    """The rows of this server. Thread-safe."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.time,
        kept: int = KEPT,
        kept_refusals: int = KEPT_REFUSALS,
    ) -> None:
        self._database = database
        self._clock = clock
        self._kept = kept
        self._kept_refusals = kept_refusals
        self._lock = threading.Lock()
        self._written: dict[str, float] = {}
        self._unwritten = 0

    def done(self, who: str, what: str, about: str, status: int, source: str) -> None:
        """Write down what somebody with the right to it asked for, and how it was answered."""
        self._write(who, what, about, status, source, refused=False, unwritten=0)

    def refused(self, who: str, what: str, status: int, source: str) -> None:
        """Write down that somebody was refused; too many of them are only counted."""
        with self._lock:
            now = self._clock()
            if not self._is_due(source, now):
                self._unwritten += 1
                return
            self._written = {
                address: at for address, at in self._written.items() if now - at < ADDRESS_SECONDS
            }
            self._written[source] = now
            unwritten, self._unwritten = self._unwritten, 0
        self._write(who, what, "", status, source, refused=True, unwritten=unwritten)

    def read(self, limit: int, before: int | None = None) -> AuditPage:
        """The newest ``limit`` rows, or those that were written before row ``before``."""
        rows = self._database.read(
            "SELECT * FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?",
            (2**62 if before is None else before, limit),
        )
        kept, newest = self._database.read("SELECT count(*), coalesce(max(id), 0) FROM audit")[0]
        return AuditPage(tuple(map(_entry, rows)), kept, newest - kept)

    def _is_due(self, source: str, now: float) -> bool:
        latest = max(self._written.values(), default=-ADDRESS_SECONDS)
        if now < latest:
            # The clock was set back: what was written would hold back all until that moment.
            self._written.clear()
            return True
        return (
            now - latest >= REFUSAL_SECONDS
            and now - self._written.get(source, -ADDRESS_SECONDS) >= ADDRESS_SECONDS
        )

    def _write(
        self,
        who: str,
        what: str,
        about: str,
        status: int,
        source: str,
        *,
        refused: bool,
        unwritten: int,
    ) -> None:
        kept = self._kept_refusals if refused else self._kept
        with self._database.write() as cursor:
            cursor.execute(
                "INSERT INTO audit (at, who, what, about, status, source, refused, unwritten)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._clock(),
                    who[:_LONGEST],
                    what[:_LONGEST],
                    about[:_LONGEST],
                    status,
                    source[:_LONGEST],
                    int(refused),
                    unwritten,
                ),
            )
            cursor.execute(
                "DELETE FROM audit WHERE refused = ? AND id <= (SELECT id FROM audit"
                " WHERE refused = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (int(refused), int(refused), kept),
            )


def _entry(row: sqlite3.Row) -> AuditEntry:
    return AuditEntry(
        id=row["id"],
        at=row["at"],
        who=row["who"],
        what=row["what"],
        about=row["about"],
        status=row["status"],
        source=row["source"],
        refused=bool(row["refused"]),
        unwritten=row["unwritten"],
    )
