"""Instances: llama-server processes with their options."""

from __future__ import annotations

from typing import get_type_hints

from flask import Blueprint, Response

from llamactl.instances.figures import NO_FIGURES
from llamactl.instances.masking import unmasked
from llamactl.instances.options import Options, OptionsJson
from llamactl.instances.plan import PlanJson, plan_json
from llamactl.instances.snapshot import (
    InstanceJson,
    InstanceSnapshot,
    SavedInstanceJson,
    instance_json,
)
from llamactl.web import services
from llamactl.web.answer_schema import schema_of
from llamactl.web.answers import empty_answer, json_answer, text_answer
from llamactl.web.api.routing import route
from llamactl.web.forms import LikeQuery, LogsQuery, WaitQuery
from llamactl.web.jsonbody import json_body
from llamactl.web.streams import event_answer, log_answer

blueprint = Blueprint("instances", __name__)

NONE = "No such instance"
OPTIONS = {
    "type": "object",
    "properties": {
        **{name: schema_of(hint) for name, hint in get_type_hints(OptionsJson).items()},
        "backend_options": {
            "type": "object",
            "description": "llama-server's long flags with underscores; others in extra_args.",
        },
    },
    "additionalProperties": False,
}


@route(blueprint, "GET", "", gives=list[InstanceJson], answers={200: "All instances"})
def list_instances() -> Response:
    """Show all instances."""
    supervisor = services().supervisor
    figures = supervisor.figures()
    return json_answer(
        [instance_json(each, figures.get(each.name, NO_FIGURES)) for each in supervisor.instances()]
    )


@route(
    blueprint,
    "GET",
    "/<name>",
    gives=InstanceJson,
    answers={200: "The instance", 404: NONE},
)
def show_instance(name: str) -> Response:
    """Show one instance."""
    supervisor = services().supervisor
    figures = supervisor.figures(name).get(name, NO_FIGURES)
    return json_answer(instance_json(supervisor.get(name), figures))


@route(
    blueprint,
    "POST",
    "/<name>",
    query=LikeQuery,
    takes=OPTIONS,
    gives=SavedInstanceJson,
    answers={201: "The instance, stopped", 400: "A wrong name or option", 409: "It exists"},
)
def create_instance(name: str, query: LikeQuery) -> Response:
    """Make an instance; it is not started."""
    supervisor = services().supervisor
    options = Options.from_json(json_body(), services().config)
    if query.like is not None:
        options = unmasked(options, supervisor.get(query.like).options)
    return _saved(supervisor.create(name, options), 201)


@route(
    blueprint,
    "PUT",
    "/<name>",
    takes=OPTIONS,
    gives=SavedInstanceJson,
    answers={200: "The instance", 400: "A wrong option", 404: NONE},
)
def update_instance(name: str) -> Response:
    """Replace an instance's options; it is restarted if it ran."""
    options = Options.from_json(json_body(), services().config)
    return _saved(services().supervisor.update(name, options), 200)


def _saved(snapshot: InstanceSnapshot, status: int) -> Response:
    warnings = services().supervisor.warnings(snapshot.options)
    saved: SavedInstanceJson = {**instance_json(snapshot), "warnings": warnings}
    return json_answer(saved, status)


@route(
    blueprint, "DELETE", "/<name>", answers={204: "Deleted", 404: NONE, 409: "It is not stopped"}
)
def delete_instance(name: str) -> Response:
    """Delete an instance that is stopped."""
    services().supervisor.delete(name)
    return empty_answer()


@route(
    blueprint,
    "POST",
    "/<name>/start",
    query=WaitQuery,
    gives=InstanceJson,
    answers={200: "The instance", 404: NONE, 409: "No room", 503: "It did not start"},
)
def start_instance(name: str, query: WaitQuery) -> Response:
    """Start an instance; one that runs stays as it is."""
    return json_answer(instance_json(services().supervisor.start_instance(name, query.wait)))


@route(
    blueprint,
    "POST",
    "/<name>/stop",
    query=WaitQuery,
    gives=InstanceJson,
    answers={200: "The instance", 404: NONE},
)
def stop_instance(name: str, query: WaitQuery) -> Response:
    """Stop an instance; one that is stopped stays so."""
    return json_answer(instance_json(services().supervisor.stop_instance(name, query.wait)))


@route(
    blueprint,
    "POST",
    "/<name>/restart",
    query=WaitQuery,
    gives=InstanceJson,
    answers={200: "The instance", 404: NONE, 409: "No room", 503: "It did not start"},
)
def restart_instance(name: str, query: WaitQuery) -> Response:
    """Stop an instance and start it anew."""
    return json_answer(instance_json(services().supervisor.restart_instance(name, query.wait)))


@route(
    blueprint,
    "GET",
    "/<name>/plan",
    gives=PlanJson,
    answers={200: "What a start would take, and whom it would stop", 404: NONE},
)
def show_plan(name: str) -> Response:
    """Show what a start of an instance would do; nothing is started."""
    return json_answer(plan_json(services().supervisor.plan(name)))


@route(
    blueprint,
    "GET",
    "/<name>/logs",
    query=LogsQuery,
    media=("text/plain", "text/event-stream"),
    answers={200: "Plain text, or server-sent events", 404: NONE},
)
def show_logs(name: str, query: LogsQuery) -> Response:
    """Show what an instance wrote."""
    supervisor = services().supervisor
    if query.follow:
        return event_answer(supervisor.follow_logs(name, query.lines or None))
    if query.lines:
        return text_answer(supervisor.logs(name, query.lines))
    return log_answer(supervisor.whole_log(name))
