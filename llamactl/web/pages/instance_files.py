"""Instances as files: one or all of them downloaded, and made from such a file or pasted text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from llamactl.errors import InstanceExists, InvalidRequest, LlamactlError
from llamactl.instances.options import Options, check_name
from llamactl.instances.portable import exported, read_instances
from llamactl.instances.snapshot import instance_json
from llamactl.web import services
from llamactl.web.errors import status_of

blueprint = Blueprint("instance_files", __name__)


@dataclass
class ImportPage:
    """What was typed, and what is wrong with it: beside the name, or beside the text.

    ``made`` are the instances that were made before that was found out.
    """

    text: str = ""
    name: str = ""
    replace: bool = False
    name_wrong: str = ""
    text_wrong: str = ""
    status: int = 200
    made: list[str] = field(default_factory=list)


@blueprint.get("/instances.json")
def export_all() -> Response:
    """Give the options of all instances, by name."""
    instances = services().supervisor.instances()
    return _file("instances", {each.name: instance_json(each)["options"] for each in instances})


@blueprint.get("/instances/<name>/export")
def export(name: str) -> Response:
    """Give the options of one instance, as they are posted."""
    return _file(name, instance_json(services().supervisor.get(name))["options"])


@blueprint.get("/instances/new/import")
def import_form() -> Response:
    """Show the form that takes such a file."""
    return _page(ImportPage())


@blueprint.post("/instances/new/import")
def import_instances() -> AnyResponse:
    """Make the instances of a file or of pasted text."""
    file = request.files.get("file")
    stem, text = "", ""
    if file:
        stem = (file.filename or "").rpartition("/")[2].removesuffix(".json")
        text = file.read().decode("utf-8", "replace")
    page = ImportPage(
        text=text or request.form.get("json", ""),
        name=request.form.get("name", "").strip(),
        replace=bool(request.form.get("replace")),
    )
    try:
        _make(page, stem)
    except LlamactlError as error:
        page.status = status_of(error)
        if getattr(error, "field", None) == "name" or isinstance(error, InstanceExists):
            page.name_wrong = error.details
        else:
            page.text_wrong = error.details
        return _page(page)
    if len(page.made) == 1:
        return redirect(url_for("pages.instances.show", name=page.made[0]), 303)
    return redirect(url_for("pages.instances.index"), 303)


def _page(page: ImportPage) -> Response:
    html = render_template("instances/import.html", page=page)
    return Response(html, status=page.status, mimetype="text/html")


def _file(name: str, options: Mapping[str, Any]) -> Response:
    answer = Response(exported(options), mimetype="application/json")
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}.json"'
    return answer


def _make(page: ImportPage, stem: str) -> None:
    """Make the instances; every name and every option is judged before any is made."""
    supervisor = services().supervisor
    there = {each.name for each in supervisor.instances()}
    wanted: dict[str, Options] = {}
    for name, raw in _read(page, stem).items():
        if name in there and not page.replace:
            raise InstanceExists(
                f"There is an instance {name} already",
                hint="Tick the box below to replace its options, or give another name here.",
            )
        with _told_of(check_name(name)):
            wanted[name] = Options.from_json(raw, services().config)
    for name, options in wanted.items():
        with _told_of(name):
            if name in there:
                supervisor.update(name, options)
            else:
                supervisor.create(name, options)
        page.made.append(name)


def _read(page: ImportPage, stem: str) -> Mapping[str, Any]:
    """Names and raw options; a file with one instance's options may have its name in its own."""
    try:
        return read_instances(page.text, page.name)
    except InvalidRequest as error:
        if error.field != "name" or page.name or not stem:
            raise
        return read_instances(page.text, stem)


@contextmanager
def _told_of(name: str) -> Iterator[None]:
    """Several are in a file: whoever reads an error must know which one it is about."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"{name}: {error.message}", hint=error.hint, field="json") from error
