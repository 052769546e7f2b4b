"""Whether the hub has newer bytes for what is cached."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypedDict, TypeVar

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

T = TypeVar("T")

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
    answering in both cases. A repository whose main did not move costs one request.
    """
    waiting = threading.Event() if halt is None else halt
    models = [m for m in cache.list() if repo_id is None or m.ref.repo_id == repo_id]
    repos = sorted({model.ref.repo_id for model in models})
    with ThreadPoolExecutor(_AT_A_TIME, "download-updates") as pool:

        def ask(questions: Sequence[Callable[[], T]]) -> list[T | None]:
            asked = [pool.submit(_answer, question, repo_id is None) for question in questions]
            try:
                return [each.result() for each in asked]
            except BaseException:
                # The others would only meet the same silence, one after the other.
                waiting.set()
                pool.shutdown(cancel_futures=True)
                raise

        answers = ask([partial(hub.commit, each, waiting) for each in repos])
        commits = dict(zip(repos, answers, strict=True))
        moved = [model for model in models if _may_be_old(cache, model, commits[model.ref.repo_id])]
        found = ask([partial(_update_of, hub, cache, model, waiting) for model in moved])
    return [update for update in found if update is not None]


def _answer(question: Callable[[], T], lenient: bool) -> T | None:
    try:
        return question()
    except _OF_ONE_REPOSITORY as error:
        if not lenient:
            raise
        log.info("no word of updates: %s", error)
        return None


def _may_be_old(cache: ModelCache, model: CachedModel, commit: str | None) -> bool:
    """Whether the model is anything else than what its repository has at this commit."""
    if commit is None:
        return False
    repo_id = model.ref.repo_id
    if not model.complete or read_ref(cache.hub.ref(repo_id)) != commit:
        return True
    snapshot = cache.hub.snapshot(repo_id, commit)
    try:
        # A preset has no place in a snapshot.
        return not all(
            (snapshot / file.name).samefile(file.path)
            for file in model.files
            if file.type != "preset"
        )
    except OSError:
        return True


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
        # What a model that is not whole lacks is missing here, not newer there.
        if model.complete if have is None else not _is_same(have, file):
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
