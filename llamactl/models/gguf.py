"""What a GGUF file says of itself, read from its first bytes.

The file comes from strangers. Nothing that it claims is believed before it is there: every length
is held against a bound and against the file's size, arrays are passed over without being built,
and no number of bytes makes the reading slow. A chat template is text here; nobody runs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from llamactl.models.dimensions import DIMENSION_FIELDS, Dimensions, dimensions_of
from llamactl.models.ggufbytes import HeaderBytes, NotGGUF, Value
from llamactl.models.ggufnames import FILE_TYPES, TENSOR_TYPES

__all__ = ["GGUFHeader", "NotGGUF", "read_dimensions", "read_header", "read_model"]

_MAGIC = b"GGUF"
_VERSIONS = {2, 3}
_MOST_FIELDS = 4096
_MOST_TENSORS = 65_536
_MOST_DIMENSIONS = 8
_MOST_PARAMETERS = 2**50

#: Added to a file type that was not written down by whoever made the file.
_GUESSED = 1024

#: Fields whose values are kept; those of the architecture have its name before the dot.
_FIELDS = frozenset(
    {
        "general.architecture",
        "general.file_type",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
        "tokenizer.chat_template",
    }
)
_OF_THE_ARCHITECTURE = DIMENSION_FIELDS | {"expert_count"}


@dataclass(frozen=True)
class GGUFHeader:
    """The facts of one file; None where it does not tell.

    ``parameters`` are those of this file: a shard has a part of them. ``dimensions`` are those by
    which memory is reckoned.
    """

    architecture: str
    quantisation: str | None
    parameters: int
    context_length: int | None
    layers: int | None
    experts: int | None
    tokenizer: str | None
    vocabulary_size: int | None
    chat_template: str | None
    dimensions: Dimensions | None


def read_header(path: Path) -> GGUFHeader:
    """The header of one file. Raises ``NotGGUF`` for whatever is not a whole GGUF header."""
    with HeaderBytes.of(path) as header:
        tensors = _begin(header)
        fields: dict[str, Value] = {}
        _read_fields(header, fields)
        parameters, common_type = _read_tensors(header, tensors)
    return _facts(fields, parameters, common_type)


def read_dimensions(name: str, beginning: bytes) -> Dimensions | None:
    """The dimensions that the first bytes of a file tell; None where they tell too little.

    Writers put the architecture's fields before the long lists of the tokenizer, so that some
    ten kB are mostly enough. Raises ``NotGGUF`` for what is no GGUF from its first byte on.
    """
    fields: dict[str, Value] = {}
    with HeaderBytes.of_bytes(name, beginning) as header:
        _begin(header)
        try:
            _read_fields(header, fields)
        except NotGGUF:
            # Cut off within the tokenizer's lists, as it is meant to be; before them, the
            # architecture's fields may be half there.
            if "tokenizer.ggml.model" not in fields:
                return None
    return dimensions_of(fields, _number(fields, "tokenizer.ggml.tokens"))


def read_model(paths: Sequence[Path]) -> GGUFHeader:
    """The header of a whole model: the first shard's, with the parameters of all shards."""
    headers = [read_header(path) for path in paths]
    return replace(headers[0], parameters=sum(header.parameters for header in headers))


def _begin(header: HeaderBytes) -> int:
    """How many tensors there are."""
    if header.take(4) != _MAGIC:
        raise NotGGUF(f"{header.name} is not a GGUF file")
    if header.number("I") not in _VERSIONS:
        raise NotGGUF(f"{header.name} has a GGUF version that llama.cpp does not read")
    return header.count("Q", _MOST_TENSORS)


def _read_fields(header: HeaderBytes, fields: dict[str, Value]) -> None:
    """Fill ``fields``, as far as the header goes."""
    for _ in range(header.count("Q", _MOST_FIELDS)):
        key = header.text(most=65_535)
        _prefix, _dot, rest = key.partition(".")
        if key in _FIELDS or rest in _OF_THE_ARCHITECTURE:
            fields[key] = header.value()
        else:
            header.pass_value()


def _read_tensors(header: HeaderBytes, count: int) -> tuple[int, int | None]:
    """The parameters of all tensors, and the type that most of them have."""
    by_type: dict[int, int] = {}
    for _ in range(count):
        header.pass_text()
        dimensions = [header.number("Q") for _ in range(header.count("I", _MOST_DIMENSIONS))]
        type_ = header.number("I")
        header.skip(8)
        size = prod(dimensions)
        if size > _MOST_PARAMETERS:
            raise NotGGUF(f"{header.name} has a tensor of an impossible size")
        by_type[type_] = by_type.get(type_, 0) + size
    most = max(by_type, key=lambda type_: by_type[type_], default=None)
    return sum(by_type.values()), most


def _facts(fields: dict[str, Value], parameters: int, common_type: int | None) -> GGUFHeader:
    def text(key: str) -> str | None:
        value = fields.get(key)
        return value if isinstance(value, str) else None

    def number(key: str) -> int | None:
        return _number(fields, key)

    architecture = text("general.architecture") or "unknown"
    return GGUFHeader(
        architecture=architecture,
        quantisation=_quantisation(number("general.file_type"), common_type),
        parameters=parameters,
        context_length=number(f"{architecture}.context_length"),
        layers=number(f"{architecture}.block_count"),
        experts=number(f"{architecture}.expert_count"),
        tokenizer=text("tokenizer.ggml.model"),
        vocabulary_size=number("tokenizer.ggml.tokens"),
        chat_template=text("tokenizer.chat_template"),
        dimensions=dimensions_of(fields, number("tokenizer.ggml.tokens")),
    )


def _number(fields: Mapping[str, Value], key: str) -> int | None:
    """A whole number; of several the largest."""
    value = fields.get(key)
    if isinstance(value, tuple):
        return max(value)
    return value if isinstance(value, int) else None


def _quantisation(file_type: int | None, common_type: int | None) -> str | None:
    """The name of the file's quantisation; without one, that of most of its tensors."""
    if file_type is not None:
        name = FILE_TYPES.get(file_type & ~_GUESSED)
        if name is not None:
            return name
    return None if common_type is None else TENSOR_TYPES.get(common_type)
