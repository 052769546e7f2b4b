"""The llama.cpp behind the instances: its own words, and its command lines as options."""

from __future__ import annotations

from flask import Blueprint, Response

from llamactl.errors import Unavailable
from llamactl.instances.commandline import parse_command
from llamactl.instances.options import Options, OptionsJson
from llamactl.web import services
from llamactl.web.answers import json_answer, text_answer
from llamactl.web.api.routing import route
from llamactl.web.forms import ParseCommandRequest

blueprint = Blueprint("llama_cpp", __name__, url_prefix="/backends/llama-cpp")

PLAIN = ("text/plain",)


@route(
    blueprint,
    "POST",
    "/parse-command",
    body=ParseCommandRequest,
    gives=OptionsJson,
    answers={200: "Options for an instance", 400: "No llama-server command"},
)
def parse(body: ParseCommandRequest) -> Response:
    """Turn a pasted llama-server command line into an instance's options.

    A model that `-hf` would fetch and that is cached is their `model`.
    """
    options = Options.from_json(parse_command(body.command), services().config)
    return json_answer(services().supervisor.with_cached_model(options).to_json())


@route(blueprint, "GET", "/help", media=PLAIN, answers={200: "Plain text", 503: "There is none"})
def show_help() -> Response:
    """Show the flags that llama-server says it has."""
    return _told("--help")


@route(blueprint, "GET", "/version", media=PLAIN, answers={200: "Plain text", 503: "There is none"})
def show_version() -> Response:
    """Show which llama-server runs the instances."""
    return _told("--version")


@route(blueprint, "GET", "/devices", media=PLAIN, answers={200: "Plain text", 503: "There is none"})
def show_devices() -> Response:
    """Show the devices that llama-server can compute on."""
    return _told("--list-devices")


def _told(flag: str) -> Response:
    supervisor = services().supervisor
    output = supervisor.backend_output(flag)
    if output is None:
        raise Unavailable(supervisor.backend().warning or "No llama-server can be run here")
    return text_answer(output)
