"""The models of an instance in router mode: ``instances models``, ``load`` and ``unload``."""

from __future__ import annotations

from urllib.parse import quote

import click

from llamactl.cli.client import Server, ServerRefused, segment
from llamactl.cli.local import find_server
from llamactl.cli.options import Where, json_option, server_options
from llamactl.cli.output import print_json, say, table
from llamactl.errors import ModelNotFound

#: What a router is told and then does, in seconds.
LOAD_SECONDS = 120.0


@click.command()
@click.argument("name")
@json_option
@server_options
def models(name: str, as_json: bool, where: Where) -> None:
    """List what the router NAME offers, and what of it is loaded."""
    found = find_server(where).get(f"/llama-cpp/{segment(name)}/models")
    if as_json:
        print_json(found)
        return
    rows = [(each["id"], (each.get("status") or {}).get("value", "")) for each in found["data"]]
    if rows:
        click.echo(table(("MODEL", "STATUS"), rows))
    else:
        say("It offers nothing; download a model with: llamactl download ORG/NAME:TAG")


@click.command()
@click.argument("name")
@click.argument("model")
@server_options
def load(name: str, model: str, where: Where) -> None:
    """Have the router NAME load MODEL; a stopped router is started for it."""
    server = find_server(where)
    _ask(server, name, model, "load", patience=LOAD_SECONDS)
    say(f"{name} loads {model}; see how far it is with: llamactl instances models {name}")


@click.command()
@click.argument("name")
@click.argument("model")
@server_options
def unload(name: str, model: str, where: Where) -> None:
    """Have the router NAME give back the memory of MODEL."""
    _ask(find_server(where), name, model, "unload")
    say(f"{name} unloads {model}.")


def _ask(server: Server, name: str, model: str, verb: str, patience: float = 0) -> None:
    """Raises ``ModelNotFound`` for a model that the router does not offer."""
    path = f"/llama-cpp/{segment(name)}/models/{quote(model, safe='/:')}/{verb}"
    try:
        server.post(path, patience=patience)
    except ServerRefused as error:
        if error.status != 404 or error.error_code != "instance_error":
            raise
        # llama.cpp's own words for it are "File Not Found".
        raise ModelNotFound(
            f"{name} offers no model {model}",
            hint=f"See those there are with `llamactl instances models {name}`.",
        ) from error
