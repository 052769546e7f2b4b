"""The models of an instance in router mode: on its page, with their buttons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flask import Blueprint, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from llamactl.access.principal import management
from llamactl.errors import InvalidRequest, Unavailable
from llamactl.gateway.passage import Call
from llamactl.instances.router import RouterModel
from llamactl.web import services
from llamactl.web.pages.live import Part
from llamactl.web.pages.replies import button, done

blueprint = Blueprint("instance_models", __name__)

_JSON = [("Content-Type", "application/json")]
_TONES = {"loaded": "good", "loading": "busy", "sleeping": "", "unloaded": "", "failed": "bad"}
Verb = Literal["load", "unload", ""]
#: What a button does to a model in this state; nothing to one that is on its way.
_VERBS: Mapping[str, Verb] = {
    "loaded": "unload",
    "sleeping": "unload",
    "unloaded": "load",
    "failed": "load",
}


@dataclass(frozen=True)
class RouterModelView:
    """A model that a router offers; ``verb`` is what can be done to it now, or nothing."""

    name: str
    label: str
    tone: str
    verb: Verb


@dataclass(frozen=True)
class RouterModelsView:
    """Everything that a router offers, or why that is not known."""

    name: str
    models: tuple[RouterModelView, ...]
    said: str


def models_part(name: str) -> Part:
    """The models of the router ``name``, as a part of its page."""
    instance = services().supervisor.get(name)
    models: tuple[RouterModelView, ...] = ()
    said = "It tells its models once it runs."
    if instance.status == "running":
        offered = services().supervisor.router_models(name)
        models = tuple(map(_view, offered or ()))
        silent = "It does not answer."
        said = silent if offered is None else "It offers nothing. Download a model first."
    view = RouterModelsView(name, models, said)
    return Part("instances/_models.html", view, any(each.tone == "busy" for each in models))


@blueprint.post("/instances/<name>/models/<any(load, unload):verb>")
@button
def change(name: str, verb: str) -> AnyResponse:
    """Have a router load or unload one of its models."""
    model = request.form.get("model", "")
    if not model:
        raise InvalidRequest("No model was named", field="model")
    _tell(name, f"/models/{verb}", {"model": model})
    return done(url_for("pages.instances.show", name=name))


def _tell(name: str, target: str, body: dict[str, str]) -> None:
    """Ask a router for a change; raises ``Unavailable`` with its words where it refuses."""
    with services().gateway.admit(management(""), None) as passage:
        instance = services().supervisor.get(name)
        raw = json.dumps(body).encode()
        answer = passage.forward(Call(instance, "POST", target, _JSON, raw, wakes=False))
        try:
            told = b"".join(answer.body)
        finally:
            passage.close()
    if answer.status >= 400:
        raise Unavailable(_reason(told) or f"{name} answered {answer.status}")


def _view(model: RouterModel) -> RouterModelView:
    label = "failed" if model.failed else model.status or "not known"
    return RouterModelView(model.name, label, _TONES.get(label, ""), _VERBS.get(label, ""))


def _reason(told: bytes) -> str:
    try:
        return str(json.loads(told)["error"]["message"])
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""
