"""``llamactl download``: one model, by the running server or by this process itself."""

from __future__ import annotations

import click

from llamactl.cli.jobs import display_for, follow, open_jobs, reason
from llamactl.cli.options import Where, json_option, server_options
from llamactl.errors import LlamactlError
from llamactl.models.reference import ModelRef


class DownloadFailed(LlamactlError):
    """The job ended without its model."""

    code = "download_failed"


@click.command()
@click.argument("reference", metavar="ORG/NAME[:TAG]")
@json_option
@server_options
def download(reference: str, as_json: bool, where: Where) -> None:
    """Download a model into the cache and print the path of its GGUF.

    Works with and without a running server. What was interrupted goes on with the same command.
    """
    ref = ModelRef.parse(reference)
    with open_jobs(where) as jobs:
        job = follow(jobs, jobs.download(ref), display_for(as_json))
    if job["status"] != "completed":
        raise DownloadFailed(reason(job, jobs))
    if not as_json:
        click.echo(job["model_path"])
