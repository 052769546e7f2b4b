"""What a job has on the disk, and what of it goes when the job does."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from llamactl.downloads.partfile import remove_partial
from llamactl.downloads.plan import Plan
from llamactl.downloads.states import Job
from llamactl.errors import LlamactlError
from llamactl.models.cache import ModelCache
from llamactl.models.hubfile import HubFile

log = logging.getLogger(__name__)


def files_of(job: Job) -> tuple[HubFile, ...]:
    """The files that a job was planned to fetch; none before the plan."""
    return () if job.plan is None else Plan.from_json(job.plan).selection.files


def is_about(job: Job, repo_id: str, tag: str | None) -> bool:
    """Whether a job fetches this model, under the tag that was asked for or the one it found."""
    if job.repo_id != repo_id:
        return False
    tags = {job.tag.casefold()}
    if job.plan is not None:
        tags.add(Plan.from_json(job.plan).selection.tag.casefold())
    return tag is None or tag.casefold() in tags


def remove_leftovers(job: Job, active: Iterable[Job], cache: ModelCache) -> None:
    """Remove what an unfinished job fetched, but for what an active one goes on with."""
    if job.status == "completed":
        return
    wanted = {file.oid for other in active for file in files_of(other)}
    files = [file for file in files_of(job) if file.oid not in wanted]
    try:
        for file in files:
            remove_partial(cache.partial_path(job.repo_id, file.oid))
        cache.discard(job.repo_id, files)
    except LlamactlError as error:
        log.warning("something of a download stays behind: %s", error)
