"""The page of one repository, and the search for one on the hub."""

from __future__ import annotations

import time

from flask import Blueprint, Response, render_template, request

from llamactl.errors import LlamactlError
from llamactl.models.reference import ModelRef
from llamactl.models.selection import quants
from llamactl.web import services
from llamactl.web.errors import status_of
from llamactl.web.repository_view import (
    HitView,
    OfferView,
    cached_tag_view,
    hit_view,
    offer_views,
)

blueprint = Blueprint("repositories", __name__)


@blueprint.get("/models/<org>/<name>")
def show(org: str, name: str) -> Response:
    """Show what is cached of a repository; with ``?offers=1`` what the hub offers too."""
    repo_id = ModelRef.parse(f"{org}/{name}").repo_id
    cached = [model for model in services().cache.list() if model.ref.repo_id == repo_id]
    offers: tuple[OfferView, ...] | None = None
    error: LlamactlError | None = None
    if request.args.get("offers"):
        try:
            files = services().hub.tree(repo_id, services().hub.commit(repo_id))
            offers = offer_views(repo_id, quants(files), cached)
        except LlamactlError as failure:
            error = failure
    now = time.time()
    page = render_template(
        "models/repository.html",
        repo_id=repo_id,
        hub_page=f"{services().config.hub.endpoint}/{repo_id}",
        cached=[cached_tag_view(model, now) for model in cached],
        offers=offers,
        error=error,
    )
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
