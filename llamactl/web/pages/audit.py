"""The page of who changed what."""

from __future__ import annotations

from flask import Blueprint, render_template

from llamactl.web import forms, services
from llamactl.web.audit_view import audit_view
from llamactl.web.forms import AuditQuery

blueprint = Blueprint("audit", __name__)


@blueprint.get("/system/audit")
def show() -> str:
    """Show who changed what, the newest first, a page at a time."""
    query = forms.query(AuditQuery)
    page = services().audit.read(query.limit, query.before)
    return render_template("system/audit.html", view=audit_view(page, query.limit), query=query)
