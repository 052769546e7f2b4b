"""``llamactl models show``: what a cached model says of itself, and what memory it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from llamactl.cli.local import cache_alone
from llamactl.cli.options import config_option, ctx_size_option, json_option
from llamactl.cli.output import plain, print_json
from llamactl.config import load_config
from llamactl.errors import ModelNotFound
from llamactl.instances.backend import Backend
from llamactl.models.description import describe
from llamactl.models.fit import Load, Machine, judge
from llamactl.models.reference import ModelRef
from llamactl.models.snapshots import CachedModel, cached_model_json
from llamactl.sizes import size_text


@click.command()
@click.argument("reference", metavar="ORG/NAME[:TAG]")
@ctx_size_option
@json_option
@config_option
def show(reference: str, ctx_size: int, as_json: bool, config_file: Path | None) -> None:
    """Show what cached models of this machine say of themselves.

    Without a tag every cached tag of the repo is shown.
    """
    ref = ModelRef.parse(reference)
    config = load_config(config_file)
    with cache_alone(config) as cache:
        if ":" in reference:
            found = [model for model in [cache.find(ref)] if model is not None]
        else:
            found = [model for model in cache.list() if model.ref.repo_id == ref.repo_id]
    if not found:
        raise ModelNotFound(f"{reference} is not in the cache", hint="`llamactl models` lists them")
    machine = Backend(config.llama_cpp).machine()
    shown = [_told(model, Load(ctx_size), machine) for model in found]
    if as_json:
        print_json(shown)
    else:
        click.echo("\n\n".join(_text(model) for model in shown))


def _told(model: CachedModel, load: Load, machine: Machine) -> dict[str, Any]:
    told = describe(model, load)
    need = told.need
    return {
        **cached_model_json(model),
        "facts": told.facts,
        "chat_template": told.chat_template,
        "unreadable": told.unreadable,
        "memory": None if need is None else {**asdict(need), "total": need.total},
        "fits": None if need is None else judge(need, machine).fits,
    }


def _text(told: Mapping[str, Any]) -> str:
    state = "complete" if told["complete"] else "incomplete"
    files = "1 file" if told["file_count"] == 1 else f"{told['file_count']} files"
    rows = [("State", f"{state}, {size_text(told['total_size'])} in {files}")]
    rows += told["facts"].items()
    if told["unreadable"]:
        rows.append(("Header", told["unreadable"]))
    if told["memory"]:
        rows.append(("Memory", _memory_text(told["memory"], told["fits"])))
    rows += [("File", file["path"]) for file in told["files"]]
    width = max(len(name) for name, _value in rows)
    lines = [f"  {name.ljust(width)}  {plain(value)}" for name, value in rows]
    return "\n".join([f"{told['repo']}:{plain(told['tag'])}", *lines])


def _memory_text(memory: Mapping[str, Any], fits: bool | None) -> str:
    names = ("weights", "cache", "compute", "projector")
    parts = " + ".join(f"{size_text(memory[name])} {name}" for name in names if memory[name])
    verdict = {True: "fits", False: "does not fit now", None: "whether it fits is not known"}[fits]
    context = f"{memory['ctx_size']:,} tokens" if memory["ctx_size"] else "its own context"
    return f"{size_text(memory['total'])} with {context}: {verdict} ({parts})"
