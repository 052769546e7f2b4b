"""What a list of file names offers: which model a tag means, and which tag a model has.

The same rules serve a repository's listing and the files of a cache. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property

from llamactl.models.filenames import (
    bits_of,
    is_mmproj,
    is_weights,
    plain_tag_of,
    prefer_whole_models,
    primaries,
    tag_of,
)
from llamactl.models.reference import LATEST, is_tag


class Offer:
    """The models among ``filenames``; where several fit, the first in that order counts.

    A model is named by its only file, or by the first shard of its set that is there.
    """

    def __init__(self, filenames: Sequence[str]) -> None:
        self._filenames = filenames
        self._weights = [name for name in filenames if is_weights(name)]

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Every model on offer."""
        whole = (self._primaries[name] for name in prefer_whole_models(self._weights))
        return tuple(dict.fromkeys(whole))

    def find(self, tag: str) -> str | None:
        """The model that ``tag`` means, or None. Case does not matter."""
        wanted = tag.casefold()
        if tag in self._primaries:
            return self._primaries[tag]
        if wanted in self._by_file:
            return self._primaries[self._by_file[wanted]]
        if wanted == LATEST:
            return self._latest()
        return (
            self._by_quant.get(wanted)
            or self._by_plain_tag.get(wanted)
            or self._by_word(wanted)
            or self._by_folder(wanted)
        )

    def tag_for(self, model: str) -> str:
        """The shortest tag that means ``model``: its quant, else its path."""
        tag = tag_of(model)
        return tag if is_tag(tag) and self.find(tag) == model else tag_of_path(model)

    def mmproj_for(self, model: str) -> str | None:
        """The projector that belongs to ``model``, as llama.cpp picks it.

        It lies in the model's folder or above it; the deepest counts, then the closest in bits,
        then the first.
        """
        folder = model.split("/")[:-1]
        found: list[tuple[int, int, int, str]] = []
        for position, name in enumerate(self._projectors):
            parts = name.split("/")[:-1]
            if parts == folder[: len(parts)]:
                distance = abs(bits_of(name) - bits_of(model))
                found.append((-len(parts), distance, position, name))
        return min(found)[-1] if found else None

    @cached_property
    def _projectors(self) -> list[str]:
        return [name for name in self._filenames if is_mmproj(name)]

    @cached_property
    def _primaries(self) -> dict[str, str]:
        return primaries(self._weights)

    @cached_property
    def _by_file(self) -> dict[str, str]:
        return _index(self._weights, _file_spellings)

    @cached_property
    def _by_quant(self) -> dict[str, str]:
        return _index(self.models, lambda name: (tag_of(name),))

    @cached_property
    def _by_plain_tag(self) -> dict[str, str]:
        return _index(self.models, lambda name: (plain_tag_of(name),))

    def _latest(self) -> str | None:
        """The Hub's ladder: Q4_K_M, then any other of four bits, then the first model."""
        tags = [(tag_of(name).upper(), name) for name in self.models]
        for exact in ("Q4_K_M", "UD-Q4_K_M"):
            for tag, name in tags:
                if tag == exact:
                    return name
        for tag, name in tags:
            if tag.removeprefix("UD-").startswith("Q4"):
                return name
        return self.models[0] if self.models else None

    def _by_word(self, wanted: str) -> str | None:
        # llama.cpp looks for "TAG." or "TAG-" anywhere in the path. Here it must begin a word:
        # K_M is no quant, and the Hub refuses it as well.
        word = re.compile(rf"(?<![^-./]){re.escape(wanted)}[.-]")
        return next((name for name in self.models if word.search(name.casefold())), None)

    def _by_folder(self, wanted: str) -> str | None:
        folders = ((name, name.casefold().split("/")[:-1]) for name in self.models)
        return next((name for name, parts in folders if wanted in parts), None)


def tag_of_path(filename: str) -> str:
    """The file's path as a tag; what cannot stand in a tag is replaced."""
    return filename if is_tag(filename) else re.sub(r"[^A-Za-z0-9._-]+|^[-.]+", "_", filename)


def _file_spellings(name: str) -> tuple[str, ...]:
    base = name.rpartition("/")[2]
    return name, base, name.removesuffix(".gguf"), base.removesuffix(".gguf")


def _index(names: Sequence[str], spellings: Callable[[str], Sequence[str]]) -> dict[str, str]:
    """Each spelling's first bearer; a whole path comes before the end of another one."""
    index: dict[str, str] = {}
    rows = [tuple(spelling.casefold() for spelling in spellings(name)) for name in names]
    for column in zip(*rows, strict=True):
        for spelling, name in zip(column, names, strict=True):
            if spelling:
                index.setdefault(spelling, name)
    return index
