"""What limits all downloads together: the configuration's word, until somebody says another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from llamactl.database import Database


@dataclass(frozen=True)
class Limits:
    """``max_concurrent`` jobs at a time; ``bandwidth_limit`` bytes per second for all, or None."""

    max_concurrent: int
    bandwidth_limit: int | None


class LimitsJson(TypedDict):
    """`bandwidth_limit` is bytes per second for all downloads together, null for none."""

    bandwidth_limit: int | None
    max_concurrent: int


class DownloadSettingsJson(LimitsJson):
    """What limits all downloads, and what the configuration says.

    `changed`: a PUT set them, and they hold over restarts, until a DELETE.
    """

    changed: bool
    configured: LimitsJson


def limits_json(limits: Limits) -> LimitsJson:
    """The limits as the REST interface shows and takes them."""
    return {"bandwidth_limit": limits.bandwidth_limit, "max_concurrent": limits.max_concurrent}


def settings_json(limits: Limits, configured: Limits, *, changed: bool) -> DownloadSettingsJson:
    """The limits that hold, whose they are, and which ones the configuration has."""
    return {**limits_json(limits), "changed": changed, "configured": limits_json(configured)}


class LimitStore:
    """The limits that were set while llamactl ran. Durable once a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> Limits | None:
        """What was set; None while the configuration holds."""
        rows = self._database.read("SELECT max_concurrent, bandwidth_limit FROM download_limits")
        return Limits(*rows[0]) if rows else None

    def save(self, limits: Limits | None) -> None:
        """Keep these; with None the configuration holds again."""
        with self._database.write() as cursor:
            cursor.execute("DELETE FROM download_limits")
            if limits is not None:
                cursor.execute(
                    "INSERT INTO download_limits VALUES (?, ?)",
                    (limits.max_concurrent, limits.bandwidth_limit),
                )
