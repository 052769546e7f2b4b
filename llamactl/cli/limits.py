"""``llamactl settings``: what limits all downloads, shown and changed while they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from llamactl.cli.client import Server
from llamactl.cli.jobs import MODELS
from llamactl.cli.local import data_directory, find_server, services
from llamactl.cli.options import Where, json_option, server_options
from llamactl.cli.output import print_json
from llamactl.config import Config, load_config
from llamactl.downloads.limits import Limits, settings_json
from llamactl.settings import SETTINGS
from llamactl.sizes import size_text

_PARSERS = {
    setting.name.removeprefix("downloads."): setting.parse
    for setting in SETTINGS
    if setting.name.startswith("downloads.")
}


def _parsed(_context: click.Context, option: click.Parameter, value: str | None) -> dict[str, Any]:
    """What the option changes, its value read as the configuration's key of that name is."""
    key = str(option.name)
    if value is None:
        return {}
    try:
        return {key: _PARSERS[key](value, {})}
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}.") from None


@click.command()
@click.option(
    "--bandwidth-limit",
    metavar="BYTES",
    callback=_parsed,
    help="Bytes per second for all downloads together, such as 20MB; none lifts the limit.",
)
@click.option(
    "--max-concurrent",
    metavar="COUNT",
    callback=_parsed,
    help="How many downloads run at a time.",
)
@click.option("--reset", is_flag=True, help="Return to what the configuration says.")
@json_option
@server_options
def settings(
    bandwidth_limit: Mapping[str, Any],
    max_concurrent: Mapping[str, Any],
    reset: bool,
    as_json: bool,
    where: Where,
) -> None:
    """Show or change what limits the downloads.

    A change holds at once and over restarts, with and without a running server.
    """
    changes = {**bandwidth_limit, **max_concurrent}
    if reset and changes:
        raise click.UsageError("--reset returns to the configuration; leave the others out.")
    if where.url is not None:
        found = _there(find_server(where), changes, reset)
    else:
        config = load_config(where.config_file)
        with data_directory(config) as server:
            if server is not None:
                found = _there(server, changes, reset)
            else:
                found = _here(config, changes, reset)
    if as_json:
        print_json(found)
    else:
        click.echo(_told(found))


def _there(server: Server, changes: Mapping[str, Any], reset: bool) -> Any:
    path = f"{MODELS}/settings"
    if reset:
        server.delete(path)
    if changes:
        server.put(path, dict(changes))
    return server.get(path)


def _here(config: Config, changes: Mapping[str, Any], reset: bool) -> Any:
    with services(config, transfers=False) as own:
        queue = own.downloads
        if reset:
            queue.set_limits(None)
        if changes:
            queue.set_limits(Limits(**{**vars(queue.limits), **changes}))
        return settings_json(queue.limits, queue.configured, changed=queue.limits_are_set)


def _told(found: Mapping[str, Any]) -> str:
    lines = [f"max_concurrent   {found['max_concurrent']}", f"bandwidth_limit  {_speed(found)}"]
    if found["changed"]:
        configured = found["configured"]
        lines.append(
            f"The configuration says {configured['max_concurrent']} at a time and a limit of "
            f"{_speed(configured)}; `llamactl settings --reset` returns to it."
        )
    return "\n".join(lines)


def _speed(limits: Mapping[str, Any]) -> str:
    most = limits["bandwidth_limit"]
    return "none" if most is None else f"{size_text(most)}/s"
