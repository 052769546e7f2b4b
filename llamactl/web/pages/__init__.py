"""The pages: what a person sees and presses, for browsers with a script and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flask import Blueprint
from werkzeug.wrappers import Response as AnyResponse

from llamactl.web import browser
from llamactl.web.pages import (
    activity,
    audit,
    docs,
    downloads,
    instance_editing,
    instance_files,
    instance_models,
    instances,
    keys,
    login,
    models,
    repositories,
    system,
)
from llamactl.web.pages.assets import asset_url
from llamactl.web.texts import plain, prose, whole_sentence

#: The tabs: a name, the page that it leads to, the rooms whose pages belong to it.
TABS = (
    ("Models", "pages.models.index", ("pages.models", "pages.repositories")),
    ("Downloads", "pages.downloads.index", ("pages.downloads",)),
    (
        "Instances",
        "pages.instances.index",
        ("pages.instances", "pages.instance_forms", "pages.instance_files"),
    ),
    ("Activity", "pages.activity.index", ("pages.activity",)),
    ("Keys", "pages.keys.index", ("pages.keys",)),
    ("System", "pages.system.show", ("pages.system", "pages.audit", "pages.docs")),
)
TEMPLATE_GLOBALS: dict[str, Callable[..., object]] = {
    "asset": asset_url,
    "csrf_token": browser.csrf_token,
    "needs_login": browser.needs_login,
    "signed_in": lambda: browser.session() is not None,
}


def blueprints() -> Sequence[Blueprint]:
    """The login, open to everyone, and the pages behind it."""
    pages = Blueprint("pages", __name__)
    pages.before_request(_require_login)
    pages.app_template_filter("plain")(plain)
    pages.app_template_filter("prose")(prose)
    pages.app_template_filter("sentence")(whole_sentence)
    # Globals, for macros do not see what a context processor gives.
    for name, function in TEMPLATE_GLOBALS.items():
        pages.app_template_global(name)(function)
    pages.app_context_processor(lambda: {"tabs": TABS})
    for room in (
        models,
        repositories,
        downloads,
        instances,
        instance_editing,
        instance_files,
        instance_models,
        activity,
        keys,
        system,
        audit,
        docs,
    ):
        pages.register_blueprint(room.blueprint)
    return (login.blueprint, pages)


def _require_login() -> AnyResponse | None:
    return browser.to_login() if browser.needs_login() else None
