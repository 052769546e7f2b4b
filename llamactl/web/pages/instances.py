"""The pages of instances: see them, watch one, start and stop it, read its log, delete it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from llamactl.errors import LlamactlError
from llamactl.instances.figures import NO_FIGURES
from llamactl.instances.options import Options
from llamactl.instances.snapshot import instance_json
from llamactl.web import services
from llamactl.web.errors import status_of
from llamactl.web.instance_views import (
    InstanceView,
    LogView,
    calls_view,
    instance_view,
    instances_view,
    options_text,
)
from llamactl.web.pages.instance_models import models_part
from llamactl.web.pages.live import Part, render_page
from llamactl.web.pages.replies import button, done
from llamactl.web.preview_view import PreviewView, preview_view, wrong_view
from llamactl.web.streams import event_answer, log_answer
from llamactl.web.texts import last_lines, plain

blueprint = Blueprint("instances", __name__)

LOG_LINES = 400
#: Between two looks at an instance that somebody watches.
LIVE_SECONDS = 2


@blueprint.get("/instances")
def index() -> Response:
    """Show all instances."""
    address = url_for("pages.instances.index")
    there = bool(services().supervisor.instances())
    parts = {"list": _list}
    return render_page("instances/index.html", address, parts, warning=_warning(), any=there)


@blueprint.get("/instances/<name>")
def show(name: str) -> Response:
    """Show one instance: its state, its log, how to call it."""
    instance = services().supervisor.get(name)
    options = instance.options
    parts: dict[str, Callable[[], Part]] = {"status": lambda: _status(name)}
    # A router is asked for one of its models, behind its own name.
    model = f"{name}/ORG/NAME:TAG" if options.is_router else name
    if options.is_router:
        parts["models"] = lambda: models_part(name)
    return render_page(
        "instances/show.html",
        url_for("pages.instances.show", name=name),
        parts,
        name=name,
        warning=_warning(),
        calls=calls_view(model, request.url_root.rstrip("/")),
        log=_log(name),
        preview=_preview(name, options, instance.port),
        # Of one that failed the status says why, in the same words.
        failed=instance.status == "failed",
        options=options_text(options.to_json()),
    )


@blueprint.get("/instances/<name>/log")
def log(name: str) -> Response:
    """Give everything that is kept of an instance's log."""
    return log_answer(services().supervisor.whole_log(name))


@blueprint.get("/instances/<name>/log/follow")
def follow_log(name: str) -> Response:
    """Show the last lines of an instance's log and what it writes from now on, as events."""
    return event_answer(services().supervisor.follow_logs(name, LOG_LINES), plain)


@blueprint.post("/instances/<name>/<any(start, stop, restart):verb>")
@button
def act(name: str, verb: str) -> AnyResponse:
    """Start, stop or restart an instance; the page shows how that goes on."""
    supervisor = services().supervisor
    if verb == "start":
        supervisor.start_instance(name)
    elif verb == "stop":
        supervisor.stop_instance(name)
    else:
        supervisor.restart_instance(name)
    if request.form.get("back") == "instances":
        return done(url_for("pages.instances.index"))
    return done(url_for("pages.instances.show", name=name))


@blueprint.get("/instances/<name>/delete")
def confirm_delete(name: str) -> str:
    """Ask whether an instance may go."""
    return render_template("instances/delete.html", instance=_view(name), error=None)


@blueprint.post("/instances/<name>/delete")
def delete(name: str) -> AnyResponse:
    """Delete an instance that is stopped."""
    try:
        services().supervisor.delete(name)
    except LlamactlError as error:
        page = render_template("instances/delete.html", instance=_view(name), error=error)
        return Response(page, status=status_of(error), mimetype="text/html")
    return redirect(url_for("pages.instances.index"), 303)


def _list() -> Part:
    now = time.time()
    supervisor, config = services().supervisor, services().config.instances
    figures = supervisor.figures()
    instances = [
        instance_view(instance_json(each, figures.get(each.name, NO_FIGURES)), now)
        for each in supervisor.instances()
    ]
    view = instances_view(instances, config.group_limits, config.max_running_instances)
    return Part("instances/_list.html", view, view.moving)


def _status(name: str) -> Part:
    supervisor = services().supervisor
    figures = supervisor.figures(name).get(name, NO_FIGURES)
    view = instance_view(instance_json(supervisor.get(name), figures), time.time())
    return Part("instances/_status.html", view, view.moving, resting_seconds=LIVE_SECONDS)


def _log(name: str) -> LogView:
    lines = last_lines(services().supervisor.logs(name, LOG_LINES), LOG_LINES)
    return LogView(name, lines, url_for("pages.instances.follow_log", name=name))


def _preview(name: str, options: Options, port: int | None) -> PreviewView:
    try:
        preview = services().supervisor.preview(name, options)
        if port is not None:
            preview = replace(preview, words=(*preview.words[:-1], str(port)))
        return preview_view(preview, options)
    except LlamactlError as error:
        return wrong_view(error)


def _view(name: str) -> InstanceView:
    return instance_view(instance_json(services().supervisor.get(name)), time.time())


def _warning() -> str:
    return services().supervisor.backend().warning or ""
