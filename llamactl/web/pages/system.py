"""The page of the server itself."""

from __future__ import annotations

import time

from flask import Blueprint, redirect, render_template, url_for
from werkzeug.wrappers import Response as AnyResponse

from llamactl.web import browser, services
from llamactl.web.system_view import system_view

blueprint = Blueprint("system", __name__)


@blueprint.get("/system")
def show() -> str:
    """Show versions, places, free space and every setting, secrets masked."""
    here = services()
    llama = here.supervisor
    now = time.time()
    view = system_view(here.config, llama.backend(), llama.machine(), here.started_at, now)
    return render_template("system/show.html", view=view, sessions=here.sessions.count())


@blueprint.post("/system/sessions/end")
def end_sessions() -> AnyResponse:
    """End every session, this one too: whoever copied a cookie is out."""
    services().sessions.end_all()
    response = redirect(url_for(browser.LOGIN), 303)
    browser.end_session(response)
    return response
