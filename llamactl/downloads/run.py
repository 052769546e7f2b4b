"""A job's thread: one piece of work, and the event that its end means for the job."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from llamactl.downloads.progress import Progress
from llamactl.downloads.states import JobEvent
from llamactl.errors import Interrupted, LlamactlError

log = logging.getLogger(__name__)

Ended = Callable[["Run", JobEvent, dict[str, Any]], None]


class Work(Protocol):
    """What a run does: a download's attempt, or a checkup."""

    discard: bool

    def run(self) -> Path | None: ...

    def progress(self) -> Progress: ...


class Run:
    """``intent`` is what an interruption means; without a request to stop it is ``requeue``."""

    def __init__(self, job_id: str, work: Work, halt: threading.Event, ended: Ended) -> None:
        """``ended`` is told, in the run's own thread, the event and the job's changes."""
        self.work = work
        self.intent: JobEvent = "requeue"
        self._halt = halt
        self._ended = ended
        # Explicit, since a thread inherits the trait: whatever hangs, a process can end without
        # it, and loses nothing that the sidecars do not have.
        self.thread = threading.Thread(target=self._main, name=f"download {job_id}", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self, intent: JobEvent) -> None:
        """Let the run end soon; it will say so with ``intent``, if nothing else ends it first.

        A server that stops does not take back what a person asked for a moment before.
        """
        if intent == "requeue" and self._halt.is_set():
            return
        self.intent = intent
        self.work.discard = intent == "cancel"
        self._halt.set()

    def _main(self) -> None:
        event, changes = self._outcome()
        self._ended(self, event, changes)

    def _outcome(self) -> tuple[JobEvent, dict[str, Any]]:
        try:
            path = self.work.run()
        except Interrupted:
            return self.intent, end_of(self.intent)
        except LlamactlError as error:
            return "fail", {**end_of("fail"), "error_code": error.code, "error": error.details}
        except Exception as error:
            log.exception("a job failed unexpectedly")
            reason = f"The job failed unexpectedly: {type(error).__name__}"
            return "fail", {**end_of("fail"), "error_code": "internal_error", "error": reason}
        return "complete", {**end_of("complete"), "model_path": None if path is None else str(path)}


def end_of(event: JobEvent) -> dict[str, Any]:
    """What every job that ends by ``event`` notes."""
    return {} if event in ("pause", "requeue") else {"completed_at": time.time()}
