"""The server itself: its version, its configuration, the one node that it is."""

from __future__ import annotations

from typing import TypedDict

from flask import Blueprint, Response, request

from llamactl import __version__
from llamactl.models.snapshots import LOCAL_NODE
from llamactl.web import services
from llamactl.web.activity_view import ActivityEntryJson, activity_json
from llamactl.web.answers import json_answer
from llamactl.web.api.routing import route
from llamactl.web.audit_view import AuditJson, audit_json
from llamactl.web.config_shown import config_json
from llamactl.web.forms import AuditQuery

blueprint = Blueprint("system", __name__)


class VersionJson(TypedDict):
    """Which llamactl this is, and since when it runs, in unix seconds."""

    version: str
    started_at: int


class NodeJson(TypedDict):
    """A machine that runs instances."""

    address: str


class ActivityJson(TypedDict):
    """The requests that run, then those that ended last."""

    requests: list[ActivityEntryJson]


@route(blueprint, "GET", "/version", gives=VersionJson, answers={200: "The version"})
def show_version() -> Response:
    """Show which llamactl this is, and since when it runs."""
    told: VersionJson = {"version": __version__, "started_at": int(services().started_at)}
    return json_answer(told)


@route(
    blueprint,
    "GET",
    "/config",
    gives=dict[str, object],
    answers={200: "Every setting, secrets masked"},
)
def show_config() -> Response:
    """Show the configuration in use."""
    return json_answer(config_json(services().config))


@route(
    blueprint, "GET", "/nodes", gives=dict[str, NodeJson], answers={200: "This node by its name"}
)
def list_nodes() -> Response:
    """Show the machines that run instances: this one."""
    nodes: dict[str, NodeJson] = {LOCAL_NODE: {"address": request.host_url.rstrip("/")}}
    return json_answer(nodes)


@route(
    blueprint,
    "GET",
    "/activity",
    gives=ActivityJson,
    answers={200: "The last requests, those that run first"},
)
def show_activity() -> Response:
    """Show who asked which model, how it ended and what it took; never what was said."""
    told: ActivityJson = {"requests": activity_json(services().gateway.activity())}
    return json_answer(told)


@route(
    blueprint,
    "GET",
    "/audit",
    query=AuditQuery,
    gives=AuditJson,
    answers={200: "What was changed and who was refused, the newest first"},
)
def show_audit(query: AuditQuery) -> Response:
    """Show who changed what, from where, and how it ended; never a secret or a prompt."""
    return json_answer(audit_json(services().audit.read(query.limit, query.before)))
