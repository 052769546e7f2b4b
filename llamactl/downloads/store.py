"""Jobs in the database: what outlives the process."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from llamactl.database import Database
from llamactl.downloads.states import Job

_COLUMNS = tuple(field.name for field in fields(Job))
_UPSERT = (
    f"INSERT OR REPLACE INTO jobs ({', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join('?' for _ in _COLUMNS)})"
)


class JobStore:
    """Durable once a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> list[Job]:
        """Every job, in the order of the queue."""
        rows = self._database.read(f"SELECT {', '.join(_COLUMNS)} FROM jobs ORDER BY position, id")
        return [_job(dict(row)) for row in rows]

    def save(self, *jobs: Job) -> None:
        """Store the jobs as they are now, all of them or none."""
        with self._database.write() as cursor:
            cursor.executemany(
                _UPSERT, [tuple(getattr(job, name) for name in _COLUMNS) for job in jobs]
            )

    def delete(self, *job_ids: str) -> None:
        """Forget the jobs."""
        with self._database.write() as cursor:
            cursor.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in job_ids])


def _job(row: dict[str, Any]) -> Job:
    return Job(**row)
