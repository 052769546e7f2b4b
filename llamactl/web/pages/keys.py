"""The page of inference keys: make one, see it once, revoke it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from llamactl.errors import InvalidRequest
from llamactl.web import services
from llamactl.web.auditing import note
from llamactl.web.errors import status_of
from llamactl.web.pages.fields import Field
from llamactl.web.views import KeyView, key_view

blueprint = Blueprint("keys", __name__)

IN_THE_FORM = frozenset({"name", "expires_at", "instance_ids"})


@dataclass(frozen=True)
class KeyForm:
    """The form as typed. ``instances`` are (id, name, whether it is ticked).

    ``newest`` is the id of the newest key when the form was shown, 0 if there was none.
    """

    fields: Sequence[Field]
    mode: str
    instances: Sequence[tuple[int, str, bool]]
    instances_wrong: str
    newest: int


@dataclass(frozen=True)
class MadeKey:
    """A key that was made just now, the only time that it is shown."""

    name: str
    secret: str


@blueprint.get("/keys")
def index() -> Response:
    """Show all keys, and the form for another."""
    return _page()


@blueprint.post("/keys")
def make() -> Response:
    """Make a key and show it: there is no second time, so this is no redirect."""
    typed = request.form
    try:
        _refuse_repeat(typed.get("name", ""))
        key, secret = services().keys.create(
            typed.get("name", ""),
            typed.get("permission_mode", ""),
            _ticked(),
            _end_of_day(typed.get("expires_at", "")),
        )
    except InvalidRequest as error:
        return _page(error)
    note(f"key {key.id}")
    return _page(made=MadeKey(key.name, secret.reveal()))


@blueprint.get("/keys/<int:key_id>/revoke")
def confirm_revoke(key_id: int) -> str:
    """Ask whether a key may be voided."""
    return render_template("keys/revoke.html", key=_view(key_id))


@blueprint.post("/keys/<int:key_id>/revoke")
def revoke(key_id: int) -> AnyResponse:
    """Void a key for ever."""
    services().keys.delete(key_id)
    return redirect(url_for("pages.keys.index"), 303)


def _page(error: InvalidRequest | None = None, made: MadeKey | None = None) -> Response:
    names, now = _instance_names(), time.time()
    page = render_template(
        "keys/index.html",
        keys=[key_view(key, names, now) for key in services().keys.list()],
        form=_form(names, error, empty=made is not None),
        made=made,
        error=error if error and error.field not in IN_THE_FORM else None,
    )
    return Response(page, status=status_of(error) if error else 200, mimetype="text/html")


def _form(names: Mapping[int, str], error: InvalidRequest | None, *, empty: bool) -> KeyForm:
    typed = {} if empty else request.form
    ticked = [] if empty else request.form.getlist("instance_ids")

    def wrong(field: str) -> str:
        return error.details if error and error.field == field else ""

    fields = (
        Field(
            "name",
            "Name",
            value=typed.get("name", ""),
            wrong=wrong("name"),
            required=True,
            width="third",
        ),
        Field(
            "expires_at",
            "Last day",
            kind="date",
            help="It ends with that day on the server. Left empty, it never expires.",
            value=typed.get("expires_at", ""),
            wrong=wrong("expires_at"),
            width="third",
        ),
    )
    chosen = [(id_, name, str(id_) in ticked) for id_, name in sorted(names.items())]
    mode = typed.get("permission_mode", "allow_all")
    newest = max((key.id for key in services().keys.list()), default=0)
    return KeyForm(fields, mode, chosen, wrong("instance_ids"), newest)


def _refuse_repeat(name: str) -> None:
    """Refuse a form that a browser sent again, by loading the page with the made key once more."""
    newest = request.form.get("newest", "")
    made = [key for key in services().keys.list() if newest.isdecimal() and key.id > int(newest)]
    if any(key.name == name.strip() for key in made):
        raise InvalidRequest(
            "This form has made its key already, and it was shown then",
            hint="If nobody copied it, revoke it and make another.",
        )


def _ticked() -> list[int]:
    ids = [int(each) for each in request.form.getlist("instance_ids") if each.isdecimal()]
    if ids and request.form.get("permission_mode") == "allow_all":
        raise InvalidRequest(
            "Instances are ticked, but the key may use all",
            hint='Choose "Only these", or tick none.',
            field="instance_ids",
        )
    return ids


def _end_of_day(typed: str) -> float | None:
    if not typed.strip():
        return None
    try:
        day = datetime.strptime(typed.strip(), "%Y-%m-%d")  # noqa: DTZ007  # the server's own day
        return (day + timedelta(days=1)).timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            "The last day must be a date such as 2027-01-31", field="expires_at"
        ) from error


def _instance_names() -> dict[int, str]:
    return {each.id: each.name for each in services().supervisor.instances()}


def _view(key_id: int) -> KeyView:
    return key_view(services().keys.get(key_id), _instance_names(), time.time())
