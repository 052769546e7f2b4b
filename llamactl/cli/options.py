"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from llamactl.models.fit import LARGEST_CONTEXT, USUAL_CONTEXT

Command = TypeVar("Command", bound=Callable[..., Any])

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration file to read instead of the usual ones.",
)
ctx_size_option = click.option(
    "--ctx-size",
    type=click.IntRange(min=0, max=LARGEST_CONTEXT),
    default=USUAL_CONTEXT,
    show_default=True,
    help="Tokens of context that are to fit; 0 is the model's own.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")


def server_options(command: Command) -> Command:
    """``--url`` and ``--key`` of the server to ask; the configuration finds a local one."""
    for option in (
        config_option,
        click.option(
            "--key",
            envvar="LLAMACTL_KEY",
            show_envvar=True,
            help="A management key; for the server of this machine it is found by itself.",
        ),
        click.option(
            "--url",
            envvar="LLAMACTL_URL",
            show_envvar=True,
            help="The server to ask; left out, the one that runs on this machine.",
        ),
    ):
        command = option(command)
    return command
