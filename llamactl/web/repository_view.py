"""What the page of one repository shows: its cached tags with their facts, and the hub's offers."""

from __future__ import annotations

from dataclasses import dataclass

from llamactl.downloads.offers import Offer, RepositoryOffers
from llamactl.downloads.updates import Update
from llamactl.hub.remote import SearchHit
from llamactl.models.description import describe
from llamactl.models.fit import Load, Machine
from llamactl.models.selection import Variant
from llamactl.models.snapshots import CachedModel, cached_model_json
from llamactl.sizes import size_text
from llamactl.web.memory_view import MemoryView, memory_view
from llamactl.web.texts import ago_text
from llamactl.web.views import CachedModelView, cached_model_view


@dataclass(frozen=True)
class CachedTagView:
    """A cached tag; ``facts`` are its header's, or ``unreadable`` says why there are none.

    ``memory`` is None while files are missing: what is there tells nothing of the whole.
    """

    model: CachedModelView
    memory: MemoryView | None
    facts: tuple[tuple[str, str], ...]
    chat_template: str
    unreadable: str


@dataclass(frozen=True)
class OfferView:
    """A model that the hub offers under a tag; ``newer``: with other bytes than the cached one."""

    tag: str
    reference: str
    size: str
    parts: str
    memory: MemoryView
    cached: bool
    newer: bool


@dataclass(frozen=True)
class HitView:
    """A repository that a search found."""

    repo: str
    org: str
    name: str
    downloads: str
    likes: str
    updated: str
    gated: bool


@dataclass(frozen=True)
class UpdateView:
    """A cached tag of which the hub has newer files."""

    repo: str
    org: str
    name: str
    tag: str
    reference: str
    changed: tuple[str, ...]


def cached_tag_view(model: CachedModel, load: Load, machine: Machine, now: float) -> CachedTagView:
    """A cached tag with what its GGUF says of itself; a damaged file is said to be one."""
    view = cached_model_view(cached_model_json(model), now)
    told = describe(model, load)
    memory = None if told.need is None else memory_view(told.need, machine)
    facts = tuple(told.facts.items())
    return CachedTagView(view, memory, facts, told.chat_template or "", told.unreadable or "")


def offer_views(found: RepositoryOffers) -> tuple[OfferView, ...]:
    """What the hub offers, the smallest first."""
    by_size = sorted(found.offers, key=lambda offer: (offer.variant.size, offer.variant.tag))
    return tuple(_offer_view(found, offer) for offer in by_size)


def update_view(update: Update) -> UpdateView:
    org, _, name = update.repo_id.partition("/")
    reference = f"{update.repo_id}:{update.tag}"
    return UpdateView(update.repo_id, org, name, update.tag, reference, update.changed)


def hit_view(hit: SearchHit, now: float) -> HitView:
    org, _, name = hit.repo_id.partition("/")
    return HitView(
        repo=hit.repo_id,
        org=org,
        name=name,
        downloads=f"{hit.downloads:,}",
        likes=f"{hit.likes:,}",
        updated=ago_text(hit.updated, now) if hit.updated else "–",
        gated=hit.gated,
    )


def _offer_view(found: RepositoryOffers, offer: Offer) -> OfferView:
    variant = offer.variant
    return OfferView(
        tag=variant.tag,
        reference=f"{found.repo_id}:{variant.tag}",
        size=size_text(variant.size),
        parts=_parts(variant),
        memory=memory_view(offer.need, found.machine),
        cached=offer.cached,
        newer=offer.newer,
    )


def _parts(variant: Variant) -> str:
    files = len(variant.files)
    shards = f"{files} shards" if files > 1 else "1 file"
    return shards + (" and mmproj" if variant.mmproj else "")
