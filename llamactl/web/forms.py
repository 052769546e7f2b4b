"""What the management API takes: one frozen dataclass a request, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from flask import request

from llamactl.models.fit import LARGEST_CONTEXT, USUAL_CONTEXT
from llamactl.web import schema
from llamactl.web.jsonbody import json_body
from llamactl.web.schema import rule

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)

REPO = "bartowski/Llama-3.2-3B-Instruct-GGUF"
LONGEST_WAIT = 3600


@dataclass(frozen=True)
class DownloadRequest:
    repo: str = rule("The model, as org/name or org/name:tag.", example=REPO + ":Q4_K_M")


@dataclass(frozen=True)
class CachedModelsQuery:
    repo: str = rule("The repository whose cached models are meant, as org/name.", example=REPO)
    tag: str | None = rule("One tag as the list shows it; without it, all.", default=None)


@dataclass(frozen=True)
class VerifyQuery(CachedModelsQuery):
    repair: bool = rule("Fetch what is damaged again.", default=False)


@dataclass(frozen=True)
class UpdatesQuery:
    repo: str | None = rule("One repository, as org/name; without it, all.", default=None)


@dataclass(frozen=True)
class VariantsQuery:
    repo: str = rule("The repository, as org/name.", example=REPO)
    ctx_size: int = rule(
        "The context, in tokens, that is to fit; 0 is the model's own.",
        default=USUAL_CONTEXT,
        minimum=0,
        maximum=LARGEST_CONTEXT,
    )


@dataclass(frozen=True)
class SearchQuery:
    q: str = rule("A part of the repository's name.", longest=200, example="llama 3.2")


@dataclass(frozen=True)
class DownloadSettings:
    bandwidth_limit: int | None = rule(
        "Bytes per second for all downloads together; null is no limit.",
        minimum=1024,
        maximum=2**53,
    )
    max_concurrent: int = rule("How many downloads run at a time.", minimum=1, maximum=64)


@dataclass(frozen=True)
class WaitQuery:
    wait: float | None = rule(
        "Seconds to wait until it is done; without it, the answer comes at once.",
        default=None,
        minimum=0,
        maximum=LONGEST_WAIT,
    )


@dataclass(frozen=True)
class LikeQuery:
    like: str | None = rule(
        "An instance whose variables are meant where a value is masked.", default=None
    )


@dataclass(frozen=True)
class LogsQuery:
    lines: int | None = rule(
        "How many of the last lines; without it, or with 0, all that are kept.",
        default=None,
        minimum=0,
    )
    follow: bool = rule("Go on with what is written, as server-sent events.", default=False)


@dataclass(frozen=True)
class AuditQuery:
    limit: int = rule("How many entries.", default=100, minimum=1, maximum=1000)
    before: int | None = rule(
        "Only entries that are older than the one with this id.",
        default=None,
        minimum=1,
        maximum=2**53,
    )


@dataclass(frozen=True)
class ParseCommandRequest:
    command: str = rule(
        "A llama-server command line.",
        longest=100_000,
        example="llama-server -m ~/model.gguf -c 4096",
    )


def body(form: type[T], current: Mapping[str, object] | None = None) -> T:
    """The request's JSON body as ``form``; what it leaves out is as in ``current``."""
    return schema.from_json(form, {**(current or {}), **json_body()})


def query(form: type[T]) -> T:
    """The request's query as ``form``."""
    return schema.from_query(form, request.args)
