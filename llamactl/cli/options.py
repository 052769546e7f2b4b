"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click

from llamactl.models.fit import LARGEST_CONTEXT, USUAL_CONTEXT
from llamactl.secret import Secret

Command = Callable[..., Any]

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


class Where(NamedTuple):
    """Which server to ask, as far as it was said; left out, the one that runs on this machine."""

    url: str | None
    key: Secret | None
    config_file: Path | None


def server_options(command: Command) -> Callable[..., Any]:
    """``--url``, ``--key`` and ``--config``; the command gets them together as ``where``."""

    @functools.wraps(command)
    def located(
        *, url: str | None, key: str | None, config_file: Path | None, **given: object
    ) -> Any:
        return command(where=Where(url, Secret(key) if key else None, config_file), **given)

    with_options: Callable[..., Any] = located
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
        with_options = option(with_options)
    return with_options
