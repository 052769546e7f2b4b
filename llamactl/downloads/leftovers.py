"""What a job has on the disk, and what of it goes when the job does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from llamactl.downloads.partfile import remove_partial
from llamactl.downloads.plan import Plan
from llamactl.downloads.states import FINISHED, Job
from llamactl.errors import LlamactlError
from llamactl.models.cache import ModelCache
from llamactl.models.hubfile import HubFile

log = logging.getLogger(__name__)


def plan_of(job: Job) -> Plan | None:
    """The plan of a download, once it has one."""
    if job.kind != "download" or job.plan is None:
        return None
    return Plan.from_json(job.plan)


def files_of(job: Job) -> tuple[HubFile, ...]:
    """The files that a job was planned to fetch; none before the plan."""
    plan = plan_of(job)
    return () if plan is None else plan.selection.files


def is_about(job: Job, repo_id: str, tag: str | None) -> bool:
    """Whether a job is about this model, under the tag that was asked for or the one it found."""
    if job.repo_id != repo_id:
        return False
    plan = plan_of(job)
    tags = {job.tag.casefold()} | ({plan.selection.tag.casefold()} if plan else set())
    return tag is None or not job.tag or tag.casefold() in tags


def over(jobs: Iterable[Job], holds: Callable[[Job], bool]) -> tuple[list[Job], int]:
    """The jobs that are only there to be read, and how many more have ended.

    Those are the failed downloads that can go on from bytes on the disk, as ``holds`` tells, where
    no later one brought the model. ``jobs`` are newest first.
    """
    gone, kept = [], 0
    brought: set[tuple[str, str]] = set()
    for job in jobs:
        what = job.repo_id, job.tag.casefold()
        if job.status == "failed" and what not in brought and holds(job):
            kept += 1
        elif job.status in FINISHED:
            gone.append(job)
        if job.status == "completed" and job.kind == "download":
            brought.add(what)
    return gone, kept


def remove_leftovers(job: Job, going_on: Iterable[Job], cache: ModelCache) -> None:
    """Remove what an unfinished job fetched, but for what others go on with, or can."""
    if job.status == "completed":
        return
    wanted = {file.oid for other in going_on for file in files_of(other)}
    files = [file for file in files_of(job) if file.oid not in wanted]
    try:
        for file in files:
            remove_partial(cache.partial_path(job.repo_id, file.oid))
        cache.discard(job.repo_id, files)
    except LlamactlError as error:
        log.warning("something of a download stays behind: %s", error)
