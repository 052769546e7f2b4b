"""A job as others see it: an immutable picture, and its JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from llamactl.downloads.progress import Progress
from llamactl.downloads.states import Job


@dataclass(frozen=True)
class JobSnapshot:
    """The job and how far it is, at one moment."""

    job: Job
    progress: Progress


def job_json(snapshot: JobSnapshot) -> dict[str, object]:
    """The job as the REST interface and ``llamactl download --json`` show it."""
    job, progress = snapshot.job, snapshot.progress
    eta = progress.eta_seconds
    return {
        "id": job.id,
        "kind": job.kind,
        "repo": job.repo_id,
        "tag": job.tag or None,
        "status": job.status,
        "detail": progress.detail,
        "retry_at": _whole(progress.retry_at),
        "progress": {
            "bytes_downloaded": progress.bytes_downloaded,
            "total_bytes": progress.total_bytes,
            "current_file": progress.current_file,
            "bytes_per_second": round(progress.bytes_per_second),
            "eta_seconds": None if eta is None else round(eta, 1),
            "files": [asdict(file) for file in progress.files],
        },
        "error": job.error,
        "error_code": job.error_code,
        "created_at": int(job.created_at),
        "completed_at": _whole(job.completed_at),
        "model_path": job.model_path,
    }


def _whole(seconds: float | None) -> int | None:
    """Rounded up, so that nobody who waits until then comes too early."""
    return None if seconds is None else math.ceil(seconds)
