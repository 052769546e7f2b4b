"""The page of the server itself."""

from __future__ import annotations

import time

from flask import Blueprint, render_template

from llamactl.web import services
from llamactl.web.system_view import system_view

blueprint = Blueprint("system", __name__)


@blueprint.get("/system")
def show() -> str:
    """Show versions, places, free space and every setting, secrets masked."""
    here = services()
    view = system_view(here.config, here.supervisor.backend(), here.started_at, time.time())
    return render_template("system/show.html", view=view)
