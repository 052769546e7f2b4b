"""What a GGUF file's name says: its quant, its place in a split set, whether it is a model.

The rules are llama.cpp's, so that what is chosen here is what ``llama-server -hf`` finds later;
where they go further, the docstring says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

_SPLIT = re.compile(r"(?s)(.+)-([0-9]{5})-of-([0-9]{5})", re.IGNORECASE)
_LAST_WORD = re.compile(r"[-.]([A-Z0-9_]+)$", re.IGNORECASE)
_QUANT = re.compile(
    r"""(?<![^-./])
        (?:UD-)?
        (?:I?Q[1-9]|TQ[1-9]|BF16|B?F32|F16|F64|FP16|FP32|FP8|FP4|MXFP[1-9]|NVFP[1-9])
        (?:_[A-Z0-9]+)*
        (?![^-./])""",
    re.IGNORECASE | re.VERBOSE,
)

#: What llama.cpp takes for a helper of a model (it compares with case), beside mmproj and imatrix.
_SIDECARS = ("mtp-", "eagle3-", "dflash-", "dspark-")


@dataclass(frozen=True)
class Split:
    """A file's place in a set: number ``index`` of ``count``; a file of its own is 1 of 1."""

    filename: str
    prefix: str
    index: int = 1
    count: int = 1

    @property
    def key(self) -> tuple[str, int]:
        """What all files of one set share, and no other file has."""
        return (self.prefix, self.count) if self.count > 1 else (self.filename, 1)

    def names(self) -> tuple[str, ...]:
        """The names of the whole set, in order."""
        if self.count == 1:
            return (self.filename,)
        return tuple(self._name(number) for number in range(1, self.count + 1))

    def _name(self, number: int) -> str:
        digits = len(self.prefix) + 1
        return f"{self.filename[:digits]}{number:05d}{self.filename[digits + 5 :]}"


@lru_cache(maxsize=16_384)
def split_of(filename: str) -> Split:
    """The place of ``filename`` in its set, by its name alone."""
    stem = filename.removesuffix(".gguf")
    match = _SPLIT.fullmatch(stem)
    if match is None or not 1 <= int(match[2]) <= int(match[3]):
        return Split(filename, stem)
    return Split(filename, match[1], int(match[2]), int(match[3]))


def primaries(names: Sequence[str]) -> dict[str, str]:
    """For every file the one by which its set is named: the lowest shard that is there."""
    splits = [split_of(name) for name in names]
    lowest: dict[tuple[str, int], tuple[int, str]] = {}
    for split in splits:
        place = (split.index, split.filename)
        lowest[split.key] = min(place, lowest.get(split.key, place))
    return {split.filename: lowest[split.key][1] for split in splits}


@lru_cache(maxsize=16_384)
def tag_of(filename: str) -> str:
    """The tag under which the file is found, as it is spelled there; empty when there is none.

    That is the last word of the name that looks like a quant, with the ``UD-`` of the dynamic
    ones, else that of the nearest folder. Without either it is what llama.cpp shows: the word
    behind the last dot or hyphen.
    """
    prefix = split_of(filename).prefix
    for part in reversed(prefix.split("/")):
        quants = _QUANT.findall(part)
        if quants:
            return str(quants[-1])
    return plain_tag_of(filename)


def plain_tag_of(filename: str) -> str:
    """The tag by llama.cpp's own rule, which knows no ``UD-``, in the file's spelling."""
    match = _LAST_WORD.search(split_of(filename).prefix)
    return match[1] if match else ""


def bits_of(filename: str) -> int:
    """The first number in the tag, 4 for ``IQ4_XS`` and 16 for ``BF16``; 0 without one."""
    digits = re.search(r"[0-9]+", tag_of(filename))
    return int(digits[0][:4]) if digits else 0


def is_gguf(filename: str) -> bool:
    return filename.endswith(".gguf")


def is_mmproj(filename: str) -> bool:
    """Whether the file is a projector, which turns pictures or sound into a model's input."""
    return is_gguf(filename) and "mmproj" in filename.lower()


def is_weights(filename: str) -> bool:
    """Whether the file holds weights that llama.cpp loads with ``-m``: a model or a draft."""
    return (
        is_gguf(filename)
        and not is_mmproj(filename)
        and "imatrix" not in filename.rpartition("/")[2].lower()
    )


def is_model(filename: str) -> bool:
    """Whether the file is a model that can be run by itself, as llama.cpp decides it."""
    name = filename.rpartition("/")[2]
    return is_weights(filename) and not any(word in name for word in _SIDECARS)


def prefer_whole_models(filenames: Iterable[str]) -> list[str]:
    """The models among the names, without drafts as long as anything else is there.

    A draft is recognised by the same words as llama.cpp's sidecars in any case, and by a leading
    ``draft-``. They are models for llama.cpp, so a repository of nothing else offers them.
    """
    models = [name for name in filenames if is_model(name)]
    return [name for name in models if not _is_draft(name)] or models


def _is_draft(filename: str) -> bool:
    name = filename.rpartition("/")[2].lower()
    return name.startswith("draft-") or any(word in name for word in _SIDECARS)
