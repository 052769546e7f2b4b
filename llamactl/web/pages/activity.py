"""The page of what the gateway does: the requests that run, and the last ones that ended."""

from __future__ import annotations

from flask import Blueprint, Response, url_for

from llamactl.web import services
from llamactl.web.activity_view import activity_view
from llamactl.web.pages.live import Part, render_page

blueprint = Blueprint("activity", __name__)


@blueprint.get("/activity")
def index() -> Response:
    """Show who asked which model, how it ended and what it took; never what was said."""
    return render_page(
        "activity/index.html", url_for("pages.activity.index"), {"requests": _requests}
    )


def _requests() -> Part:
    view = activity_view(services().gateway.activity())
    return Part("activity/_requests.html", view, view.moving)
