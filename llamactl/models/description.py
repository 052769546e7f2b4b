"""What a cached model says of itself, and the memory that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llamactl.models.dimensions import Dimensions
from llamactl.models.facts import facts_of
from llamactl.models.fit import Load, Need, estimate
from llamactl.models.gguf import NotGGUF, read_model
from llamactl.models.snapshots import CachedModel, FileType


@dataclass(frozen=True)
class Description:
    """``facts`` are its header's, by name; none where ``unreadable`` says why.

    ``need`` is None while files are missing: what is there tells nothing of the whole.
    """

    facts: Mapping[str, str]
    chat_template: str | None
    unreadable: str | None
    need: Need | None


def describe(model: CachedModel, load: Load) -> Description:
    """Read the headers of its files; a damaged file is no error, and is said to be damaged."""
    try:
        header = read_model([file.path for file in model.files if file.type == "gguf"])
    except NotGGUF as error:
        return Description({}, None, error.details, _need(model, None, load))
    facts = facts_of(header, whole=model.complete)
    return Description(facts, header.chat_template, None, _need(model, header.dimensions, load))


def _need(model: CachedModel, dimensions: Dimensions | None, load: Load) -> Need | None:
    if not model.complete:
        return None

    def size(type_: FileType) -> int:
        return sum(file.size for file in model.files if file.type == type_)

    return estimate(dimensions, size("gguf"), load, projector=size("mmproj"))
