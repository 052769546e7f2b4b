"""Downloads: the jobs that fetch models, and what limits them all."""

from __future__ import annotations

from typing import TypedDict

from flask import Blueprint, Response

from llamactl.downloads.limits import DownloadSettingsJson, Limits, limits_json, settings_json
from llamactl.downloads.snapshots import JobJson, job_json
from llamactl.models.reference import ModelRef
from llamactl.web import services
from llamactl.web.answers import empty_answer, json_answer
from llamactl.web.api.routing import route
from llamactl.web.forms import DownloadRequest, DownloadSettings

blueprint = Blueprint("downloads", __name__)


class SubmittedJson(TypedDict):
    """The job that a download became."""

    job_id: str
    repo: str
    tag: str


class JobsJson(TypedDict):
    """All jobs, newest first."""

    jobs: list[JobJson]


class ClearedJson(TypedDict):
    """How many jobs left the list; `kept` failed downloads stay, which can go on."""

    removed: int
    kept: int


@route(
    blueprint,
    "POST",
    "/download",
    body=DownloadRequest,
    gives=SubmittedJson,
    answers={202: "The job that downloads it, new or already there", 400: "Not org/name[:tag]"},
)
def start_download(body: DownloadRequest) -> Response:
    """Download a model, or go on with the job that already does."""
    job = services().downloads.submit(ModelRef.parse(body.repo)).job
    submitted: SubmittedJson = {"job_id": job.id, "repo": job.repo_id, "tag": job.tag}
    return json_answer(submitted, 202)


@route(blueprint, "GET", "/jobs", gives=JobsJson, answers={200: "All jobs"})
def list_jobs() -> Response:
    """Show all jobs, newest first."""
    listed: JobsJson = {"jobs": [job_json(job) for job in services().downloads.jobs()]}
    return json_answer(listed)


@route(blueprint, "DELETE", "/jobs", gives=ClearedJson, answers={200: "How many went"})
def clear_jobs() -> Response:
    """Take what has ended off the list, but for failed downloads that have bytes on the disk."""
    removed, kept = services().downloads.clear()
    cleared: ClearedJson = {"removed": removed, "kept": kept}
    return json_answer(cleared)


@route(
    blueprint, "GET", "/jobs/<job_id>", gives=JobJson, answers={200: "The job", 404: "No such job"}
)
def show_job(job_id: str) -> Response:
    """Show one job with its progress."""
    return json_answer(job_json(services().downloads.job(job_id)))


@route(
    blueprint,
    "POST",
    "/jobs/<job_id>/pause",
    gives=JobJson,
    answers={200: "The job", 404: "No such job", 409: "Not in its state"},
)
def pause_job(job_id: str) -> Response:
    """Pause a job; what it has downloaded stays."""
    return json_answer(job_json(services().downloads.pause(job_id)))


@route(
    blueprint,
    "POST",
    "/jobs/<job_id>/resume",
    gives=JobJson,
    answers={200: "The job", 404: "No such job", 409: "Not in its state"},
)
def resume_job(job_id: str) -> Response:
    """Go on with a paused job."""
    return json_answer(job_json(services().downloads.resume(job_id)))


@route(
    blueprint,
    "POST",
    "/jobs/<job_id>/retry",
    gives=JobJson,
    answers={200: "The job", 404: "No such job", 409: "Not in its state"},
)
def retry_job(job_id: str) -> Response:
    """Try a failed job again, from the bytes on disk."""
    return json_answer(job_json(services().downloads.retry(job_id)))


@route(
    blueprint,
    "DELETE",
    "/jobs/<job_id>",
    answers={204: "Cancelled, or removed", 404: "No such job"},
)
def delete_job(job_id: str) -> Response:
    """Cancel a job that is not done, remove one that is."""
    services().downloads.delete(job_id)
    return empty_answer()


@route(blueprint, "GET", "/settings", gives=DownloadSettingsJson, answers={200: "The settings"})
def show_settings() -> Response:
    """Show what limits the downloads."""
    return _settings()


@route(
    blueprint,
    "PUT",
    "/settings",
    body=DownloadSettings,
    current=lambda: limits_json(services().downloads.limits),
    gives=DownloadSettingsJson,
    answers={200: "The settings as they are now"},
)
def change_settings(body: DownloadSettings) -> Response:
    """Change what limits the downloads, at once and over restarts, until it is deleted."""
    services().downloads.set_limits(Limits(body.max_concurrent, body.bandwidth_limit))
    return _settings()


@route(
    blueprint,
    "DELETE",
    "/settings",
    gives=DownloadSettingsJson,
    answers={200: "The settings as the configuration has them"},
)
def forget_settings() -> Response:
    """Return to the limits that the configuration has."""
    services().downloads.set_limits(None)
    return _settings()


def _settings() -> Response:
    queue = services().downloads
    return json_answer(settings_json(queue.limits, queue.configured, changed=queue.limits_are_set))
