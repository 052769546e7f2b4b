"""Instances and runs in the database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamactl.database import Database


@dataclass(frozen=True)
class StoredInstance:
    """``wanted``: it ran when the server was last seen, and should when it comes up.

    ``last_used_at`` is a moment ago by at most one regular look at it; None where it never was.
    """

    id: int
    name: str
    options: Any
    created_at: float
    wanted: bool
    last_used_at: float | None


@dataclass(frozen=True)
class Run:
    """A process that was or is about to be made. ``pid`` is None until it is known."""

    run_id: str
    instance: str
    pid: int | None
    start_ticks: int | None
    boot_id: str
    port: int
    started_at: float


class InstanceStore:
    """What outlives the server of its instances."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[StoredInstance]:
        """Every instance, oldest first."""
        rows = self._database.read("SELECT * FROM instances ORDER BY id")
        return [
            StoredInstance(
                row["id"],
                row["name"],
                json.loads(row["options"]),
                row["created_at"],
                bool(row["wanted"]),
                row["last_used_at"],
            )
            for row in rows
        ]

    def add(self, name: str, options: Mapping[str, Any], created_at: float) -> int:
        """Store a new instance; its number, which no instance before it ever had.

        Keys are granted by this number, so that of a deleted instance must not come again.
        """
        with self._database.write() as cursor:
            cursor.execute("SELECT max(id) FROM instances")
            highest = cursor.fetchone()[0] or 0
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = 'instances'")
            row = cursor.fetchone()
            number = max(highest, row[0] if row else 0) + 1
            cursor.execute("DELETE FROM sqlite_sequence WHERE name = 'instances'")
            cursor.execute("INSERT INTO sqlite_sequence VALUES ('instances', ?)", (number,))
            cursor.execute(
                "INSERT INTO instances VALUES (?, ?, ?, ?, 0, NULL)",
                (name, number, json.dumps(options), created_at),
            )
        return number

    def update(self, name: str, options: Mapping[str, Any]) -> None:
        with self._database.write() as cursor:
            cursor.execute(
                "UPDATE instances SET options = ? WHERE name = ?", (json.dumps(options), name)
            )

    def remove(self, name: str) -> None:
        with self._database.write() as cursor:
            cursor.execute("DELETE FROM instances WHERE name = ?", (name,))

    def begin(self, run: Run) -> None:
        """Record a process before it is made, and that its instance is wanted."""
        with self._database.write() as cursor:
            cursor.execute("UPDATE instances SET wanted = 1 WHERE name = ?", (run.instance,))
            cursor.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    run.run_id,
                    run.instance,
                    run.pid,
                    run.start_ticks,
                    run.boot_id,
                    run.port,
                    run.started_at,
                ),
            )

    def identify(self, run_id: str, pid: int, start_ticks: int | None) -> None:
        """Add which process it became."""
        with self._database.write() as cursor:
            cursor.execute(
                "UPDATE runs SET pid = ?, start_ticks = ? WHERE run_id = ?",
                (pid, start_ticks, run_id),
            )

    def end(self, run_id: str) -> None:
        """Forget a process that was reaped."""
        with self._database.write() as cursor:
            cursor.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))

    def used(self, name: str, last_used_at: float) -> None:
        """When it was used last, in unix seconds."""
        with self._database.write() as cursor:
            cursor.execute(
                "UPDATE instances SET last_used_at = ? WHERE name = ?", (last_used_at, name)
            )

    def unwanted(self, name: str) -> None:
        """It was stopped or has failed: it stays down when the server comes up again."""
        with self._database.write() as cursor:
            cursor.execute("UPDATE instances SET wanted = 0 WHERE name = ?", (name,))

    def runs(self) -> Sequence[Run]:
        """The processes that were not seen to end."""
        return [Run(**dict(row)) for row in self._database.read("SELECT * FROM runs")]
