"""A cached model as others see it: an immutable picture, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from llamactl.models.reference import ModelRef

FileType = Literal["gguf", "mmproj", "preset"]

#: There is one node: the machine that this server runs on.
LOCAL_NODE = "main"


class FileJson(TypedDict):
    """A cached file. `name` is its path in the repository; `sha256` is null until it is hashed."""

    name: str
    path: str
    size: int
    size_bytes: int
    modified: int
    type: FileType
    sha256: str | None


class ModelJson(TypedDict):
    """A cached tag. Sizes are bytes, each of them under two names for two kinds of clients."""

    repo: str
    tag: str
    files: list[FileJson]
    total_size: int
    size_bytes: int
    file_count: int
    complete: bool
    node: str


@dataclass(frozen=True)
class CachedFile:
    """One file of a cached model.

    ``name`` is its path in the repository, ``path`` where it lies: the flat name, or the Hub's
    where only that exists. ``modified`` is in unix seconds. ``sha256`` is None when nobody has
    hashed these bytes yet.
    """

    name: str
    path: Path
    size: int
    modified: int
    type: FileType
    sha256: str | None


@dataclass(frozen=True)
class CachedModel:
    """A model that lies in a cache: shards in order, then mmproj, then preset.

    ``complete`` is False while a shard is missing, or another program is still fetching one.
    """

    ref: ModelRef
    files: tuple[CachedFile, ...]
    complete: bool

    @property
    def total_size(self) -> int:
        """Bytes of all files. What two models share counts for each of them."""
        return sum(file.size for file in self.files)

    @property
    def gguf(self) -> CachedFile:
        """The file that ``llama-server -m`` takes: the only one, or the first shard."""
        return self.files[0]

    def first(self, type_: FileType) -> CachedFile | None:
        return next((file for file in self.files if file.type == type_), None)


def cached_model_json(model: CachedModel) -> ModelJson:
    """The model as the REST interface and ``llamactl models --json`` show it."""
    return {
        "repo": model.ref.repo_id,
        "tag": model.ref.tag,
        "files": [_file_json(file) for file in model.files],
        "total_size": model.total_size,
        "size_bytes": model.total_size,
        "file_count": len(model.files),
        "complete": model.complete,
        "node": LOCAL_NODE,
    }


def _file_json(file: CachedFile) -> FileJson:
    return {
        "name": file.name,
        "path": str(file.path),
        "size": file.size,
        "size_bytes": file.size,
        "modified": file.modified,
        "type": file.type,
        "sha256": file.sha256,
    }
