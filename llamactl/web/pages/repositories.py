"""The page of one repository, the search for one on the hub, and what has changed there."""

from __future__ import annotations

import time

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from llamactl.downloads.snapshots import job_json
from llamactl.downloads.updates import find_updates
from llamactl.errors import LlamactlError
from llamactl.models.fit import Load
from llamactl.models.reference import ModelRef
from llamactl.web import services
from llamactl.web.actions import check_repo
from llamactl.web.errors import status_of
from llamactl.web.job_views import JobView, job_view
from llamactl.web.memory_view import chosen_context, context_view
from llamactl.web.repository_view import (
    HitView,
    OfferView,
    UpdateView,
    cached_tag_view,
    hit_view,
    offer_views,
    update_view,
)

blueprint = Blueprint("repositories", __name__)


@blueprint.get("/models/<org>/<name>")
def show(org: str, name: str) -> Response:
    """Show what is cached of a repository; with ``?offers=1`` what the hub offers too.

    The memory that is shown is for a context of ``?ctx_size=`` tokens.
    """
    repo_id = ModelRef.parse(f"{org}/{name}").repo_id
    load = Load(chosen_context(request.args.get("ctx_size")))
    machine = services().supervisor.machine()
    cached = [model for model in services().cache.list() if model.ref.repo_id == repo_id]
    offers: tuple[OfferView, ...] | None = None
    error: LlamactlError | None = None
    refused: LlamactlError | None = None
    if request.args.get("offers"):
        try:
            found = services().offers.of(repo_id, load, machine)
            offers, refused = offer_views(found), found.refused
        except LlamactlError as failure:
            error = failure
    now = time.time()
    page = render_template(
        "models/repository.html",
        repo_id=repo_id,
        address=url_for("pages.repositories.show", org=org, name=name),
        hub_page=f"{services().config.hub.endpoint}/{repo_id}",
        cached=[cached_tag_view(model, load, machine, now) for model in cached],
        offers=offers,
        jobs=_jobs_under_way(repo_id, now),
        refused=refused,
        # Without a script a button asks; offline nothing does, unless a person wants to know.
        asks=not services().config.hub.offline,
        context=context_view(load.ctx_size, machine),
        error=error,
    )
    return Response(page, status=status_of(error) if error else 200, mimetype="text/html")


def _jobs_under_way(repo_id: str, now: float) -> dict[str, JobView]:
    """The downloads of this repository that are not over, by the tag in lower case."""
    under_way = ("queued", "downloading", "paused")
    found = services().downloads.jobs(
        lambda jobs: [
            job
            for job in jobs
            if (job.repo_id, job.kind) == (repo_id, "download") and job.status in under_way
        ]
    )
    views = [job_view(job_json(each), now) for each in found]
    return {each.tag.lower(): each for each in views}


@blueprint.post("/models/verify")
def verify() -> AnyResponse:
    """Hash the files of a cached model anew, and mend them if asked; on to the job's page."""
    repo, tag = request.form.get("repo", ""), request.form.get("tag") or None
    check_repo(repo, tag)
    repair = request.form.get("repair") == "1"
    job = services().downloads.verify(repo, tag, repair=repair).job
    return redirect(url_for("pages.downloads.show", job_id=job.id), 303)


@blueprint.get("/models/updates")
def updates() -> Response:
    """Show the cached models of which the hub has newer files."""
    found: list[UpdateView] = []
    error: LlamactlError | None = None
    try:
        found = [update_view(each) for each in find_updates(services().hub, services().cache)]
    except LlamactlError as failure:
        error = failure
    cached = bool(services().cache.list())
    page = render_template("models/updates.html", updates=found, cached=cached, error=error)
    return Response(page, status=status_of(error) if error else 200, mimetype="text/html")


@blueprint.get("/models/search")
def search() -> Response:
    """Show the repositories with GGUF files whose names hold the text of ``?q=``."""
    text = request.args.get("q", "").strip()
    hits: list[HitView] = []
    error: LlamactlError | None = None
    if text:
        try:
            now = time.time()
            hits = [hit_view(hit, now) for hit in services().hub.search(text)]
        except LlamactlError as failure:
            error = failure
    page = render_template("models/search.html", text=text, hits=hits, error=error)
    return Response(page, status=status_of(error) if error else 200, mimetype="text/html")
