"""``llamactl keys``: the inference keys of a running server."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any

import click

from llamactl.cli.client import Server, segment
from llamactl.cli.groups import DefaultGroup
from llamactl.cli.local import find_server
from llamactl.cli.options import Where, json_option, server_options
from llamactl.cli.output import print_json, say, table, time_text

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@click.group(cls=DefaultGroup)
def keys() -> None:
    """List, make and delete inference keys; without a command they are listed."""


@keys.command("list")
@json_option
@server_options
def list_keys(as_json: bool, where: Where) -> None:
    """List the keys; a key itself is only ever shown when it is made."""
    server = find_server(where)
    found = server.get("/auth/keys")
    if as_json:
        print_json(found)
    elif found:
        names = {instance["id"]: instance["name"] for instance in server.get("/instances")}
        heads = ("ID", "NAME", "MAY USE", "EXPIRES", "LAST USED")
        click.echo(table(heads, [_row(record, names) for record in found]))
    else:
        say("No inference keys yet; make one with: llamactl keys create NAME")


@keys.command()
@click.argument("name")
@click.option(
    "--instance",
    "instance_names",
    multiple=True,
    help="An instance that the key may use; may be repeated. Without it the key may use all.",
)
@click.option(
    "--expires",
    metavar="WHEN",
    help="30m, 12h, 30d, 8w from now, or a date such as 2030-01-31.",
)
@json_option
@server_options
def create(
    name: str,
    instance_names: tuple[str, ...],
    expires: str | None,
    as_json: bool,
    where: Where,
) -> None:
    """Make an inference key for NAME and print it, this once."""
    expires_at = None if expires is None else moment(expires, time.time())
    server = find_server(where)
    body = {
        "name": name,
        "permission_mode": "per_instance" if instance_names else "allow_all",
        "instance_ids": [_instance_id(server, wanted) for wanted in instance_names],
        "expires_at": expires_at,
    }
    made = server.post("/auth/keys", body)
    if as_json:
        print_json(made)
        return
    click.echo(made["key"])
    say("Keep it now: it is not shown again.")


@keys.command()
@click.argument("key_id", metavar="ID", type=click.IntRange(min=1))
@server_options
def rm(key_id: int, where: Where) -> None:
    """Delete the key with this ID; requests that use it end."""
    find_server(where).delete(f"/auth/keys/{key_id}")
    say(f"Key {key_id} is deleted.")


def moment(text: str, now: float) -> int:
    """Unix seconds of ``30d`` from now or of a date's midnight here, which must lie ahead."""
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if match:
        return int(now + int(match[1]) * _UNITS[match[2]])
    try:
        found = int(datetime.fromisoformat(text).astimezone().timestamp())
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither like 30d nor like 2030-01-31") from None
    if found <= now:
        raise click.BadParameter(f"{text} is in the past")
    return found


def _instance_id(server: Server, name: str) -> int:
    found: int = server.get(f"/instances/{segment(name)}")["id"]
    return found


def _row(record: Any, names: dict[int, str]) -> tuple[object, ...]:
    may_use = "all instances"
    if record["permission_mode"] == "per_instance":
        ids = record["instance_ids"]
        may_use = ", ".join(names.get(number, f"(deleted {number})") for number in ids)
    return (
        record["id"],
        record["name"],
        may_use,
        time_text(record["expires_at"]),
        time_text(record.get("last_used_at")),
    )
