"""What pages show of models and keys: a dataclass each, whose fields are the page's contract.

They are made from the forms that the REST interface answers with, so that a page and a script are
told the same. Jobs, instances and the server have modules of their own beside this one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from llamactl.access.records import KeyRecord
from llamactl.sizes import size_text
from llamactl.web.texts import ago_text, iso_text, moment_html, moment_text

Json = Mapping[str, Any]
#: A verb of a page's address, the label of its button, the button's class.
Button = tuple[str, str, str]


@dataclass(frozen=True)
class Moment:
    """A time as a page shows it: how long ago, in full, and for programs."""

    ago: str
    full: str
    iso: str


@dataclass(frozen=True)
class CachedFileView:
    name: str
    path: str
    size: str
    type: str


@dataclass(frozen=True)
class CachedModelView:
    """One cached tag; its GGUF comes first among ``files``. ``anchor`` is its id on the page."""

    repo: str
    tag: str
    reference: str
    anchor: str
    org: str
    name: str
    instance_name: str
    complete: bool
    can_run: bool
    size: str
    file_count: int
    changed: Moment | None
    files: tuple[CachedFileView, ...]


@dataclass(frozen=True)
class CachedModelsView:
    """``total``: how many models there are, also beyond those that a filter leaves."""

    models: tuple[CachedModelView, ...]
    total: int
    summary: str
    cache_dir: str


@dataclass(frozen=True)
class DeletionView:
    """What goes with a cached tag, and what stays because another tag needs it."""

    model: CachedModelView
    going: tuple[CachedFileView, ...]
    staying: tuple[CachedFileView, ...]
    freed: str


@dataclass(frozen=True)
class KeyView:
    id: int
    name: str
    begins: str
    may_use: str
    expires: str
    expired: bool
    last_used: str
    requests: str
    tokens: str


def cached_models_view(
    models: Sequence[Json], cache_dir: str, now: float, total: int | None = None
) -> CachedModelsView:
    """The cached models by name; ``total`` is how many a filter chose them from."""
    total = len(models) if total is None else total
    shown = [
        cached_model_view(model, now)
        for model in sorted(models, key=lambda model: (model["repo"].lower(), model["tag"].lower()))
    ]
    # Tags may share files: what lies on the disk is counted once.
    sizes = {file["path"]: file["size"] for model in models for file in model["files"]}
    count = f"{len(shown)} of {total}" if len(shown) < total else str(total)
    summary = f"{count} model{'' if total == 1 else 's'}, {size_text(sum(sizes.values()))}"
    return CachedModelsView(tuple(shown), total, summary, cache_dir)


def cached_model_view(model: Json, now: float) -> CachedModelView:
    files = sorted(model["files"], key=lambda file: file.get("type") != "gguf")
    reference = f"{model['repo']}:{model['tag']}"
    newest = max((file["modified"] for file in files), default=0)
    complete = bool(model.get("complete", True))
    return CachedModelView(
        repo=model["repo"],
        tag=model["tag"],
        reference=reference,
        anchor="model-" + hashlib.sha256(reference.encode("utf-8", "replace")).hexdigest()[:12],
        org=model["repo"].partition("/")[0],
        name=model["repo"].partition("/")[2],
        instance_name=instance_name_for(model["repo"], model["tag"]),
        complete=complete,
        can_run=complete and any(file.get("type") == "gguf" for file in files),
        size=size_text(model["total_size"]),
        file_count=model["file_count"],
        changed=moment_view(newest, now) if newest else None,
        files=tuple(
            CachedFileView(
                file["name"], file["path"], size_text(file["size"]), file.get("type", "gguf")
            )
            for file in files
        ),
    )


def deletion_view(model: Json, going: Set[str], now: float) -> DeletionView:
    """``going`` are the names of the files that would go."""
    view = cached_model_view(model, now)
    sizes = {file["name"]: file["size"] for file in model["files"]}
    return DeletionView(
        view,
        tuple(file for file in view.files if file.name in going),
        tuple(file for file in view.files if file.name not in going),
        size_text(sum(sizes[name] for name in sizes if name in going)),
    )


def key_view(key: KeyRecord, instance_names: Mapping[int, str], now: float) -> KeyView:
    """An inference key; ids of instances that are gone are counted, not named."""
    return KeyView(
        id=key.id,
        name=key.name,
        begins=f"llc_{key.public_id[:8]}",
        may_use=_may_use(key, instance_names),
        expires=moment_html(key.expires_at) if key.expires_at else "never",
        expired=key.expires_at is not None and key.expires_at <= now,
        last_used=ago_text(key.last_used_at, now) if key.last_used_at else "never",
        requests=f"{key.requests:,}",
        tokens=f"{key.tokens:,}",
    )


def instance_name_for(repo: str, tag: str) -> str:
    """A name that an instance of this model could have: ``llama-3.2-3b-instruct-q4_k_m``."""
    stem = re.sub(r"[-_.]gguf$", "", repo.rpartition("/")[2], flags=re.IGNORECASE)
    words = stem if tag == "latest" else f"{stem}-{tag}"
    return re.sub(r"[^a-z0-9._-]+", "-", words.lower()).strip("-._")[:50].rstrip("-._")


def _may_use(key: KeyRecord, instance_names: Mapping[int, str]) -> str:
    if key.permission_mode == "allow_all":
        return "all instances"
    names = sorted(instance_names[id_] for id_ in key.instance_ids if id_ in instance_names)
    gone = len(key.instance_ids) - len(names)
    return ", ".join(names + ([f"{gone} that no longer exist"] if gone else []))


def moment_view(moment: float, now: float) -> Moment:
    return Moment(ago_text(moment, now), moment_text(moment), iso_text(moment))
