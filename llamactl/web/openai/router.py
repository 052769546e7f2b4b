"""``/api/v1/llama-cpp/NAME/models``: what an instance in router mode has, loads and unloads."""

from __future__ import annotations

import json

from flask import Blueprint, Response

from llamactl.errors import InvalidRequest
from llamactl.gateway.passage import Call
from llamactl.web import services
from llamactl.web.auth import management_required, principal
from llamactl.web.openai.passing import forward

blueprint = Blueprint("router", __name__, url_prefix="/api/v1/llama-cpp/<name>/models")


@blueprint.get("")
@management_required
def list_models(name: str) -> Response:
    """Show the models that a running router knows."""
    return _ask(name, "GET", "/models", b"", wakes=False)


@blueprint.post("/<path:model>/load")
@management_required
def load(name: str, model: str) -> Response:
    """Have a router load one of its models; a stopped router is started for it."""
    return _ask(name, "POST", "/models/load", _named(model), wakes=True)


@blueprint.post("/<path:model>/unload")
@management_required
def unload(name: str, model: str) -> Response:
    """Have a running router unload one of its models."""
    return _ask(name, "POST", "/models/unload", _named(model), wakes=False)


def _named(model: str) -> bytes:
    return json.dumps({"model": model}).encode()


def _ask(name: str, method: str, target: str, body: bytes, *, wakes: bool) -> Response:
    def plan() -> Call:
        instance = services().supervisor.get(name)
        if not instance.options.is_router:
            raise InvalidRequest(
                f"{name} runs one model of its own and is no router",
                hint="An instance without a model, on the full llama-server, is a router.",
            )
        headers = [("Content-Type", "application/json")]
        return Call(instance, method, target, headers, body, wakes=wakes)

    return forward(principal(), plan)
