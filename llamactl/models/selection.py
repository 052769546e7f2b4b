"""Which files a tag means: the manifest's word first, then the rules of the Hub and llama.cpp.

Pure: names in, names out. ``docs/models.md`` has the rules as a table, with their reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llamactl.errors import BadMetadata, IncompleteSet, NoSuchTag
from llamactl.models.filenames import is_gguf, is_mmproj, is_model, split_of
from llamactl.models.hubfile import HubFile, Manifest
from llamactl.models.offer import Offer
from llamactl.models.reference import LATEST, ModelRef

PRESET = "preset.ini"

#: A repository may offer hundreds of quants; an error names at most this many.
_SHOWN_TAGS = 40


@dataclass(frozen=True)
class Selection:
    """The files of one model: all shards in order, and what belongs to them.

    ``tag`` is the one spelling under which the model is kept: ``latest``, else the quant as the
    file spells it, else the file's path.
    """

    tag: str
    ggufs: tuple[HubFile, ...]
    mmproj: HubFile | None = None
    preset: HubFile | None = None

    @property
    def files(self) -> tuple[HubFile, ...]:
        """Everything to fetch, the model first."""
        extras = (self.mmproj, self.preset)
        return self.ggufs + tuple(file for file in extras if file is not None)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Variant:
    """One model that a repository offers. ``size`` counts the shards and the mmproj."""

    tag: str
    files: tuple[HubFile, ...]
    size: int
    mmproj: HubFile | None


def select(ref: ModelRef, files: Sequence[HubFile], manifest: Manifest | None) -> Selection:
    """The files of ``ref`` among ``files``, all that the repository has at one commit.

    Without a manifest, or where it names a file that is not there (the repository moved between
    two requests) or that is no model while a model has the tag, the listing decides. Raises
    ``NoSuchTag`` with the tags that exist, ``IncompleteSet`` when a shard is missing,
    ``BadMetadata`` when a path is listed twice with different contents.
    """
    listing = _by_name(files)
    offer = Offer(list(listing))
    named, mmproj = _named(manifest, listing)
    # The hub may count a draft, a projector or an imatrix among the files of a quant.
    primary = named if named in offer.models else offer.find(ref.tag) or named
    if primary is None:
        raise no_such_tag(ref, files)
    if (mmproj is None or primary != named) and is_model(primary):
        mmproj = offer.mmproj_for(primary)
    return Selection(
        LATEST if ref.tag.casefold() == LATEST else offer.tag_for(primary),
        _whole_set(primary, listing),
        None if mmproj is None else listing[mmproj],
        listing.get(PRESET),
    )


def _named(manifest: Manifest | None, listing: dict[str, HubFile]) -> tuple[str | None, str | None]:
    """The GGUF that the manifest names, and the projector, as far as they are listed."""
    if manifest is None or manifest.gguf not in listing or not is_gguf(manifest.gguf):
        return None, None
    mmproj = manifest.mmproj
    return manifest.gguf, mmproj if mmproj in listing and is_mmproj(mmproj) else None


def no_such_tag(ref: ModelRef, files: Sequence[HubFile]) -> NoSuchTag:
    """The error that says what the repository does offer."""
    tags = [variant.tag for variant in quants(files)]
    if not tags:
        return NoSuchTag(
            f"{ref.repo_id} has no GGUF model", hint="Look for a repository whose name ends in GGUF"
        )
    shown = ", ".join(tags[:_SHOWN_TAGS])
    more = f" and {len(tags) - _SHOWN_TAGS} more" if len(tags) > _SHOWN_TAGS else ""
    return NoSuchTag(f"{ref.repo_id} has no {ref.tag}", hint=f"It has {shown}{more}")


def quants(files: Sequence[HubFile]) -> list[Variant]:
    """Every model that the repository offers whole, in the order of the listing."""
    return list(_variants(_by_name(files)))


def _variants(listing: dict[str, HubFile]) -> Iterator[Variant]:
    offer = Offer(list(listing))
    for primary in offer.models:
        try:
            files = _whole_set(primary, listing)
        except IncompleteSet:
            continue
        chosen = offer.mmproj_for(primary)
        mmproj = None if chosen is None else listing[chosen]
        size = sum(file.size for file in files) + (mmproj.size if mmproj else 0)
        yield Variant(offer.tag_for(primary), files, size, mmproj)


def _by_name(files: Sequence[HubFile]) -> dict[str, HubFile]:
    listing: dict[str, HubFile] = {}
    for file in files:
        if listing.setdefault(file.filename, file) != file:
            raise BadMetadata(f"{file.filename} is listed twice, with different contents")
    return listing


def _whole_set(primary: str, listing: dict[str, HubFile]) -> tuple[HubFile, ...]:
    split = split_of(primary)
    # A name can claim 99,999 parts; what is not listed need not be counted out.
    names = split.names() if split.count <= len(listing) else ()
    files = tuple(listing[name] for name in names if name in listing)
    if len(files) != split.count:
        raise IncompleteSet(
            f"The repository does not have all {split.count} parts of {primary}",
            hint="Choose another tag, or ask the repository's owner",
        )
    return files
