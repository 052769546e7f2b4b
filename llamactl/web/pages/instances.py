"""The pages of instances: add one, watch, start and stop it, read its log, change, delete it."""

from __future__ import annotations

import itertools
import time

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from llamactl.errors import LlamactlError
from llamactl.instances.options import Options
from llamactl.instances.snapshot import instance_json
from llamactl.models.snapshots import cached_model_json
from llamactl.web import services
from llamactl.web.answers import text_answer
from llamactl.web.errors import status_of
from llamactl.web.instance_views import (
    InstancesView,
    InstanceView,
    LogView,
    calls_view,
    instance_view,
    options_text,
)
from llamactl.web.pages import instance_fields, instance_form
from llamactl.web.pages.instance_fields import InstanceForm
from llamactl.web.pages.live import Part, render_page
from llamactl.web.pages.replies import button, done
from llamactl.web.texts import last_lines
from llamactl.web.views import cached_model_view

blueprint = Blueprint("instances", __name__)

LOG_LINES = 400
LOG_SECONDS = 2


@blueprint.get("/instances")
def index() -> Response:
    """Show all instances."""
    address = url_for("pages.instances.index")
    return render_page("instances/index.html", address, {"list": _list}, warning=_warning())


@blueprint.get("/instances/new")
def new() -> Response:
    """Show the form of a new instance; ``?model=`` and ``?name=`` are filled in."""
    model, name = request.args.get("model", ""), _free_name(request.args.get("name", ""))
    values = instance_form.values_for_new(services().config, model, name)
    return _form_page(instance_fields.shown(_form(), values), title="Add Instance")


@blueprint.post("/instances/new")
def create() -> AnyResponse:
    """Make an instance, and start it if that was asked for."""
    form, config = _form(), services().config
    name = request.form.get("name", "").strip()
    try:
        options = Options.from_json(instance_form.options_json(form, request.form), config)
        services().supervisor.create(name, options)
    except LlamactlError as error:
        return _form_page(instance_fields.shown(form, request.form), "Add Instance", error=error)
    if request.form.get("start"):
        services().supervisor.start_instance(name)
    return redirect(url_for("pages.instances.show", name=name), 303)


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


@blueprint.get("/instances/<name>/edit")
def edit(name: str) -> Response:
    """Show the form with the options of an instance."""
    options = services().supervisor.get(name).options.to_json()
    values = instance_form.values_of(name, options)
    return _form_page(instance_fields.shown(_form(name), values), f"Edit {name}", name=name)


@blueprint.post("/instances/<name>/edit")
def update(name: str) -> AnyResponse:
    """Replace the options of an instance; it is restarted if it ran."""
    form = _form(name)
    before = services().supervisor.get(name).options.to_json()
    try:
        typed = instance_form.options_json(form, request.form, before)
        services().supervisor.update(name, Options.from_json(typed, services().config))
    except LlamactlError as error:
        shown = instance_fields.shown(form, request.form)
        return _form_page(shown, f"Edit {name}", name=name, error=error)
    return redirect(url_for("pages.instances.show", name=name), 303)


@blueprint.get("/instances/<name>/log")
def log(name: str) -> Response:
    """Give everything that is kept of an instance's log."""
    return text_answer(services().supervisor.logs(name, None))


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


def _form_page(
    form: InstanceForm, title: str, *, name: str = "", error: LlamactlError | None = None
) -> Response:
    status = 200
    if error is not None:
        status = status_of(error)
        form, error = instance_fields.told(form, error)
    page = render_template(
        "instances/form.html",
        form=instance_fields.with_models(form, _cached_models()),
        title=title,
        name=name,
        error=error,
        warning=_warning(),
        restarts=bool(name) and _view(name).status == "running",
    )
    return Response(page, status=status, mimetype="text/html")


def _form(name: str = "") -> InstanceForm:
    form = instance_fields.empty_form(services().config)
    if name:
        return InstanceForm([field for field in form.first if field.name != "name"], form.more)
    return form


def _free_name(name: str) -> str:
    taken = {each.name for each in services().supervisor.instances()}
    further = (f"{name}-{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], further) if each not in taken)


def _cached_models() -> list[tuple[str, str]]:
    now = time.time()
    models = (cached_model_view(cached_model_json(each), now) for each in services().cache.list())
    return [(model.files[0].path, model.reference) for model in models if model.can_run]


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
