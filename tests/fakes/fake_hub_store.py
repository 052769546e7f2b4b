"""The repositories of a fake hub: commits, listings, manifests. No socket here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.fake_hub_content import Content, as_content, git_blob_sha1, lfs_pointer

LFS_SUFFIXES = (".gguf", ".safetensors", ".bin")
SHARD = re.compile(r"(?P<prefix>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)

JSON = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One file at one commit, under the names that the hub's answers give it."""

    path: str
    content: Content
    lfs: bool

    @property
    def pointer(self) -> bytes:
        return lfs_pointer(self.content.sha256, self.content.size)

    @property
    def oid(self) -> str:
        """What identifies the bytes: sha256 for an LFS file, git's sha1 for the others."""
        return self.content.sha256 if self.lfs else self.content.git_sha1

    def row(self) -> JSON:
        """The entry as `/tree` lists it."""
        if not self.lfs:
            return {
                "type": "file",
                "oid": self.content.git_sha1,
                "size": self.content.size,
                "path": self.path,
            }
        return {
            "type": "file",
            "oid": git_blob_sha1(self.pointer),
            "size": self.content.size,
            "lfs": {
                "oid": self.content.sha256,
                "size": self.content.size,
                "pointerSize": len(self.pointer),
            },
            "xetHash": self.content.xet_hash,
            "path": self.path,
        }

    def sibling(self, blobs: bool) -> JSON:
        """The entry as a model's info lists it."""
        if not blobs:
            return {"rfilename": self.path}
        row = self.row()
        sibling = {"rfilename": self.path, "size": row["size"], "blobId": row["oid"]}
        if self.lfs:
            sibling["lfs"] = self.lfs_summary()
        return sibling

    def lfs_summary(self) -> JSON:
        return {
            "sha256": self.content.sha256,
            "size": self.content.size,
            "pointerSize": len(self.pointer),
        }

    def manifest_file(self) -> JSON:
        return {
            "rfilename": self.path,
            "blobId": f"sha256:{self.content.sha256}",
            "size": self.content.size,
            "lfs": self.lfs_summary(),
        }


@dataclass
class Repo:
    """One repository; `commits` keeps every tree that its main ever pointed to."""

    repo_id: str
    lfs_threshold: int
    private: bool = False
    gated: bool | str = False
    granted: bool = False
    disabled: bool = False
    downloads: int = 0
    likes: int = 0
    order: Callable[[str], Any] | None = None
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)
    main: str = ""
    rewrite_rows: Callable[[list[JSON]], list[JSON]] | None = None

    def push(self, files: Mapping[str, bytes | Path | Content], delete: Iterable[str] = ()) -> str:
        """Move main to a new commit with these files added or replaced; returns the commit."""
        tree = dict(self.commits.get(self.main, {}))
        for path in delete:
            del tree[path]
        for path, source in files.items():
            content = as_content(source)
            lfs = path.endswith(LFS_SUFFIXES) or content.size >= self.lfs_threshold
            tree[path] = Entry(path, content, lfs)
        seed = "\n".join([self.main, *(f"{path} {tree[path].oid}" for path in sorted(tree))])
        self.main = hashlib.sha1(seed.encode("utf-8", "surrogatepass")).hexdigest()
        self.commits[self.main] = tree
        return self.main

    def tree(self, revision: str) -> dict[str, Entry] | None:
        """The files at a commit or at main; None for a revision that does not exist."""
        return self.commits.get(self.commit_of(revision))

    def commit_of(self, revision: str) -> str:
        return self.main if revision in ("main", "HEAD", "refs/heads/main") else revision

    def rows(self, revision: str, folder: str, recursive: bool) -> list[JSON]:
        """The listing of one folder, directories first and then files, or in `order`."""
        tree = self.tree(revision) or {}
        prefix = f"{folder}/" if folder else ""
        directories: dict[str, JSON] = {}
        files: list[JSON] = []
        for path, entry in tree.items():
            if not path.startswith(prefix):
                continue
            parts = path[len(prefix) :].split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                name = prefix + "/".join(parts[:depth])
                oid = hashlib.sha1(name.encode()).hexdigest()
                directories[name] = {"type": "directory", "oid": oid, "size": 0, "path": name}
            if recursive or len(parts) == 1:
                files.append(entry.row())
        order = self.order or (lambda path: path)
        rows = [directories[name] for name in sorted(directories)]
        rows += sorted(files, key=lambda row: order(row["path"]))
        return self.rewrite_rows(rows) if self.rewrite_rows else rows

    def info(self, revision: str, blobs: bool) -> JSON:
        """The body of `/api/models/{repo}`."""
        tree = self.tree(revision) or {}
        return self.summary() | {
            "_id": hashlib.sha1(self.repo_id.encode()).hexdigest()[:24],
            "author": self.repo_id.split("/")[0],
            "sha": self.commit_of(revision),
            "disabled": self.disabled,
            "cardData": {"license": "mit"},
            "config": {},
            "siblings": [tree[path].sibling(blobs) for path in sorted(tree)],
        }

    def summary(self) -> JSON:
        """The entry of a search."""
        return {
            "id": self.repo_id,
            "modelId": self.repo_id,
            "private": self.private,
            "gated": self.gated,
            "downloads": self.downloads,
            "likes": self.likes,
            "tags": ["gguf", "region:us"],
            "createdAt": "2025-03-12T10:00:00.000Z",
            "lastModified": "2025-03-12T10:30:05.000Z",
        }

    def manifest(self, tag: str, llama_cpp: bool) -> JSON | str:
        """The manifest of a tag, or the sentence of the hub's refusal."""
        tree = self.tree("main") or {}
        models = [tree[path] for path in sorted(tree) if _is_model(path)]
        chosen = _choose(models, tag)
        if chosen is None:
            return (
                "The specified tag is not a valid quantization scheme. "
                'Please use another tag or "latest"'
            )
        if not llama_cpp and SHARD.fullmatch(chosen.path):
            return "The specified tag is a sharded GGUF. Ollama does not support this yet."
        projectors = [
            tree[path] for path in sorted(tree) if "mmproj" in path and path.endswith(".gguf")
        ]
        body = _docker_manifest(chosen, projectors[:1])
        if llama_cpp:
            body["ggufFile"] = chosen.manifest_file()
            if projectors:
                body["mmprojFile"] = projectors[0].manifest_file()
        return body


def _is_model(path: str) -> bool:
    """A GGUF that a tag can name: no projector, no draft; of a split one only the first shard."""
    name = path.rsplit("/", 1)[-1]
    if not name.endswith(".gguf") or "mmproj" in name or "imatrix" in name:
        return False
    shard = SHARD.fullmatch(path)
    return shard is None or int(shard["index"]) == 1


def _choose(models: list[Entry], tag: str) -> Entry | None:
    """The hub's own ladder: Q4_K_M, any Q4, the first; a named tag without regard to case."""
    if tag.lower() == "latest":
        for wanted in ("q4_k_m", "q4"):
            for model in models:
                if wanted in model.path.lower():
                    return model
        return models[0] if models else None
    for model in models:
        if tag.lower() in (model.path.lower(), model.path.rsplit("/", 1)[-1].lower()):
            return model
    pattern = re.compile(rf"(^|[-._/]){re.escape(tag)}([-./]|$)", re.IGNORECASE)
    return next((model for model in models if pattern.search(model.path)), None)


def _docker_manifest(chosen: Entry, projectors: list[Entry]) -> JSON:
    def layer(kind: str, digest: str, size: int) -> JSON:
        return {"digest": f"sha256:{digest}", "mediaType": kind, "size": size}

    params = json.dumps({"stop": ["</s>"]}).encode()
    layers = [
        layer("application/vnd.ollama.image.model", chosen.content.sha256, chosen.content.size),
        layer("application/vnd.ollama.image.params", hashlib.sha256(params).hexdigest(), 18),
    ]
    for projector in projectors:
        digest, size = projector.content.sha256, projector.content.size
        layers.append(layer("application/vnd.ollama.image.projector", digest, size))
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": layer("application/vnd.docker.container.image.v1+json", "0" * 64, 551),
        "layers": layers,
    }
