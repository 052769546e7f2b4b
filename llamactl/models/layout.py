"""Where a model's files lie: the flat cache of older llama.cpp, and the Hub's cache of today's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llamactl.errors import BadMetadata
from llamactl.models.names import (
    check_commit,
    check_filename,
    check_oid,
    check_repo_id,
    is_repo_id,
)
from llamactl.models.reference import LATEST, ModelRef, is_tag

#: What file systems allow is 255 bytes; this leaves room for ".etag" and the like.
_LONGEST_FLAT_NAME = 240

_REPO_PREFIX = "models--"
_MANIFEST_PREFIX = "manifest="
_MANIFEST_SUFFIX = ".json"


@dataclass(frozen=True)
class FlatCache:
    """All files in one folder, the repository and the path in their names."""

    root: Path

    def path(self, repo_id: str, filename: str) -> Path:
        """``ROOT/{org}_{name}_{path with / as _}``. Raises ``BadMetadata``."""
        name = flat_name(check_repo_id(repo_id), check_filename(filename))
        return self.root / _short_enough(name)

    def etag_path(self, path: Path) -> Path:
        """Beside the file: the ETag under which its bytes were received."""
        return path.with_name(f"{path.name}.etag")

    def manifest_path(self, ref: ModelRef) -> Path:
        """``ROOT/manifest={org}={name}={tag}.json``. Raises ``BadMetadata``."""
        if not is_tag(ref.tag):
            raise BadMetadata(f"{ref.tag!a} cannot be stored as a tag")
        org, name = check_repo_id(ref.repo_id).split("/")
        tag = ref.tag.replace("/", "=")
        return self.root / _short_enough(f"manifest={org}={name}={tag}.json")


@dataclass(frozen=True)
class HubCache:
    """``models--{org}--{name}/{blobs,snapshots,refs}``, as ``hf`` and llama.cpp share it."""

    root: Path

    def repo_dir(self, repo_id: str) -> Path:
        org, name = check_repo_id(repo_id).split("/")
        return self.root / f"{_REPO_PREFIX}{org}--{name}"

    def blobs(self, repo_id: str) -> Path:
        return self.repo_dir(repo_id) / "blobs"

    def blob(self, repo_id: str, oid: str) -> Path:
        """The bytes of a file, under its digest."""
        return self.blobs(repo_id) / check_oid(oid)

    def snapshots(self, repo_id: str) -> Path:
        return self.repo_dir(repo_id) / "snapshots"

    def snapshot(self, repo_id: str, commit: str) -> Path:
        """The folder of one commit's files."""
        return self.snapshots(repo_id) / check_commit(commit)

    def ref(self, repo_id: str) -> Path:
        """The file that holds the commit of ``main``."""
        return self.repo_dir(repo_id) / "refs" / "main"


def flat_name(repo_id: str, filename: str) -> str:
    """The name of a repository's file in the flat cache."""
    return f"{repo_id}_{filename}".replace("/", "_")


def unfinished_name(repo_id: str, filename: str) -> str:
    """The flat name under which older llama.cpp fetches the file."""
    return f"{flat_name(repo_id, filename)}.downloadInProgress"


def blob_target(filename: str, oid: str) -> str:
    """What the link of ``filename`` in a snapshot holds: a relative path to its blob."""
    return "../" * (filename.count("/") + 2) + f"blobs/{oid}"


@lru_cache(maxsize=16_384)
def repo_of_dir(name: str) -> str | None:
    """The repository of a folder in the Hub's cache, or None when it is none of a model."""
    if not name.startswith(_REPO_PREFIX):
        return None
    repo_id = name[len(_REPO_PREFIX) :].replace("--", "/")
    return repo_id if is_repo_id(repo_id) else None


@lru_cache(maxsize=16_384)
def ref_of_manifest(name: str) -> ModelRef | None:
    """The reference that a manifest's file name holds, the tag as it was typed."""
    if not (name.startswith(_MANIFEST_PREFIX) and name.endswith(_MANIFEST_SUFFIX)):
        return None
    parts = name[len(_MANIFEST_PREFIX) : -len(_MANIFEST_SUFFIX)].split("=", 2)
    if len(parts) != 3:
        return None
    repo_id, tag = "/".join(parts[:2]), parts[2].replace("=", "/")
    if not (is_repo_id(repo_id) and is_tag(tag)):
        return None
    return ModelRef(repo_id, LATEST if tag.casefold() == LATEST else tag)


def _short_enough(name: str) -> str:
    if len(name.encode()) > _LONGEST_FLAT_NAME:
        raise BadMetadata(f"{name[:60]!a}… is too long for a file's name in the cache")
    return name
