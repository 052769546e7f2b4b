"""Following a job: what is shown, in which order."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from llamactl.cli import jobs


class Display:
    def __init__(self, events: list[str]) -> None:
        self._events = events

    def update(self, job: Any) -> None:
        self._events.append(job["status"])

    def close(self) -> None:
        self._events.append("close")


class Work:
    """A job that warns of something once, in the middle."""

    def job(self, _job_id: str) -> Any:
        return {"status": "downloading"}

    def wait(self, _job_id: str) -> Any:
        logging.getLogger("llamactl.downloads.transfer").warning("%s: wrong digest", "x.gguf")
        return {"status": "completed"}


def test_a_warning_is_said_between_two_pictures_and_not_into_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    monkeypatch.setattr(jobs, "say", events.append)
    work: Any = Work()
    assert jobs.follow(work, "id", Display(events))["status"] == "completed"
    assert events == ["downloading", "close", "x.gguf: wrong digest", "completed", "close"]
