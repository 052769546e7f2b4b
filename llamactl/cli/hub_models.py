"""What the hub has, on the command line: ``models variants``, ``search`` and ``updates``."""

from __future__ import annotations

from typing import Any

import click

from llamactl.cli.jobs import MODELS
from llamactl.cli.local import cache_alone, find_server, hub_client
from llamactl.cli.options import Where, ctx_size_option, json_option, server_options
from llamactl.cli.output import print_json, say, table, time_text
from llamactl.config import load_config
from llamactl.downloads.offered import offers_json
from llamactl.downloads.offers import Offers
from llamactl.downloads.updates import find_updates, update_json
from llamactl.errors import InvalidRequest, ModelNotFound
from llamactl.hub.remote import search_hit_json
from llamactl.instances.backend import Backend
from llamactl.models.fit import Load
from llamactl.models.reference import ModelRef
from llamactl.sizes import size_text


@click.command()
@click.argument("repo_id", metavar="ORG/NAME")
@ctx_size_option
@json_option
@server_options
def variants(
    repo_id: str,
    ctx_size: int,
    as_json: bool,
    where: Where,
) -> None:
    """List a repo's quants, their sizes and which fit this machine."""
    _check_repo(repo_id)
    if where.url is not None:
        server = find_server(where)
        found = server.get(f"{MODELS}/variants", repo=repo_id, ctx_size=ctx_size)
    else:
        config = load_config(where.config_file)
        with cache_alone(config) as cache:
            offers = Offers(hub_client(config), cache)
            machine = Backend(config.llama_cpp).machine()
            found = offers_json(offers.of(repo_id, Load(ctx_size), machine))
    if as_json:
        print_json(found)
        return
    heads = ("TAG", "SIZE", "MEMORY", "FITS", "CACHED", "FILES")
    click.echo(table(heads, [_variant_row(variant) for variant in found["variants"]]))
    if found.get("refused"):
        say(found["refused"])


@click.command()
@click.argument("text", metavar="TEXT")
@json_option
@server_options
def search(text: str, as_json: bool, where: Where) -> None:
    """Find repos with GGUF files on the hub by a part of their names."""
    found: list[Any]
    if where.url is not None:
        found = find_server(where).get(f"{MODELS}/search", q=text)
    else:
        found = [
            search_hit_json(hit) for hit in hub_client(load_config(where.config_file)).search(text)
        ]
    if as_json:
        print_json(found)
    elif found:
        heads = ("REPO", "DOWNLOADS", "LIKES", "UPDATED", "GATED")
        click.echo(table(heads, [_hit_row(hit) for hit in found]))
    else:
        say("No repo with GGUF files has this in its name.")


@click.command()
@click.argument("repo_id", metavar="[ORG/NAME]", required=False)
@json_option
@server_options
def updates(repo_id: str | None, as_json: bool, where: Where) -> None:
    """List the cached models of which the hub has newer files."""
    if repo_id is not None:
        _check_repo(repo_id)
    found: list[Any]
    if where.url is not None:
        server = find_server(where)
        found = server.get(f"{MODELS}/updates", repo=repo_id)
        cached = set() if found else {model["repo"] for model in server.get(MODELS)}
    else:
        config = load_config(where.config_file)
        with cache_alone(config) as cache:
            newer = find_updates(hub_client(config), cache, repo_id)
            cached = {model.ref.repo_id for model in cache.list()}
        found = [update_json(update) for update in newer]
    if repo_id is not None and not found and repo_id not in cached:
        raise ModelNotFound(f"{repo_id} is not in the cache", hint="Check the spelling")
    if as_json:
        print_json(found)
    elif found:
        rows = [(f"{each['repo']}:{each['tag']}", ", ".join(each["changed"])) for each in found]
        click.echo(table(("MODEL", "CHANGED"), rows))
    else:
        say(f"{repo_id or 'Every cached model'} is as the hub has it.")


def _check_repo(repo_id: str) -> None:
    if ModelRef.parse(repo_id).repo_id != repo_id:
        raise InvalidRequest("Name the repo alone, as org/name", field="repo")


def _variant_row(variant: Any) -> tuple[object, ...]:
    fits = {True: "yes", False: "no", None: "?"}[variant["fits"]]
    if variant["fits"] is False and variant["fits_when_idle"]:
        fits = "when nothing else runs"
    return (
        variant["tag"],
        size_text(variant["size"]),
        size_text(variant["memory"]["total"]),
        fits,
        "newer there" if variant["newer"] else "yes" if variant["cached"] else "",
        len(variant["files"]),
    )


def _hit_row(hit: Any) -> tuple[object, ...]:
    updated = time_text(hit["updated"]) if hit["updated"] else ""
    return (hit["repo"], hit["downloads"], hit["likes"], updated, "yes" if hit["gated"] else "")
