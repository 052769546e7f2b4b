"""The page of models: download one, watch it come, see what is cached, delete."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from llamactl.downloads.snapshots import job_json
from llamactl.downloads.states import Job
from llamactl.errors import CacheNotWritable, LlamactlError, ModelInUse, ModelNotFound
from llamactl.models.reference import ModelRef
from llamactl.models.snapshots import CachedModel, cached_model_json
from llamactl.web import services
from llamactl.web.actions import delete_cached
from llamactl.web.errors import status_of
from llamactl.web.job_views import JobsView, current_jobs, job_view
from llamactl.web.pages.fields import Field
from llamactl.web.pages.live import RESTING_SECONDS, Part, render_page
from llamactl.web.views import cached_models_view, deletion_view

blueprint = Blueprint("models", __name__)

#: Up to so many are found without a filter.
FEW_MODELS = 8
#: The others are on the page of downloads.
MOST_JOBS = 30


@blueprint.get("/")
def home() -> AnyResponse:
    """The models are the home page."""
    return redirect(url_for("pages.models.index"))


@blueprint.get("/models")
def index() -> Response:
    """Show the downloads that run and the cached models; with ``?form=download`` the form too."""
    if request.args.get("form") == "download":
        return _page(_reference_field(request.args.get("repo", "")))
    return _page(None)


@blueprint.get("/models/download")
def download_form() -> AnyResponse:
    """Lead whoever reloads the address of a refused form back to the form."""
    return redirect(url_for("pages.models.index", form="download"))


@blueprint.post("/models/download")
def download() -> AnyResponse:
    """Submit a download, or show the form again with what is wrong."""
    typed = request.form.get("repo", "")
    try:
        services().downloads.submit(ModelRef.parse(typed.strip()))
    except LlamactlError as error:
        return _page(_reference_field(typed, error.details), status_of(error))
    return redirect(url_for("pages.models.index"), 303)


@blueprint.get("/models/delete")
def confirm_delete() -> str:
    """Ask whether the files of one cached tag may go."""
    return _confirmation(request.args.get("repo", ""), request.args.get("tag", ""), None)


@blueprint.post("/models/delete")
def delete() -> AnyResponse:
    """Delete one cached tag."""
    repo, tag = request.form.get("repo", ""), request.form.get("tag", "")
    try:
        delete_cached(repo, tag)
    except (ModelInUse, CacheNotWritable) as error:
        page = _confirmation(repo, tag, error)
        return Response(page, status=status_of(error), mimetype="text/html")
    return redirect(url_for("pages.models.index"), 303)


def _page(form: Field | None, status: int = 200) -> Response:
    words = request.args.get("q", "")
    listed = functools.cache(services().cache.list)

    def filtered() -> bool:
        """Whether the page has the filter; of one that asks for a part, what it sends says so."""
        if "part" in request.args:
            return "q" in request.args
        return form is None and (bool(words) or len(listed()) > FEW_MODELS)

    return render_page(
        "models/index.html",
        url_for("pages.models.index"),
        {"jobs": _jobs, "cached": lambda: _cached(listed(), words, filtered())},
        reload=form is None,
        status=status,
        form=form,
        words=words,
        filtered=filtered,
    )


def _jobs() -> Part:
    now, more = time.time(), 0

    def choose(jobs: Sequence[Job]) -> Sequence[Job]:
        nonlocal more
        current = current_jobs(jobs, now)
        more = max(0, len(current) - MOST_JOBS)
        return current[:MOST_JOBS]

    shown = services().downloads.jobs(choose)
    view = JobsView(tuple(job_view(job_json(each), now) for each in shown), more)
    return Part("models/_jobs.html", view, view.moving)


def _cached(models: Sequence[CachedModel], words: str, filtered: bool) -> Part:
    """Those of the models whose names hold all the words."""
    wanted = words.casefold().split()
    shown = [
        cached_model_json(model)
        for model in models
        if all(word in str(model.ref).casefold() for word in wanted)
    ]
    where = str(services().config.llama_cpp.cache_dir)
    view = cached_models_view(shown, where, time.time(), len(models))
    # A long list takes longer to draw, and is looked through rather than watched.
    resting = RESTING_SECONDS + len(shown) // 50
    fed_by = "#filter" if filtered else ""
    return Part("models/_cached.html", view, resting_seconds=resting, fed_by=fed_by)


def _confirmation(repo: str, tag: str, error: LlamactlError | None) -> str:
    for model in services().cache.list():
        if (model.ref.repo_id, model.ref.tag) == (repo, tag):
            going = services().cache.leaving(repo, tag)
            view = deletion_view(cached_model_json(model), going, time.time())
            return render_template("models/delete.html", view=view, model=view.model, error=error)
    raise ModelNotFound(f"{repo}:{tag} is not cached")


def _reference_field(typed: str, wrong: str = "") -> Field:
    return Field(
        "repo",
        "Model",
        value=typed,
        wrong=wrong,
        help="org/model-name:tag. Without a tag, latest is used.",
        placeholder="bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M",
        required=True,
        autofocus=True,
    )
