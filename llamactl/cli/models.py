"""``llamactl models``: the cached models, through the running server or without one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from llamactl.cli.cached_model import show
from llamactl.cli.client import Server
from llamactl.cli.groups import DefaultGroup
from llamactl.cli.hub_models import search, updates, variants
from llamactl.cli.jobs import MODELS, display_for, follow, open_jobs, reason
from llamactl.cli.local import (
    DataDirectoryHeld,
    cache_alone,
    data_directory,
    find_server,
    services,
)
from llamactl.cli.options import Where, json_option, server_options
from llamactl.cli.output import print_json, say, table
from llamactl.config import Config, load_config
from llamactl.downloads.leftovers import is_about
from llamactl.downloads.states import ACTIVE
from llamactl.errors import LlamactlError, ModelNotFound
from llamactl.models.reference import ModelRef
from llamactl.models.snapshots import cached_model_json
from llamactl.sizes import size_text

NONE_YET = "No models yet; get one with: llamactl download ORG/NAME:TAG"


class VerificationFailed(LlamactlError):
    """A cached file is not what the hub promised."""

    code = "checksum_mismatch"

    @property
    def details(self) -> str:
        """One line for each repo."""
        return self.message


@click.group(cls=DefaultGroup)
def models() -> None:
    """List, check and delete cached models; without a command they are listed."""


@models.command("list")
@json_option
@server_options
def list_models(as_json: bool, where: Where) -> None:
    """List the cached models with their sizes."""
    found = _cached(where)
    if as_json:
        print_json(found)
    elif found:
        heads = ("MODEL", "SIZE", "FILES", "STATE", "PATH")
        click.echo(table(heads, [_row(model) for model in found]))
    else:
        say(NONE_YET)


@models.command()
@click.argument("reference", metavar="ORG/NAME[:TAG]")
@click.option("--yes", is_flag=True, help="Do not ask before every tag of a repo is deleted.")
@server_options
def rm(reference: str, yes: bool, where: Where) -> None:
    """Delete a cached model; without a tag every tag of the repo."""
    ref = ModelRef.parse(reference)
    tag = ref.tag if ":" in reference else None
    if tag is None and not yes and sys.stdin.isatty():
        _confirm(ref.repo_id, _cached(where))
    if where.url is not None:
        _delete_there(find_server(where), ref.repo_id, tag)
    else:
        config = load_config(where.config_file)
        with data_directory(config) as server:
            if server is not None:
                _delete_there(server, ref.repo_id, tag)
            else:
                _delete_here(config, ref.repo_id, tag)
    say(f"{ref if tag else ref.repo_id} is deleted.")


@models.command()
@click.argument("reference", metavar="[ORG/NAME[:TAG]]", required=False)
@click.option("--repair", is_flag=True, help="Fetch what is damaged again.")
@json_option
@server_options
def verify(
    reference: str | None,
    repair: bool,
    as_json: bool,
    where: Where,
) -> None:
    """Compare cached models with what the hub promised.

    Their files are read and hashed again, which takes a while.
    """
    wanted = None if reference is None else ModelRef.parse(reference)
    damaged = []
    with open_jobs(where) as jobs:
        orders: list[tuple[str, str | None]]
        if wanted is None:
            orders = [(repo, None) for repo in sorted({model["repo"] for model in jobs.models()})]
            if not orders:
                say(NONE_YET)
        else:
            orders = [(wanted.repo_id, wanted.tag if ":" in str(reference) else None)]
        for repo_id, tag in orders:
            job = follow(jobs, jobs.verify(repo_id, tag, repair), display_for(as_json))
            if job["status"] != "completed":
                damaged.append(f"{repo_id}: {reason(job, jobs)}")
            elif not as_json:
                click.echo(f"{repo_id}{f':{tag}' if tag else ''} is as the hub promised it")
    if damaged:
        raise VerificationFailed("\n".join(damaged))


for _command in (show, variants, search, updates):
    models.add_command(_command)


def _cached(where: Where) -> Any:
    """The cached models as the REST interface shows them."""
    if where.url is not None:
        return find_server(where).get(MODELS)
    config = load_config(where.config_file)
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(data_directory(config))
        except DataDirectoryHeld:
            # A download in another terminal has the database; looking at the files needs none.
            cache = stack.enter_context(cache_alone(config))
        else:
            if server is not None:
                return server.get(MODELS)
            cache = stack.enter_context(services(config, transfers=False)).cache
        return [cached_model_json(model) for model in cache.list()]


def _confirm(repo_id: str, cached: Sequence[Any]) -> None:
    """Ask whether all tags of a repo shall go; nothing is asked where there are none."""
    tags = [each["tag"] for each in cached if each["repo"].lower() == repo_id.lower()]
    if tags:
        click.confirm(f"Delete {', '.join(tags)} of {repo_id}?", abort=True, err=True)


def _delete_there(server: Server, repo_id: str, tag: str | None) -> None:
    server.delete(MODELS, repo=repo_id, tag=tag)


def _delete_here(config: Config, repo_id: str, tag: str | None) -> None:
    with services(config, transfers=False) as own:
        # No page is there to cancel a download that was interrupted: it goes with its model.
        unfinished = [
            each.job
            for each in own.downloads.jobs()
            if each.job.status in ACTIVE and is_about(each.job, repo_id, tag)
        ]
        for job in unfinished:
            own.downloads.delete(job.id)
        try:
            own.cache.delete(repo_id, tag)
        except ModelNotFound:
            if not unfinished:
                raise


def _row(model: Any) -> tuple[object, ...]:
    state = "complete" if model["complete"] else "incomplete"
    name = f"{model['repo']}:{model['tag']}"
    path = model["files"][0]["path"] if model["files"] else ""
    return (name, size_text(model["total_size"]), model["file_count"], state, path)
