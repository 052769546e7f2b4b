"""The form of an instance: for a new one, one like another, one that exists.

Whatever button is pressed, what was typed comes back: an estimate, a pasted line and a preset only
change what the form shows, and nothing is saved before "Create" or "Save".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from llamactl.errors import InstanceNotFound, InvalidRequest, LlamactlError
from llamactl.instances.commandline import left_out, parse_command
from llamactl.instances.masking import unmasked
from llamactl.instances.options import Options, check_name
from llamactl.web import services
from llamactl.web.auditing import changes_nothing
from llamactl.web.errors import status_of
from llamactl.web.pages import instance_fields, instance_form, instance_starts
from llamactl.web.pages.instance_fields import InstanceForm, Typed
from llamactl.web.preview_view import PreviewView, preview_view

blueprint = Blueprint("instance_forms", __name__)

#: What stands for a name in a line, as long as none was typed.
NO_NAME = "NAME"


@dataclass
class FormPage:
    """What the page shows around the fields. ``name`` is that of an instance that exists.

    ``based_on`` is the instance whose masked values are meant where the form shows a mask.
    """

    title: str
    typed: Typed
    name: str = ""
    based_on: str = ""
    errors: list[LlamactlError] = field(default_factory=list)
    status: int = 200
    notes: list[tuple[str, str]] = field(default_factory=list)
    command_wrong: str = ""


@blueprint.get("/instances/new")
def new() -> Response:
    """Show the form of a new instance; ``?model=`` and ``?name=`` are filled in."""
    model, name = request.args.get("model", ""), request.args.get("name", "")
    return _page(FormPage("Add Instance", instance_starts.starting_values(model, name)))


@blueprint.get("/instances/<name>/duplicate")
def duplicate(name: str) -> Response:
    """Show the form of a new instance with the options of another."""
    options = services().supervisor.get(name).options.to_json()
    # Two instances cannot both answer to one further name.
    options = {**options, "aliases": []}
    values = instance_form.values_of(instance_starts.free_name(name), options)
    return _page(FormPage(f"Duplicate {name}", values, based_on=name))


@blueprint.post("/instances/new")
def create() -> AnyResponse:
    """Make an instance, and start it if that was asked for."""
    page = FormPage("Add Instance", request.form, based_on=request.form.get("based_on", ""))
    if "fill" in request.form:
        return _page(_filled(page))
    name = request.form.get("name", "").strip()
    options = None
    try:
        options = _options(page)
    except LlamactlError as error:
        page.errors.append(error)
    try:
        check_name(name)
        if options is not None:
            services().supervisor.create(name, options)
    except LlamactlError as error:
        page.errors.append(error)
    if page.errors:
        page.status = status_of(page.errors[0])
        return _page(page)
    if request.form.get("start"):
        services().supervisor.start_instance(name)
    return redirect(url_for("pages.instances.show", name=name), 303)


@blueprint.get("/instances/<name>/edit")
def edit(name: str) -> Response:
    """Show the form with the options of an instance."""
    options = services().supervisor.get(name).options.to_json()
    values = instance_form.values_of(name, options)
    return _page(FormPage(f"Edit {name}", values, name=name, based_on=name))


@blueprint.post("/instances/<name>/edit")
def update(name: str) -> AnyResponse:
    """Replace the options of an instance; it is restarted if it ran."""
    services().supervisor.get(name)
    page = FormPage(f"Edit {name}", request.form, name=name, based_on=name)
    if "fill" in request.form:
        return _page(_filled(page))
    try:
        services().supervisor.update(name, _options(page))
    except LlamactlError as error:
        page.errors, page.status = [error], status_of(error)
        return _page(page)
    return redirect(url_for("pages.instances.show", name=name), 303)


@blueprint.post("/instances/new/preview")
def preview() -> str:
    """Show the estimate and the line for what is typed, while it is typed."""
    changes_nothing()
    page = FormPage("", request.form, based_on=request.form.get("based_on", ""))
    return render_template(
        "instances/_preview.html",
        preview=_preview(page),
        preset=instance_starts.preset_offer(_typed_model(page)),
    )


def _page(page: FormPage) -> Response:
    form = instance_fields.shown(_fields(page), page.typed)
    error: LlamactlError | None = None
    for each in page.errors:
        form, homeless = instance_fields.told(form, each)
        error = error or homeless
    html = render_template(
        "instances/form.html",
        form=instance_fields.with_models(form, instance_starts.cached_models()),
        page=page,
        error=error,
        preview=_preview(page),
        preset=instance_starts.preset_offer(_typed_model(page)),
        command=page.typed.get("command", ""),
        warning=services().supervisor.backend().warning or "",
        restarts=bool(page.name) and services().supervisor.get(page.name).status == "running",
    )
    return Response(html, status=page.status, mimetype="text/html")


def _fields(page: FormPage) -> InstanceForm:
    return instance_fields.empty_form(services().config, named=not page.name)


def _typed_model(page: FormPage) -> str:
    return page.typed.get("model", "").strip()


def _options(page: FormPage) -> Options:
    """The options that were typed; raises ``InvalidRequest`` naming the field."""
    return unmasked(Options.from_json(_json(page), services().config), _before(page))


def _json(page: FormPage) -> dict[str, Any]:
    before = _before(page)
    edited = None if before is None else before.to_json()
    return instance_form.options_json(_fields(page), page.typed, edited)


def _before(page: FormPage) -> Options | None:
    if not page.based_on:
        return None
    try:
        return services().supervisor.get(page.based_on).options
    except InstanceNotFound:
        # It went meanwhile; what was typed is still there.
        return None


def _preview(page: FormPage) -> PreviewView:
    name = page.name or page.typed.get("name", "").strip() or NO_NAME
    if name == NO_NAME and not (_typed_model(page) or page.typed.get("hf_repo")):
        return PreviewView(said="With a model: what it takes, and whether it fits.")
    try:
        options = _options(page)
        return preview_view(services().supervisor.preview(name, options), options)
    except LlamactlError as error:
        return PreviewView(wrong=instance_fields.sentence(_fields(page), error))


def _filled(page: FormPage) -> FormPage:
    """The page after a button that only changes what the form shows."""
    changes_nothing()
    fill = page.typed.get("fill")
    try:
        if fill == "line":
            _fill_from_line(page)
        elif fill == "preset":
            options = Options.parse(_json(page), services().config).to_json()
            chosen = instance_starts.preset_options(_typed_model(page))
            page.typed = instance_form.with_backend(
                page.typed, {**options["backend_options"], **chosen}
            )
        else:
            _options(page)
    except LlamactlError as error:
        page.errors = [error]
    return page


def _fill_from_line(page: FormPage) -> None:
    command = page.typed.get("command", "")
    try:
        raw = parse_command(command)
        page.notes = list(left_out(command).items())
        read = Options.parse(raw, services().config)
    except InvalidRequest as error:
        page.command_wrong, page.status = error.details, 400
        return
    options = services().supervisor.with_cached_model(read)
    if options is not read:
        repo = options.text_option("model")
        page.notes.append(
            ("--hf-repo", f"{repo} is cached and is the model, so nothing is fetched")
        )
    page.typed = instance_form.with_backend(page.typed, options.to_json()["backend_options"])
    if options.environment:
        lines = [f"{name}={value}" for name, value in options.environment.items()]
        page.typed = {**page.typed, "environment": "\n".join(lines)}
    _options(page)
