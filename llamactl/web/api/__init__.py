"""The management API, ``/api/v1``: everything in it wants a management key."""

from __future__ import annotations

from flask import Blueprint

from llamactl.web.api import downloads, instances, keys, llama_cpp, models, openapi, system
from llamactl.web.auth import authenticate_management


def blueprints() -> list[Blueprint]:
    """The blueprints of the management API, for one application."""
    api = Blueprint("api", __name__, url_prefix="/api/v1")
    # Here and not on each view: a route that someone forgets to guard is guarded all the same.
    api.before_request(_let_in)
    for each in (models.blueprint, downloads.blueprint):
        api.register_blueprint(each, url_prefix="/backends/llama-cpp/models")
        api.register_blueprint(each, url_prefix="/models", name=f"{each.name}_short")
    api.register_blueprint(instances.blueprint, url_prefix="/instances")
    api.register_blueprint(llama_cpp.blueprint)
    api.register_blueprint(system.blueprint)
    api.register_blueprint(keys.blueprint)
    return [api, openapi.blueprint]


def _let_in() -> None:
    authenticate_management()
