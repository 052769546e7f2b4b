"""What pages show of models, jobs and keys: a dataclass each, whose fields are the page's contract.

They are made from the forms that the REST interface answers with, so that a page and a script are
told the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamactl.access.keys import KeyRecord
from llamactl.web.texts import ago_text, duration_text, moment_text, sentence_start, size_text

Json = Mapping[str, Any]
#: A verb of a page's address, the label of its button, the button's class.
Button = tuple[str, str, str]

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
    """One job. ``fraction`` is in thousandths, None while the size is not known."""

    id: str
    kind: str
    kind_label: str
    repo: str
    tag: str
    reference: str
    status: str
    label: str
    tone: str
    said: str
    shows_progress: bool
    fraction: int | None
    percent: str
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
    buttons: tuple[Button, ...]

    @property
    def moving(self) -> bool:
        """Whether this will look different in a moment."""
        return self.status in {"queued", "downloading"}


@dataclass(frozen=True)
class JobsView:
    jobs: tuple[JobView, ...]

    @property
    def moving(self) -> bool:
        return any(job.moving for job in self.jobs)


@dataclass(frozen=True)
class Moment:
    """A time as a page shows it: how long ago, in full, and for programs."""

    ago: str
    full: str
    iso: str


@dataclass(frozen=True)
class CachedFileView:
    name: str
    path: str
    size: str
    type: str


@dataclass(frozen=True)
class CachedModelView:
    """One cached tag; its GGUF comes first among ``files``. ``anchor`` is its id on the page."""

    repo: str
    tag: str
    reference: str
    anchor: str
    org: str
    name: str
    instance_name: str
    complete: bool
    can_run: bool
    size: str
    file_count: int
    changed: Moment | None
    files: tuple[CachedFileView, ...]


@dataclass(frozen=True)
class CachedModelsView:
    models: tuple[CachedModelView, ...]
    summary: str
    cache_dir: str


@dataclass(frozen=True)
class KeyView:
    id: int
    name: str
    begins: str
    may_use: str
    expires: str
    expired: bool
    last_used: str
    requests: str
    tokens: str


def job_view(job: Json, now: float) -> JobView:
    """``job`` as the REST interface shows it, at unix seconds ``now``."""
    progress = job["progress"]
    done, total = progress["bytes_downloaded"], progress["total_bytes"]
    status, detail = job["status"], job.get("detail")
    reference = f"{job['repo']}:{job['tag']}"
    verifying = detail == "verifying"
    return JobView(
        id=job["id"],
        kind=job["kind"],
        kind_label="Verification" if job["kind"] == "verify" else "Download",
        repo=job["repo"],
        tag=job["tag"],
        reference=reference,
        status=status,
        label=f"{status}, {detail.replace('_', ' ')}" if detail else status,
        tone="warn" if detail and not verifying else JOB_TONES.get(status, ""),
        said=_said(detail, job.get("retry_at"), now),
        shows_progress=status not in {"completed", "cancelled"} and bool(total or done),
        fraction=min(1000, done * 1000 // total) if total else None,
        percent=f"{min(100, done * 100 // total)} %" if total else "",
        downloaded=size_text(done),
        total=size_text(total) if total else "",
        speed=f"{size_text(progress['bytes_per_second'])}/s"
        if progress.get("bytes_per_second")
        else "",
        eta=_eta(progress.get("eta_seconds")),
        current_file=progress.get("current_file") or "",
        files=tuple(_file_progress(file) for file in progress.get("files") or ()),
        error=sentence_start(job.get("error") or ""),
        model_path=job.get("model_path") or "",
        commit_hash=job.get("commit_hash") or "",
        created=moment_text(job["created_at"]),
        completed=moment_text(job["completed_at"]) if job.get("completed_at") else "",
        buttons=JOB_BUTTONS.get(status, ()),
    )


def current_jobs(jobs: Sequence[Json], now: float) -> JobsView:
    """The jobs that the page of models shows: those not done, those failed, those just ended."""
    shown = [
        job_view(job, now)
        for job in jobs
        if job["status"] not in {"completed", "cancelled"}
        or now - (job.get("completed_at") or 0) < RECENT_SECONDS
    ]
    return JobsView(tuple(shown))


def limits_text(max_concurrent: int, bandwidth_limit: int | None) -> str:
    """What limits the downloads, as a sentence."""
    speed = f"{size_text(bandwidth_limit)}/s together" if bandwidth_limit else "no speed limit"
    return f"{max_concurrent} at a time, {speed}"


def cached_models_view(models: Sequence[Json], cache_dir: str, now: float) -> CachedModelsView:
    """The cached models by name."""
    shown = [
        cached_model_view(model, now)
        for model in sorted(models, key=lambda model: (model["repo"].lower(), model["tag"].lower()))
    ]
    # Tags may share files: what lies on the disk is counted once.
    sizes = {file["path"]: file["size"] for model in models for file in model["files"]}
    count = f"{len(shown)} model" + ("" if len(shown) == 1 else "s")
    return CachedModelsView(tuple(shown), f"{count}, {size_text(sum(sizes.values()))}", cache_dir)


def cached_model_view(model: Json, now: float) -> CachedModelView:
    files = sorted(model["files"], key=lambda file: file.get("type") != "gguf")
    reference = f"{model['repo']}:{model['tag']}"
    newest = max((file["modified"] for file in files), default=0)
    complete = bool(model.get("complete", True))
    return CachedModelView(
        repo=model["repo"],
        tag=model["tag"],
        reference=reference,
        anchor="model-" + hashlib.sha256(reference.encode("utf-8", "replace")).hexdigest()[:12],
        org=model["repo"].partition("/")[0],
        name=model["repo"].partition("/")[2],
        instance_name=instance_name_for(model["repo"], model["tag"]),
        complete=complete,
        can_run=complete and any(file.get("type") == "gguf" for file in files),
        size=size_text(model["total_size"]),
        file_count=model["file_count"],
        changed=_moment(newest, now) if newest else None,
        files=tuple(
            CachedFileView(
                file["name"], file["path"], size_text(file["size"]), file.get("type", "gguf")
            )
            for file in files
        ),
    )


def key_view(key: KeyRecord, instance_names: Mapping[int, str], now: float) -> KeyView:
    """An inference key; ids of instances that are gone are counted, not named."""
    return KeyView(
        id=key.id,
        name=key.name,
        begins=f"llc_{key.public_id[:8]}",
        may_use=_may_use(key, instance_names),
        expires=moment_text(key.expires_at) if key.expires_at else "never",
        expired=key.expires_at is not None and key.expires_at <= now,
        last_used=ago_text(key.last_used_at, now) if key.last_used_at else "never",
        requests=f"{key.requests:,}",
        tokens=f"{key.tokens:,}",
    )


def instance_name_for(repo: str, tag: str) -> str:
    """A name that an instance of this model could have: ``llama-3.2-3b-instruct-q4_k_m``."""
    stem = re.sub(r"[-_.]gguf$", "", repo.rpartition("/")[2], flags=re.IGNORECASE)
    words = stem if tag == "latest" else f"{stem}-{tag}"
    return re.sub(r"[^a-z0-9._-]+", "-", words.lower()).strip("-._")[:50].rstrip("-._")


def _may_use(key: KeyRecord, instance_names: Mapping[int, str]) -> str:
    if key.permission_mode == "allow_all":
        return "all instances"
    names = sorted(instance_names[id_] for id_ in key.instance_ids if id_ in instance_names)
    gone = len(key.instance_ids) - len(names)
    return ", ".join(names + ([f"{gone} that no longer exist"] if gone else []))


def _said(detail: str | None, retry_at: float | None, now: float) -> str:
    said = DETAILS.get(detail or "", "")
    if said and retry_at and retry_at > now:
        said += f" The next try is in {duration_text(retry_at - now)}."
    return said


def _eta(seconds: float | None) -> str:
    return duration_text(seconds) if seconds is not None else ""


def _file_progress(file: Json) -> FileProgressView:
    size, done = file["size"], file["bytes_downloaded"]
    percent = f"{min(100, done * 100 // size)} %" if size else ""
    return FileProgressView(
        file["name"], str(file["status"]), size_text(done), size_text(size), percent
    )


def _moment(moment: float, now: float) -> Moment:
    full = moment_text(moment)
    return Moment(ago_text(moment, now), full, full.replace(" ", "T"))
