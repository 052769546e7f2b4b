"""What an instance runs with, on the command line: ``instances set`` and ``plan``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import click

from llamactl.cli.client import Server, segment
from llamactl.cli.local import find_server
from llamactl.cli.options import Where, json_option, server_options
from llamactl.cli.output import print_json, say
from llamactl.errors import InvalidRequest, sentence_start
from llamactl.instances.flags import lookup
from llamactl.instances.options import Options
from llamactl.sizes import size_text

_OWN = frozenset(each.name for each in fields(Options)) - {"backend_options", "extra_args"}


@click.command("set")
@click.argument("name")
@click.argument("settings", nargs=-1, required=True, metavar="KEY=VALUE...")
@server_options
def set_(name: str, settings: tuple[str, ...], where: Where) -> None:
    """Change options of the instance NAME; it is restarted if it ran.

    KEY is one of llama-server's long flags, such as ctx_size, or one of the instance's own options,
    such as idle_timeout. Without a value (`ctx_size=`) it goes back to its default.
    """
    server = find_server(where)
    options = dict(server.get(f"/instances/{segment(name)}")["options"])
    flags = dict(options.get("backend_options") or {})
    for each, value in assignments(settings).items():
        if each in _OWN:
            options[each] = None if value == "" else value
            continue
        _forget(flags, each)
        if value != "":
            flags[each] = value
    changed = server.put(f"/instances/{segment(name)}", {**options, "backend_options": flags})
    click.echo(f"{changed['name']} {changed['status']}")
    if changed["status"] in ("starting", "running", "stopping"):
        say("It starts again, with these options.")
    tell_warnings(changed)


@click.command()
@click.argument("name")
@json_option
@server_options
def plan(name: str, as_json: bool, where: Where) -> None:
    """Tell what a start of the instance NAME would take, and whom it would stop."""
    found = find_server(where).get(f"/instances/{segment(name)}/plan")
    if as_json:
        print_json(found)
        return
    verdict = {True: "yes", False: "no", None: "not known"}[found["fits"]]
    click.echo(f"needs  {_size(found['needs'])}")
    click.echo(f"free   {_size(found['free'])}")
    click.echo(f"fits   {verdict}")
    click.echo(f"stops  {', '.join(found['evicts']) or 'nobody'}")
    say(found["why"])


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """``name=value`` pairs; a value that is JSON counts as that, anything else as text."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InvalidRequest(f"{text!r} does not have the form NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def tell_warnings(saved: Any) -> bool:
    """Say what a start of an instance that was just saved would fail or be held up by now."""
    warnings = saved.get("warnings") or ()
    for warning in warnings:
        say(sentence_start(warning))
    return bool(warnings)


def tell_obstacle(server: Server, name: str) -> None:
    """Say what else stands against a start of it, if anything does: no memory, no place."""
    found = server.get(f"/instances/{segment(name)}/plan")
    if found["fits"] is False:
        say(found["why"])


def _forget(flags: dict[str, Any], name: str) -> None:
    """Remove a flag under whatever name it stands."""
    wanted = lookup(name)
    for each in list(flags):
        known = lookup(each)
        if each == name or (wanted and known and known[0] == wanted[0]):
            del flags[each]


def _size(size: int | None) -> str:
    return "not known" if size is None else size_text(size)
