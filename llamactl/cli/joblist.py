"""``llamactl jobs``: the downloads and checks of a running server."""

from __future__ import annotations

import click

from llamactl.cli.client import segment
from llamactl.cli.groups import DefaultGroup
from llamactl.cli.jobs import MODELS
from llamactl.cli.local import find_server
from llamactl.cli.options import Where, json_option, server_options
from llamactl.cli.output import duration_text, print_json, say, table
from llamactl.cli.progress import Job
from llamactl.sizes import size_text

_HEADS = ("ID", "MODEL", "STATUS", "DONE", "SPEED", "LEFT", "WHY")


@click.group(cls=DefaultGroup)
def jobs() -> None:
    """List and control downloads and checks; without a command they are listed."""


@jobs.command("list")
@json_option
@server_options
def list_jobs(as_json: bool, where: Where) -> None:
    """List the jobs, newest first."""
    found: list[Job] = find_server(where).get(f"{MODELS}/jobs")["jobs"]
    if as_json:
        print_json(found)
    elif found:
        click.echo(table(_HEADS, [_row(job) for job in found]))
    else:
        say("No jobs; begin one with: llamactl download ORG/NAME:TAG")


def _row(job: Job) -> tuple[object, ...]:
    progress = job["progress"]
    total, speed, left = (
        progress[name] for name in ("total_bytes", "bytes_per_second", "eta_seconds")
    )
    model = job["repo"] if job["tag"] is None else f"{job['repo']}:{job['tag']}"
    return (
        job["id"],
        model if job["kind"] == "download" else f"{model} ({job['kind']})",
        job["detail"] or job["status"],
        f"{100 * progress['bytes_downloaded'] // total} % of {size_text(total)}" if total else "-",
        f"{size_text(round(speed))}/s" if speed else "-",
        duration_text(left) if left is not None else "-",
        job["error"] or "",
    )


_ids = click.argument("job_ids", metavar="ID...", nargs=-1, required=True)


def _action(name: str, what: str, said: str) -> None:
    """Add the command ``name``, which asks that of each job."""

    @jobs.command(name, help=what)
    @_ids
    @server_options
    def act(job_ids: tuple[str, ...], where: Where) -> None:
        server = find_server(where)
        for job_id in job_ids:
            job = server.post(f"{MODELS}/jobs/{segment(job_id)}/{name}")
            say(f"{job['repo']} {said}")


_action("pause", "Pause jobs; what was fetched is kept.", "pauses.")
_action("resume", "Go on with paused jobs.", "goes on.")
_action("retry", "Try failed jobs again, from what was fetched.", "is tried again.")


@jobs.command()
@server_options
def clear(where: Where) -> None:
    """Take what has ended off the list; failed downloads with bytes to go on from stay."""
    cleared = find_server(where).delete(f"{MODELS}/jobs")
    removed, kept = cleared["removed"], cleared["kept"]
    say(f"{removed} {'job has' if removed == 1 else 'jobs have'} left the list.")
    if kept:
        stay = "failed download stays: it has" if kept == 1 else "failed downloads stay: they have"
        say(f"{kept} {stay} bytes to go on from. Delete them with: llamactl jobs rm ID")


@jobs.command()
@_ids
@server_options
def rm(job_ids: tuple[str, ...], where: Where) -> None:
    """Cancel jobs and delete what they fetched so far; those that are done leave the list."""
    server = find_server(where)
    for job_id in job_ids:
        server.delete(f"{MODELS}/jobs/{segment(job_id)}")
