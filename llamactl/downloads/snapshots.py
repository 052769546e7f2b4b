"""A job as others see it: an immutable picture, and its JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict

from llamactl.downloads.progress import FileProgress, FileStatus, Progress
from llamactl.downloads.states import Job, JobKind, JobStatus


class FileProgressJson(TypedDict):
    """How far one file is; `bytes_downloaded` counts what is safely on disk."""

    name: str
    size: int
    bytes_downloaded: int
    status: FileStatus


class ProgressJson(TypedDict):
    """How far a job is. `total_bytes` is null until the plan is made."""

    bytes_downloaded: int
    total_bytes: int | None
    current_file: str | None
    bytes_per_second: int
    eta_seconds: float | None
    files: list[FileProgressJson]


class JobJson(TypedDict):
    """A download, or a verification. Times are unix seconds.

    `detail` is null, `stalled`, `rate_limited`, `retrying` or `verifying`.
    """

    id: str
    kind: JobKind
    repo: str
    tag: str | None
    status: JobStatus
    detail: str | None
    retry_at: int | None
    progress: ProgressJson
    error: str | None
    error_code: str | None
    created_at: int
    completed_at: int | None
    model_path: str | None


@dataclass(frozen=True)
class JobSnapshot:
    """The job and how far it is, at one moment."""

    job: Job
    progress: Progress


def job_json(snapshot: JobSnapshot) -> JobJson:
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
            "files": [_file_json(file) for file in progress.files],
        },
        "error": job.error,
        "error_code": job.error_code,
        "created_at": int(job.created_at),
        "completed_at": _whole(job.completed_at),
        "model_path": job.model_path,
    }


def _file_json(file: FileProgress) -> FileProgressJson:
    return {
        "name": file.name,
        "size": file.size,
        "bytes_downloaded": file.bytes_downloaded,
        "status": file.status,
    }


def _whole(seconds: float | None) -> int | None:
    """Rounded up, so that nobody who waits until then comes too early."""
    return None if seconds is None else math.ceil(seconds)
