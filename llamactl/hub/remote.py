"""What the hub says of a file's whereabouts, and of a repository that a search found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict


@dataclass(frozen=True)
class RemoteFile:
    """Where one file's bytes are at this moment, and what they are.

    ``url`` is good for about an hour; ``headers`` are those that a request for bytes must carry
    (the token only where the bytes come from the hub's own origin). Both are secrets, and hidden
    from ``repr``. ``oid`` and ``size`` identify the bytes, ``etag`` is the header that said so, as
    received. Never take the ETag of the answer that carries the bytes for a digest: on the hub's
    CDN it looks like one and is none.
    """

    url: str = field(repr=False)
    size: int
    oid: str
    etag: str
    commit: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class SearchHit:
    """A repository that a search found; ``updated`` is in unix seconds."""

    repo_id: str
    downloads: int
    likes: int
    updated: float | None
    gated: bool


class SearchHitJson(TypedDict):
    """A repository that a search found; `updated` is in unix seconds."""

    repo: str
    downloads: int
    likes: int
    updated: int | None
    gated: bool


def search_hit_json(hit: SearchHit) -> SearchHitJson:
    """The hit as the REST interface and ``llamactl models search --json`` show it."""
    return {
        "repo": hit.repo_id,
        "downloads": hit.downloads,
        "likes": hit.likes,
        "updated": None if hit.updated is None else int(hit.updated),
        "gated": hit.gated,
    }
