"""``/openapi.json``: what the application answers to, read from its own route table.

Paths, methods and variables come from the URL map; bodies and queries from the forms that check
them. What is written here by hand is only what the code cannot say of itself.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flask import Blueprint, Flask, Response, current_app
from werkzeug.routing import Rule

from llamactl.gateway.catalogue import NamedModelJson
from llamactl.web import schema
from llamactl.web.answer_schema import components, schema_of
from llamactl.web.answers import json_answer
from llamactl.web.api.routing import OPERATIONS, Operation
from llamactl.web.openai.inference import NamedModelsJson

blueprint = Blueprint("openapi", __name__)

PREFIXES = ("/api/v1", "/v1", "/llama-cpp", "/healthz", "/metrics")
WITHOUT_KEY = ("/healthz",)
INTRODUCTION = (
    "Management (/api/v1) wants a management key; inference (/v1, /llama-cpp) takes an inference "
    "key as well."
)
DONE = {200: "Done"}
PASSED_ON = {
    200: "What the instance answers, in its own form",
    400: "The request cannot be understood",
    404: "There is no such model, or none that the key may use",
    409: "There is no room for another instance",
    429: "A limit is reached",
    502: "The instance did not answer",
    503: "The instance does not run, or did not start",
}
#: What every body of inference has; the rest of it is the instance's to understand.
NAMES_A_MODEL = {
    "type": "object",
    "properties": {
        "model": {
            "type": "string",
            "description": "An instance or one of its aliases, or INSTANCE/MODEL in router mode.",
        }
    },
    "required": ["model"],
}
#: Below these a body may be a form with files.
TAKING_FILES = ("/v1/audio/", "/v1/images/")
#: Routes that are no part of the management API and answer in a form of their own.
BY_HAND = {
    "/healthz": Operation("Say ok, to anyone.", DONE, media=("text/plain",)),
    "/metrics": Operation(
        "Show counters and gauges in Prometheus's text format.", DONE, media=("text/plain",)
    ),
    "/v1/models": Operation(
        "Show what this key may use: instances and their aliases.", DONE, gives=NamedModelsJson
    ),
    "/v1/models/<path:model>": Operation(
        "Show one of the models that this key may use.", DONE, gives=NamedModelJson
    ),
}
_VARIABLE = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")


@blueprint.get("/openapi.json")
def show() -> Response:
    """Describe the interface of this server."""
    return json_answer(document(current_app))


def document(app: Flask) -> dict[str, object]:
    """The OpenAPI 3.1 document of an application's machine-read routes."""
    paths: dict[str, dict[str, object]] = {}
    for rule, method in _operations(app):
        path = _VARIABLE.sub(r"{\1}", rule.rule)
        view = app.view_functions[rule.endpoint]
        paths.setdefault(path, {})[method.lower()] = _described(rule, method, view)
    return {
        "openapi": "3.1.0",
        "info": {"title": "llamactl", "version": "1", "description": INTRODUCTION},
        "security": [{"bearer": []}, {"header": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "schemas": {
                **components(known.gives for known in (*OPERATIONS.values(), *BY_HAND.values())),
                "ManagementError": MANAGEMENT_ERROR,
                "InferenceError": INFERENCE_ERROR,
            },
        },
    }


MANAGEMENT_ERROR = {
    "type": "object",
    "properties": {
        "error": {"type": "string", "description": "A stable word, in snake_case."},
        "details": {"type": "string", "description": "What is wrong, and what to do about it."},
    },
    "required": ["error", "details"],
}
INFERENCE_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "code", "param"],
        }
    },
    "required": ["error"],
}


def _operations(app: Flask) -> Iterator[tuple[Rule, str]]:
    for rule in app.url_map.iter_rules():
        if any(rule.rule == each or rule.rule.startswith(each + "/") for each in PREFIXES):
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule, method


def _described(rule: Rule, method: str, view: Callable[..., Any]) -> dict[str, object]:
    summary = (inspect.getdoc(view) or rule.endpoint).partition("\n\n")[0].replace("\n", " ")
    takes = NAMES_A_MODEL if rule.rule.startswith("/v1/") else None
    passed_on = Operation(summary, PASSED_ON, takes=takes)
    known = OPERATIONS.get(view) or BY_HAND.get(rule.rule) or passed_on
    variables = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _VARIABLE.findall(rule.rule)
    ]
    queries = schema.query_parameters(known.query) if known.query else []
    described: dict[str, object] = {
        "summary": known.summary,
        "operationId": "_".join(re.findall("[A-Za-z0-9]+", f"{method.lower()} {rule.rule}")),
        "parameters": [*variables, *queries],
        "responses": _responses(rule, method, known),
    }
    taken = _body(known)
    if taken is not None:
        content = {"application/json": {"schema": taken}}
        if rule.rule.startswith(TAKING_FILES):
            content["multipart/form-data"] = {"schema": taken}
        described["requestBody"] = {"required": True, "content": content}
    if rule.rule in WITHOUT_KEY:
        described["security"] = []
    return described


def _body(known: Operation) -> Mapping[str, object] | None:
    if known.body is None:
        return known.takes
    taken = schema.json_schema(known.body)
    return {**taken, "required": []} if known.partial else taken


def _responses(rule: Rule, method: str, known: Operation) -> dict[str, object]:
    answers = dict(known.answers)
    if rule.rule not in WITHOUT_KEY:
        answers.setdefault(401, "No key, or a wrong one")
        answers.setdefault(403, "The key does not open this")
        answers.setdefault(429, "Too many wrong keys came from this address")
    if _body(known) is not None or known.query is not None:
        answers.setdefault(400, "The request does not have the form described here")
    if rule.arguments:
        answers.setdefault(404, "There is nothing at this address")
    if method in {"POST", "PUT"}:
        answers.setdefault(413, "The body is too large")
        answers.setdefault(415, "The body is not application/json")
        answers.setdefault(503, "The server is stopping")
    kind = "ManagementError" if rule.rule.startswith("/api") else "InferenceError"
    error = {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind}"}}}
    success = _success(known)
    return {
        str(status): {
            "description": answers[status],
            **({"content": content} if (content := error if status >= 400 else success) else {}),
        }
        for status in sorted(answers)
    }


def _success(known: Operation) -> dict[str, object]:
    if known.gives is not None:
        return {"application/json": {"schema": schema_of(known.gives)}}
    return {media: {"schema": {"type": "string"}} for media in known.media}
