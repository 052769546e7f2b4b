"""The pages of instances: see them, watch one, start and stop it, read its log, delete it."""

from __future__ import annotations

import time

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from llamactl.errors import LlamactlError
from llamactl.instances.snapshot import instance_json
from llamactl.web import services
from llamactl.web.errors import status_of
from llamactl.web.instance_views import (
    InstancesView,
    InstanceView,
    LogView,
    calls_view,
    instance_view,
    options_text,
)
from llamactl.web.pages.live import Part, render_page
from llamactl.web.pages.replies import button, done
from llamactl.web.streams import log_answer
from llamactl.web.texts import last_lines

blueprint = Blueprint("instances", __name__)

LOG_LINES = 400
LOG_SECONDS = 2


@blueprint.get("/instances")
def index() -> Response:
    """Show all instances."""
    address = url_for("pages.instances.index")
    return render_page("instances/index.html", address, {"list": _list}, warning=_warning())


@blueprint.get("/instances/<name>")
def show(name: str) -> Response:
    """Show one instance: its state, its log, how to call it."""
    instance = instance_json(services().supervisor.get(name))
    return render_page(
        "instances/show.html",
        url_for("pages.instances.show", name=name),
        {"status": lambda: _status(name), "log": lambda: _log(name)},
        name=name,
        warning=_warning(),
        calls=calls_view(name, request.url_root.rstrip("/")),
        options=options_text(instance["options"]),
    )


@blueprint.get("/instances/<name>/log")
def log(name: str) -> Response:
    """Give everything that is kept of an instance's log."""
    return log_answer(services().supervisor.whole_log(name))


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
    all_of_them = services().supervisor.instances()
    view = InstancesView(tuple(instance_view(instance_json(each), now) for each in all_of_them))
    return Part("instances/_list.html", view, view.moving)


def _status(name: str) -> Part:
    view = _view(name)
    return Part("instances/_status.html", view, view.moving)


def _log(name: str) -> Part:
    lines = last_lines(services().supervisor.logs(name, LOG_LINES), LOG_LINES)
    return Part("instances/_log.html", LogView(name, lines), resting_seconds=LOG_SECONDS)


def _view(name: str) -> InstanceView:
    return instance_view(instance_json(services().supervisor.get(name)), time.time())


def _warning() -> str:
    return services().supervisor.backend().warning or ""
