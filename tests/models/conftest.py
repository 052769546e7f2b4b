"""Caches on a folder of their own, filled as the programs of the field fill them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from pathlib import Path

import pytest

from llamactl.config import Config
from llamactl.database import Database
from llamactl.models.cache import ModelCache
from llamactl.models.hubfile import HubFile, Manifest
from llamactl.models.reference import ModelRef
from llamactl.models.selection import Selection, select

REPO = "org/Model-GGUF"
COMMIT = "a" * 40
NEXT_COMMIT = "b" * 40

Q4 = "Model-Q4_K_M.gguf"
Q8 = "Model-Q8_0.gguf"
MMPROJ = "mmproj-F16.gguf"
SHARDS = [f"Q6_K/Model-Q6_K-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
REPOSITORY = [Q4, Q8, MMPROJ, *SHARDS, "preset.ini", "README.md"]


def content_of(name: str, version: int = 1) -> bytes:
    """The bytes of a file: different for each name and version."""
    return f"GGUF {name} {version}\n".encode() * 50


def hub_file(name: str, version: int = 1) -> HubFile:
    content = content_of(name, version)
    if name.endswith(".gguf"):
        return HubFile(name, len(content), sha256(content).hexdigest())
    return HubFile(name, len(content), sha1(b"blob %d\0" % len(content) + content).hexdigest())


def listing_of(names: Sequence[str], version: int = 1) -> list[HubFile]:
    return [hub_file(name, version) for name in names]


def manifest_of(gguf: str, mmproj: str | None = None) -> bytes:
    """A manifest as the Hub sends it, with the parts that nobody here reads."""
    layers = [{"digest": "sha256:0", "mediaType": "application/vnd.ollama.image.model"}]
    content: dict[str, object] = {"schemaVersion": 2, "layers": layers}
    content["ggufFile"] = {"rfilename": gguf, "size": 1}
    if mmproj is not None:
        content["mmprojFile"] = {"rfilename": mmproj, "size": 1}
    return json.dumps(content).encode()


@dataclass
class Caches:
    """The cache under test, and what other programs would do to it."""

    cache: ModelCache
    flat: Path
    hub: Path
    users: list[str] = field(default_factory=list)
    asked: list[Path] = field(default_factory=list)

    def download(
        self,
        ref: str,
        listing: Sequence[HubFile],
        *,
        commit: str = COMMIT,
        manifest: bytes | None = None,
        contents: Mapping[str, bytes] | None = None,
    ) -> Selection:
        """Fetch a model as the download queue does."""
        parsed = ModelRef.parse(ref)
        known = None if manifest is None else Manifest.parse(manifest)
        selection = select(parsed, listing, known)
        for file in selection.files:
            if self.cache.has(parsed.repo_id, file) is None:
                self.deliver(parsed.repo_id, file, commit=commit, contents=contents)
        self.cache.publish(parsed, commit, selection, manifest, listing)
        return selection

    def deliver(
        self,
        repo_id: str,
        file: HubFile,
        *,
        commit: str = COMMIT,
        contents: Mapping[str, bytes] | None = None,
    ) -> Path:
        """Bring the bytes of one file."""
        part = self.cache.partial_path(repo_id, file.oid)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(bytes_of(file) if contents is None else contents[file.filename])
        return self.cache.publish_file(repo_id, commit, file, part, f'"etag of {file.filename}"')

    def hf_download(
        self,
        repo_id: str,
        names: Sequence[str],
        *,
        commit: str = COMMIT,
        version: int = 1,
        ref: str | None = "main",
    ) -> None:
        """Put files where ``hf download`` and today's llama.cpp put them."""
        repo_dir = self.hub / f"models--{repo_id.replace('/', '--')}"
        for name in names:
            blob = repo_dir / "blobs" / hub_file(name, version).oid
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content_of(name, version))
            link = repo_dir / "snapshots" / commit / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to("../" * (name.count("/") + 2) + f"blobs/{blob.name}")
        if ref is not None:
            (repo_dir / "refs").mkdir(exist_ok=True)
            (repo_dir / "refs" / ref).write_text(commit)

    def older_llama_cpp(
        self, repo_id: str, tag: str, names: Sequence[str], *, mmproj: str | None = None
    ) -> None:
        """Put files where llama.cpp put them until 2026; the manifest comes first."""
        self.flat.mkdir(exist_ok=True)
        org, name = repo_id.split("/")
        manifest = self.flat / f"manifest={org}={name}={tag}.json"
        manifest.write_bytes(manifest_of(names[0], mmproj))
        for filename in [*names, *([mmproj] if mmproj else [])]:
            path = self.flat_path(repo_id, filename)
            path.write_bytes(content_of(filename))
            path.with_name(f"{path.name}.etag").write_text('"0123"')

    def flat_path(self, repo_id: str, filename: str) -> Path:
        return self.flat / f"{repo_id}_{filename}".replace("/", "_")

    def repo_dir(self, repo_id: str = REPO) -> Path:
        return self.hub / f"models--{repo_id.replace('/', '--')}"

    def blob(self, name: str, version: int = 1) -> Path:
        return self.repo_dir() / "blobs" / hub_file(name, version).oid

    def snapshot(self, repo_id: str = REPO, commit: str = COMMIT) -> Path:
        return self.repo_dir(repo_id) / "snapshots" / commit

    def shown(self) -> list[str]:
        """The models of the list; an incomplete one with a question mark."""
        return [f"{m.ref}{'' if m.complete else '?'}" for m in self.cache.list()]

    def tree(self) -> set[str]:
        """Every file and link below both roots."""
        roots = [root for root in (self.flat, self.hub) if root.exists()]
        return {
            str(path.relative_to(self.flat.parent))
            for root in roots
            for path in root.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }


def bytes_of(file: HubFile) -> bytes:
    """The content whose digest the file has."""
    return next(
        content
        for version in (1, 2, 3)
        if hub_file(file.filename, version) == file
        for content in [content_of(file.filename, version)]
    )


CachesFactory = Callable[[], Caches]


@pytest.fixture
def make_caches(config: Config, database: Database) -> CachesFactory:
    """A cache on the test's folders: a second one stands for the program's next start."""

    def make() -> Caches:
        users: list[str] = []
        asked: list[Path] = []

        def in_use(paths: Sequence[Path]) -> list[str]:
            asked.extend(paths)
            return users

        flat, hub = config.llama_cpp.cache_dir, config.llama_cpp.hub_dir
        return Caches(ModelCache(flat, hub, database, in_use), flat, hub, users, asked)

    return make


@pytest.fixture
def caches(make_caches: CachesFactory) -> Caches:
    return make_caches()
