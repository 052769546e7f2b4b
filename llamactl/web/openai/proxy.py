"""``/api/v1/instances/NAME/proxy``: everything that an instance offers, for management keys."""

from __future__ import annotations

from urllib.parse import quote

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from llamactl.gateway.passage import Call
from llamactl.web import services
from llamactl.web.auth import management_required, principal
from llamactl.web.openai.passing import forward, headers, raw_body

blueprint = Blueprint("proxy", __name__, url_prefix="/api/v1/instances/<name>/proxy")

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# What may stand in an address as it is; quoting leaves the percent signs of the client alone.
_IN_QUERY = "%/?:@!$&'()*+,;=-._~[]"


@blueprint.route("/", methods=METHODS, defaults={"rest": ""})
@blueprint.route("/<path:rest>", methods=METHODS)
@management_required
def pass_on(name: str, rest: str) -> Response:
    """Pass any request to a running instance."""
    if any(part in {".", ".."} for part in rest.split("/")):
        raise NotFound
    target = "/" + quote(rest)
    query = quote(request.query_string, safe=_IN_QUERY)

    def plan() -> Call:
        instance = services().supervisor.get(name)
        path = f"{target}?{query}" if query else target
        return Call(instance, request.method, path, headers(), raw_body(), wakes=False)

    return forward(principal(), plan)
