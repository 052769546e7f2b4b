"""What pages show of download jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamactl.downloads.limits import Limits
from llamactl.downloads.states import Job
from llamactl.errors import sentence_start
from llamactl.sizes import size_text
from llamactl.web.texts import duration_text, moment_html
from llamactl.web.views import Button, Json, Moment, moment_view

#: How long a job that ended well stays on the page of models.
RECENT_SECONDS = 300.0
JOB_TONES = {
    "queued": "",
    "downloading": "busy",
    "paused": "warn",
    "completed": "good",
    "failed": "bad",
    "cancelled": "",
}
JOB_BUTTONS: Mapping[str, tuple[Button, ...]] = {
    "queued": (("pause", "Pause", ""), ("remove", "Cancel", "danger")),
    "downloading": (("pause", "Pause", ""), ("remove", "Cancel", "danger")),
    "paused": (("resume", "Resume", ""), ("remove", "Cancel", "danger")),
    "failed": (("retry", "Retry", ""), ("remove", "Remove", "danger")),
    "completed": (("remove", "Remove from the list", "quiet"),),
    "cancelled": (("remove", "Remove from the list", "quiet"),),
}
#: What a file that is not done is called while its job rests.
AT_REST = {"queued": "pending", "paused": "paused", "failed": "not done", "cancelled": "cancelled"}
DETAILS = {
    "stalled": "No byte has come for a while; it is being asked for anew.",
    "rate_limited": "The hub asks to wait.",
    "retrying": "The connection failed; it is tried again.",
    "verifying": "All bytes are here; their checksum is being verified.",
}


@dataclass(frozen=True)
class FileProgressView:
    name: str
    status: str
    downloaded: str
    size: str
    percent: str


@dataclass(frozen=True)
class JobView:
    """One job. ``fraction`` is in thousandths, None while the size is not known.

    ``org`` and ``name`` are the two parts of ``repo``.
    """

    id: str
    kind: str
    kind_label: str
    repo: str
    org: str
    name: str
    tag: str
    reference: str
    status: str
    label: str
    tone: str
    said: str
    shows_progress: bool
    fraction: int | None
    percent: str
    fetched: bool
    downloaded: str
    total: str
    speed: str
    eta: str
    current_file: str
    files: tuple[FileProgressView, ...]
    error: str
    model_path: str
    commit_hash: str
    created: str
    completed: str
    ended: Moment | None
    buttons: tuple[Button, ...]

    @property
    def moving(self) -> bool:
        """Whether this will look different in a moment."""
        return self.status in {"queued", "downloading"}

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and no byte on the disk waits for a retry."""
        if self.status == "failed":
            return self.kind == "verify" or not self.fetched
        return self.status in {"completed", "cancelled"}

    @property
    def repairable(self) -> bool:
        """Whether a repair of the same files is the thing to offer."""
        return self.kind == "verify" and self.status == "failed"


@dataclass(frozen=True)
class JobsView:
    """Some jobs, newest first; ``earlier`` and ``later`` lead to the pages of the others.

    ``more``: how many there are beyond those that are shown.
    """

    jobs: tuple[JobView, ...]
    more: int = 0
    later: str = ""
    earlier: str = ""

    @property
    def moving(self) -> bool:
        return any(job.moving for job in self.jobs)

    @property
    def clearable(self) -> bool:
        """Whether some of them are only there to be read."""
        return any(job.is_over for job in self.jobs)


def job_view(job: Json, now: float) -> JobView:
    """``job`` as the REST interface shows it, at unix seconds ``now``."""
    progress = job["progress"]
    done, total = progress["bytes_downloaded"], progress["total_bytes"]
    status, detail = job["status"], job.get("detail")
    reference = f"{job['repo']}:{job['tag']}" if job["tag"] else job["repo"]
    verifying = detail == "verifying"
    checks = job["kind"] == "verify"
    ended = job.get("completed_at")
    org, _, name = job["repo"].partition("/")
    # A check that failed has read everything; its bytes count what was found whole.
    without_progress = {"completed", "cancelled", *(("failed",) if checks else ())}
    return JobView(
        id=job["id"],
        kind=job["kind"],
        kind_label="Verification" if checks else "Download",
        repo=job["repo"],
        org=org,
        name=name,
        tag=job["tag"] or "",
        reference=reference,
        status=status,
        label=_label(status, detail, checks=checks),
        tone="warn" if detail and not verifying else JOB_TONES.get(status, ""),
        said="" if checks and verifying else _said(detail, job.get("retry_at"), now),
        shows_progress=status not in without_progress and bool(total or done),
        fraction=min(1000, done * 1000 // total) if total else None,
        percent=f"{min(100, done * 100 // total)} %" if total else "",
        fetched=done > 0,
        downloaded=size_text(done),
        total=size_text(total) if total else "",
        speed=f"{size_text(progress['bytes_per_second'])}/s"
        if progress.get("bytes_per_second")
        else "",
        eta=_eta(progress.get("eta_seconds")),
        current_file=progress.get("current_file") or "",
        files=tuple(_file_progress(file, status) for file in progress.get("files") or ()),
        error=sentence_start(job.get("error") or ""),
        model_path=job.get("model_path") or "",
        commit_hash=job.get("commit_hash") or "",
        created=moment_html(job["created_at"]),
        completed=moment_html(ended) if ended else "",
        ended=moment_view(ended, now) if ended else None,
        buttons=JOB_BUTTONS.get(status, ()),
    )


def current_jobs(jobs: Sequence[Job], now: float) -> list[Job]:
    """The jobs that the page of models shows: those not done, those failed, those just ended.

    ``jobs`` are newest first. A failure is not shown once a later job is about the same model.
    """
    shown = []
    later: set[tuple[str, str]] = set()
    for job in jobs:
        what = (job.repo_id, job.tag.casefold())
        recent = now - (job.completed_at or 0) < RECENT_SECONDS
        ended = job.status in {"completed", "cancelled"}
        if recent if ended else job.status != "failed" or what not in later:
            shown.append(job)
        later.add(what)
    return shown


def limits_text(limits: Limits) -> str:
    """What limits the downloads, as a sentence."""
    most = limits.bandwidth_limit
    speed = f"{size_text(most)}/s together" if most else "no speed limit"
    return f"{limits.max_concurrent} at a time, {speed}"


def _label(status: str, detail: str | None, *, checks: bool) -> str:
    if checks and status == "downloading":
        return "verifying" if detail == "verifying" else "repairing"
    return f"{status}, {detail.replace('_', ' ')}" if detail else status


def _said(detail: str | None, retry_at: float | None, now: float) -> str:
    said = DETAILS.get(detail or "", "")
    if said and retry_at and retry_at > now:
        said += f" The next try is in {duration_text(retry_at - now)}."
    return said


def _eta(seconds: float | None) -> str:
    return duration_text(seconds) if seconds is not None else ""


def _file_progress(file: Json, job_status: str) -> FileProgressView:
    size, done, status = file["size"], file["bytes_downloaded"], str(file["status"])
    percent = f"{min(100, done * 100 // size)} %" if size else ""
    if status in {"pending", "downloading", "verifying"}:
        # What was being done to it when its job came to rest is done no more.
        status = AT_REST.get(job_status, status)
    return FileProgressView(file["name"], status, size_text(done), size_text(size), percent)
