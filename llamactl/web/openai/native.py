"""``/llama-cpp/NAME``: one instance by its name, in llama-server's own words."""

from __future__ import annotations

import json

from flask import Blueprint, Response
from werkzeug.exceptions import NotFound

from llamactl.errors import UpstreamGone
from llamactl.gateway.passage import Call
from llamactl.gateway.paths import is_shown_in_part, native_target, shown_part
from llamactl.web import services
from llamactl.web.answers import json_answer
from llamactl.web.openai.passing import forward, headers, inference_principal, model_body

blueprint = Blueprint("llama_cpp", __name__, url_prefix="/llama-cpp")

_LARGEST_ANSWER = 1 << 20


@blueprint.post("/<name>/<path:rest>")
def post(name: str, rest: str) -> Response:
    """Ask an instance for inference; a stopped one is started for it."""
    principal = inference_principal()
    target = _allowed("POST", rest)

    def plan() -> Call:
        instance = services().gateway.instance(principal, name)
        return Call(instance, "POST", target, headers(), model_body().raw, intact=True)

    return forward(principal, plan)


@blueprint.get("/<name>/<path:rest>")
def get(name: str, rest: str) -> Response:
    """Show an instance's health, models or properties; none is started for it."""
    principal = inference_principal()
    target = _allowed("GET", rest)

    def plan() -> Call:
        instance = services().gateway.instance(principal, name)
        return Call(instance, "GET", target, headers(), b"", wakes=False)

    response = forward(principal, plan)
    return _in_part(target, response) if is_shown_in_part(target) else response


def _allowed(method: str, rest: str) -> str:
    target = native_target(method, rest)
    if target is None:
        raise NotFound
    return target


def _in_part(target: str, response: Response) -> Response:
    """What says how to talk to the model, and nothing of the machine."""
    if response.status_code != 200:
        return response
    with response:
        raw = b""
        for piece in response.iter_encoded():
            raw += piece
            if len(raw) > _LARGEST_ANSWER:
                raise UpstreamGone(f"The instance's answer to {target} is too long")
    try:
        return json_answer(shown_part(target, json.loads(raw)))
    except (ValueError, TypeError, RecursionError) as error:
        raise UpstreamGone(f"The instance's answer to {target} cannot be read") from error
