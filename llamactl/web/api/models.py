"""Cached models: what is there, whether it is right, and what the hub has."""

from __future__ import annotations

from typing import TypedDict

from flask import Blueprint, Response

from llamactl.downloads.offered import VariantsJson, offers_json
from llamactl.downloads.updates import UpdateJson, find_updates, update_json
from llamactl.hub.remote import SearchHitJson, search_hit_json
from llamactl.models.fit import Load
from llamactl.models.snapshots import ModelJson, cached_model_json
from llamactl.web import services
from llamactl.web.actions import check_repo, delete_cached
from llamactl.web.answers import empty_answer, json_answer
from llamactl.web.api.routing import route
from llamactl.web.forms import (
    CachedModelsQuery,
    SearchQuery,
    UpdatesQuery,
    VariantsQuery,
    VerifyQuery,
)

blueprint = Blueprint("models", __name__)


class VerificationJson(TypedDict):
    """The job that a verification became."""

    job_id: str


@route(blueprint, "GET", "", gives=list[ModelJson], answers={200: "All cached models"})
def list_models() -> Response:
    """Show the cached models, one entry a tag."""
    return json_answer([cached_model_json(model) for model in services().cache.list()])


@route(
    blueprint,
    "DELETE",
    "",
    query=CachedModelsQuery,
    answers={204: "Deleted", 404: "Not cached", 409: "A job or an instance uses it"},
)
def delete_models(query: CachedModelsQuery) -> Response:
    """Delete a cached tag, or every tag of a repository; files that others need stay."""
    delete_cached(query.repo, query.tag)
    return empty_answer()


@route(
    blueprint,
    "GET",
    "/variants",
    gives=VariantsJson,
    query=VariantsQuery,
    answers={
        200: "Its models, with their sizes and the memory that they take",
        404: "No such repository",
        502: "The hub did not answer",
    },
)
def list_variants(query: VariantsQuery) -> Response:
    """Show the quantisations that a repository offers, and which fit this machine."""
    check_repo(query.repo)
    machine = services().supervisor.machine()
    found = services().offers.of(query.repo, Load(query.ctx_size), machine)
    return json_answer(offers_json(found))


@route(
    blueprint,
    "GET",
    "/search",
    gives=list[SearchHitJson],
    query=SearchQuery,
    answers={200: "Repositories with GGUF files", 502: "The hub did not answer"},
)
def search(query: SearchQuery) -> Response:
    """Search the hub, the most downloaded first."""
    return json_answer([search_hit_json(hit) for hit in services().hub.search(query.q)])


@route(
    blueprint,
    "POST",
    "/verify",
    gives=VerificationJson,
    query=VerifyQuery,
    answers={202: "The job that checks them", 404: "Not cached"},
)
def verify(query: VerifyQuery) -> Response:
    """Hash cached files anew, and name or mend those that are damaged."""
    check_repo(query.repo, query.tag)
    snapshot = services().downloads.verify(query.repo, query.tag, repair=query.repair)
    submitted: VerificationJson = {"job_id": snapshot.job.id}
    return json_answer(submitted, 202)


@route(
    blueprint,
    "GET",
    "/updates",
    gives=list[UpdateJson],
    query=UpdatesQuery,
    answers={200: "Cached models that the hub has newer files of", 502: "The hub did not answer"},
)
def list_updates(query: UpdatesQuery) -> Response:
    """Show the cached models of which the hub has newer files."""
    if query.repo is not None:
        check_repo(query.repo)
    updates = find_updates(services().hub, services().cache, query.repo)
    return json_answer([update_json(update) for update in updates])
