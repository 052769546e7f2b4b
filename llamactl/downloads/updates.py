"""Whether the hub has newer bytes for what is cached."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypedDict

from llamactl.downloads.plan import Plan, make_plan
from llamactl.errors import (
    BadMetadata,
    DisabledRepo,
    EntryNotFound,
    GatedRepo,
    IncompleteSet,
    NoSuchTag,
    RepoNotFound,
    Unauthorized,
)
from llamactl.hub.client import HubClient
from llamactl.models import digest
from llamactl.models.cache import ModelCache
from llamactl.models.hubfile import HubFile
from llamactl.models.hubscan import read_ref
from llamactl.models.snapshots import CachedFile, CachedModel

log = logging.getLogger(__name__)

#: Models that are asked about side by side.
_AT_A_TIME = 6
_OF_ONE_REPOSITORY = (
    BadMetadata,
    DisabledRepo,
    EntryNotFound,
    GatedRepo,
    IncompleteSet,
    NoSuchTag,
    RepoNotFound,
    Unauthorized,
)


@dataclass(frozen=True)
class Update:
    """A cached model of which the hub's main has other files by now; ``changed`` names them."""

    repo_id: str
    tag: str
    cached_commit: str | None
    hub_commit: str
    changed: tuple[str, ...]


class UpdateJson(TypedDict):
    """A cached tag of which the hub has newer files; `changed` names them."""

    repo: str
    tag: str
    cached_commit: str | None
    hub_commit: str
    changed: list[str]


def update_json(update: Update) -> UpdateJson:
    """The update as the REST interface shows it."""
    return {
        "repo": update.repo_id,
        "tag": update.tag,
        "cached_commit": update.cached_commit,
        "hub_commit": update.hub_commit,
        "changed": list(update.changed),
    }


def find_updates(
    hub: HubClient,
    cache: ModelCache,
    repo_id: str | None = None,
    halt: threading.Event | None = None,
) -> list[Update]:
    """What a download of the cached models would fetch today.

    Of one repository, raising what the hub raises; or of all, where those that the hub does not
    have any more, or does not show, are left out. Raises what keeps the hub as a whole from
    answering in both cases.
    """
    waiting = threading.Event() if halt is None else halt
    models = [m for m in cache.list() if repo_id is None or m.ref.repo_id == repo_id]

    def update_of(model: CachedModel) -> Update | None:
        try:
            return _update_of(hub, cache, model, waiting)
        except _OF_ONE_REPOSITORY as error:
            if repo_id is not None:
                raise
            log.info("%s: no word of updates: %s", model.ref, error)
            return None

    with ThreadPoolExecutor(_AT_A_TIME, "download-updates") as pool:
        asked = [pool.submit(update_of, model) for model in models]
        try:
            found = [each.result() for each in asked]
        except BaseException:
            # The others would only meet the same silence, one after the other.
            waiting.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [update for update in found if update is not None]


def _update_of(
    hub: HubClient, cache: ModelCache, model: CachedModel, halt: threading.Event
) -> Update | None:
    plan = make_plan(hub, model.ref, halt)
    changed = tuple(_changed(model, plan))
    if not changed:
        return None
    commit = read_ref(cache.hub.ref(model.ref.repo_id))
    return Update(model.ref.repo_id, model.ref.tag, commit, plan.commit, changed)


def _changed(model: CachedModel, plan: Plan) -> Iterator[str]:
    cached = {file.name: file for file in model.files}
    for file in plan.selection.files:
        have = cached.get(file.filename)
        if have is None or not _is_same(have, file):
            yield file.filename


def _is_same(have: CachedFile, file: HubFile) -> bool:
    if have.size != file.size:
        return False
    if have.sha256 is not None and file.sha256 is not None:
        return have.sha256 == file.sha256
    if file.sha256 is not None:
        return True
    # Small files have a digest of git's kind, which costs nothing to compute.
    try:
        return digest.matches(have.path, file.oid)
    except OSError:
        return False
