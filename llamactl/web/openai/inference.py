"""``/v1``: what OpenAI's and Anthropic's clients call."""

from __future__ import annotations

from typing import TypedDict

from flask import Blueprint, Response, request

from llamactl.gateway.catalogue import NamedModelJson
from llamactl.gateway.passage import Call
from llamactl.gateway.paths import OPENAI_POSTS
from llamactl.gateway.routing import no_model
from llamactl.web import services
from llamactl.web.answers import json_answer
from llamactl.web.openai.passing import forward, headers, inference_principal, model_body

blueprint = Blueprint("openai", __name__)


class NamedModelsJson(TypedDict):
    """What a key may use, in OpenAI's form."""

    object: str
    data: list[NamedModelJson]


def infer() -> Response:
    """Ask the model that the body names; a stopped instance is started for it."""
    principal = inference_principal()

    def plan() -> Call:
        route = services().gateway.route(principal, model_body())
        # The rule and not the path of the request: what is asked of an instance is ours to say.
        target = request.url_rule.rule if request.url_rule else ""
        return Call(route.instance, "POST", target, headers(), route.body, intact=route.intact)

    return forward(principal, plan)


for _path in sorted(OPENAI_POSTS):
    blueprint.add_url_rule(
        f"/v1/{_path}", _path.replace("/", "-"), infer, methods=["POST"], strict_slashes=False
    )


@blueprint.get("/v1/models")
def list_models() -> Response:
    """Show what this key may use: instances and their aliases."""
    data = services().gateway.models(inference_principal())
    answer: NamedModelsJson = {"object": "list", "data": data}
    return json_answer(answer)


@blueprint.get("/v1/models/<path:model>")
def show_model(model: str) -> Response:
    """Show one of the models that this key may use."""
    for entry in services().gateway.models(inference_principal()):
        if entry["id"] == model:
            return json_answer(entry)
    raise no_model(model)
