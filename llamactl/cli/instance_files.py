"""Instances as files, on the command line: ``instances export``, ``import`` and ``duplicate``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from llamactl.cli.client import Server, ServerRefused, segment
from llamactl.cli.instance_options import tell_warnings
from llamactl.cli.local import find_server
from llamactl.cli.options import Where, server_options
from llamactl.cli.output import say
from llamactl.errors import InvalidRequest, LlamactlError
from llamactl.instances.portable import exported, read_instances


@click.command("export")
@click.argument("name", required=False)
@click.option("--all", "whole", is_flag=True, help="Every instance, by name.")
@server_options
def export(name: str | None, whole: bool, where: Where) -> None:
    """Print the options of the instance NAME, as `import` takes them.

    Values of variables that look like secrets are masked in it.
    """
    if whole == (name is not None):
        raise InvalidRequest("Name one instance, or say --all")
    server = find_server(where)
    if name is not None:
        options = server.get(f"/instances/{segment(name)}")["options"]
    else:
        options = {each["name"]: each["options"] for each in server.get("/instances")}
    click.echo(exported(options), nl=False)


@click.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--name", default="", help="The name of an instance whose file does not tell it.")
@click.option("--replace", is_flag=True, help="Replace the options of instances that exist.")
@server_options
def import_(file: Any, name: str, replace: bool, where: Where) -> None:
    """Make the instances that FILE holds, as `export` wrote it; - is standard input.

    Nothing is made unless every name in it is free, or --replace is given.
    """
    text = file.read().decode("utf-8", "replace")
    named = name or _name_of(file.name)
    wanted = read_instances(text, name) if name else _with_name_of_the_file(text, named)
    server = find_server(where)
    there = {each["name"] for each in server.get("/instances")}
    taken = sorted(there & wanted.keys())
    if taken and not replace:
        raise InvalidRequest(
            f"{', '.join(taken)}: there is an instance of this name already",
            hint="Say --replace to replace its options, or --name for another name.",
        )
    for each, options in wanted.items():
        _save(server, each, options, exists=each in there)
        say(f"{each} is {'replaced' if each in there else 'made'}.")


@click.command("duplicate")
@click.argument("name")
@click.argument("new")
@server_options
def duplicate(name: str, new: str, where: Where) -> None:
    """Make the instance NEW with the options of NAME."""
    server = find_server(where)
    options = dict(server.get(f"/instances/{segment(name)}")["options"])
    # Two instances cannot both answer to one further name.
    options["aliases"] = []
    tell_warnings(server.post(f"/instances/{segment(new)}", options, like=name))
    say(f"{new} is made.")


def _with_name_of_the_file(text: str, name: str) -> dict[str, Mapping[str, Any]]:
    """A file with one instance's options may have its name in its own."""
    try:
        return read_instances(text)
    except InvalidRequest as error:
        if error.field != "name" or not name:
            raise
        return read_instances(text, name)


def _name_of(path: str) -> str:
    return "" if path in ("-", "<stdin>", sys.stdin.name) else Path(path).stem


def _save(server: Server, name: str, options: Mapping[str, Any], *, exists: bool) -> None:
    try:
        if exists:
            tell_warnings(server.put(f"/instances/{segment(name)}", options))
        else:
            tell_warnings(server.post(f"/instances/{segment(name)}", options))
    # Several are in a file: whoever reads this must know which one it is about.
    except InvalidRequest as error:
        raise InvalidRequest(f"{name}: {error.details}") from error
    except ServerRefused as error:
        raise LlamactlError(f"{name}: {error.details}") from error
