"""The page of the interface for programs."""

from __future__ import annotations

from flask import Blueprint, current_app, render_template

from llamactl.web.api.openapi import document
from llamactl.web.docs_view import docs_view

blueprint = Blueprint("docs", __name__)


@blueprint.get("/docs")
def show() -> str:
    """Show every address for programs, with what it takes and answers."""
    return render_template("docs/show.html", view=docs_view(document(current_app)))
