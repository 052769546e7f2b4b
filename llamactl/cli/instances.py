"""``llamactl instances``: the instances of a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from llamactl.cli.client import Server, segment
from llamactl.cli.groups import DefaultGroup
from llamactl.cli.instance_files import duplicate, export, import_
from llamactl.cli.instance_models import load, models, unload
from llamactl.cli.instance_options import assignments, plan, set_, tell_obstacle, tell_warnings
from llamactl.cli.local import find_server
from llamactl.cli.options import Where, json_option, server_options
from llamactl.cli.output import print_json, say, table
from llamactl.instances.commandline import left_out, parse_command
from llamactl.instances.options import Options
from llamactl.sizes import size_text

WAIT_SECONDS = 120.0

_wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=WAIT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until it is done; 0 returns at once.",
)


@click.group(cls=DefaultGroup)
def instances() -> None:
    """List and control instances; without a command they are listed."""


@instances.command("list")
@json_option
@server_options
def list_instances(as_json: bool, where: Where) -> None:
    """List the instances with their state."""
    found = find_server(where).get("/instances")
    if as_json:
        print_json(found)
    elif found:
        heads = ("NAME", "STATUS", "PORT", "MEMORY", "MODEL", "ERROR")
        click.echo(table(heads, [_row(instance) for instance in found]))
    else:
        say("No instances yet; make one with: llamactl instances create NAME --model ORG/NAME:TAG")


@instances.command()
@click.argument("name")
@click.option("--model", help="A cached model as org/name:tag, or the path of a GGUF file.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FLAG=VALUE",
    help="One of llama-server's long flags, such as ctx_size=8192; may be repeated.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="One of the instance's own options, such as idle_timeout=5; may be repeated.",
)
@click.option(
    "--line", help="A llama-server command line to take the flags from; --set goes before it."
)
@click.option("--alias", "aliases", multiple=True, help="A further name for requests.")
@click.option("--start", is_flag=True, help="Start it at once and wait until it answers.")
@server_options
def create(
    name: str,
    model: str | None,
    settings: tuple[str, ...],
    options: tuple[str, ...],
    line: str | None,
    aliases: tuple[str, ...],
    start: bool,
    where: Where,
) -> None:
    """Make the instance NAME; without a model it is llama.cpp's router."""
    server = find_server(where)
    read = _read_line(server, line) if line is not None else {}
    backend_options = {**read.get("backend_options", {}), **assignments(settings)}
    if model is not None:
        backend_options["model"] = model if where.url is not None else _as_seen_by_the_server(model)
    body: dict[str, Any] = {**read, "backend_type": "llama_cpp", **assignments(options)}
    body["backend_options"] = backend_options
    if aliases:
        body["aliases"] = list(aliases)
    instance = server.post(f"/instances/{segment(name)}", body)
    warned = tell_warnings(instance)
    if start:
        instance = server.post(f"/instances/{segment(name)}/start", wait=WAIT_SECONDS)
    _report(instance, server)
    if not start and not warned:
        tell_obstacle(server, name)


@instances.command()
@click.argument("name")
@server_options
def show(name: str, where: Where) -> None:
    """Print everything known of the instance NAME as JSON."""
    print_json(find_server(where).get(f"/instances/{segment(name)}"))


@instances.command()
@click.argument("name")
@_wait_option
@server_options
def start(name: str, wait: float, where: Where) -> None:
    """Start the instance NAME."""
    _change(find_server(where), name, "start", wait)


@instances.command()
@click.argument("name")
@_wait_option
@server_options
def stop(name: str, wait: float, where: Where) -> None:
    """Stop the instance NAME."""
    _change(find_server(where), name, "stop", wait)


@instances.command()
@click.argument("name")
@_wait_option
@server_options
def restart(name: str, wait: float, where: Where) -> None:
    """Stop the instance NAME and start it again."""
    _change(find_server(where), name, "restart", wait)


@instances.command()
@click.argument("name")
@click.option("-n", "--lines", type=click.IntRange(min=1), help="Only the last lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what it writes, until Ctrl-C.")
@server_options
def logs(
    name: str,
    lines: int | None,
    follow: bool,
    where: Where,
) -> None:
    """Print what the instance NAME wrote."""
    server = find_server(where)
    path = f"/instances/{segment(name)}/logs"
    if not follow:
        click.echo(server.text(path, lines=lines), nl=False)
        return
    for event in server.events(path, lines=lines, follow="true"):
        click.echo(event)


@instances.command()
@click.argument("name")
@click.option("--stop", "stop_first", is_flag=True, help="Stop it first if it runs.")
@server_options
def rm(name: str, stop_first: bool, where: Where) -> None:
    """Delete the instance NAME; its model stays."""
    server = find_server(where)
    if stop_first:
        server.post(f"/instances/{segment(name)}/stop", wait=WAIT_SECONDS)
    server.delete(f"/instances/{segment(name)}")
    say(f"{name} is deleted.")


for _command in (export, import_, duplicate, set_, plan, models, load, unload):
    instances.add_command(_command)


def _read_line(server: Server, line: str) -> dict[str, Any]:
    """The options of a pasted line, by the server's own rules; what it leaves out is said."""
    read: dict[str, Any] = server.post("/backends/llama-cpp/parse-command", {"command": line})
    for flag, why in left_out(line).items():
        say(f"{flag} is left out: {why}.")
    flags = read.get("backend_options", {})
    if "hf_repo" not in flags and parse_command(line)["backend_options"].get("hf_repo"):
        say(f"--hf-repo is left out: {flags['model']} is cached, so nothing is fetched.")
    return read


def _change(server: Server, name: str, verb: str, wait: float) -> None:
    _report(server.post(f"/instances/{segment(name)}/{verb}", wait=wait), server)


def _report(instance: Any, server: Server) -> None:
    click.echo(f"{instance['name']} {instance['status']}")
    if instance["status"] == "running":
        name = instance["name"]
        if Options(_flags(instance)).is_router:
            say(f"It answers as models {name}/MODEL at {server.url}/v1; which they are:")
            say(f"llamactl instances models {name}")
        else:
            say(f"It answers as model {name} at {server.url}/v1.")


def _as_seen_by_the_server(model: str) -> str:
    """A file's path holds from the directory of whoever typed it, not from the server's."""
    file = Path(model).expanduser()
    return str(file.absolute()) if file.is_file() else model


def _row(instance: Any) -> tuple[object, ...]:
    flags = _flags(instance)
    model = flags.get("model") or flags.get("hf_repo")
    error = (instance["error"] or "").partition("\n")[0]
    memory = instance.get("memory_bytes")
    return (
        instance["name"],
        instance["status"] if instance["health"] != "wedged" else "wedged",
        instance["port"] or "-",
        size_text(memory) if memory else "-",
        model or ("(router)" if Options(flags).is_router else ""),
        error,
    )


def _flags(instance: Any) -> dict[str, Any]:
    flags: dict[str, Any] = instance["options"].get("backend_options", {})
    return flags
