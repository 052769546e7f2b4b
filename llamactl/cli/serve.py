"""``llamactl serve``: the server in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from llamactl.cli.options import config_option
from llamactl.config import load_config
from llamactl.errors import LlamactlError


@click.command()
@click.option("--host", help="The address to listen on.")
@click.option("--port", type=int, help="The port to listen on; 0 takes a free one.")
@config_option
def serve(host: str | None, port: int | None, config_file: Path | None) -> None:
    """Run the server; what llamactl does without a command."""
    given = {"server.host": host, "server.port": port}
    overrides = {name: value for name, value in given.items() if value is not None}
    if sys.platform == "win32":
        raise LlamactlError(
            "The server needs gunicorn, which does not run on Windows",
            hint="`llamactl download` and `llamactl models` work; run the server in WSL.",
        )
    # Imported here, because gunicorn cannot even be imported on Windows.
    from llamactl.server import serve as run_server

    run_server(load_config(config_file, overrides=overrides))
