"""Let the programs of the field find a model whose bytes are there: snapshot, manifest, ref.

They reach a snapshot through the ref alone. So it is written last, once every file of the model
has its place in the snapshot, and with them the unchanged files of the models that were there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from llamactl.errors import BadMetadata
from llamactl.models import disk
from llamactl.models.hubfile import HubFile, Manifest
from llamactl.models.layout import FlatCache, HubCache, blob_target
from llamactl.models.library import Library
from llamactl.models.reference import ModelRef
from llamactl.models.selection import PRESET, Selection


class Publisher:
    """Writes what is no model's bytes. The caller sees to it that one thread writes at a time."""

    def __init__(self, flat: FlatCache, hub: HubCache, library: Library) -> None:
        self._flat = flat
        self._hub = hub
        self._library = library

    def publish(
        self,
        repo_id: str,
        commit: str,
        selection: Selection,
        manifest: bytes | None,
        listing: Sequence[HubFile],
    ) -> None:
        """Make the selection's model visible, all of it at once.

        Its files are there already, under both names.
        """
        wanted = [file for file in selection.files if file.filename != PRESET]
        links = {file.filename: file.oid for file in wanted}
        links |= self._unchanged(repo_id, listing)
        snapshot = self._hub.snapshot(repo_id, commit)
        linked = [self._link(repo_id, snapshot, name, oid) for name, oid in links.items()]
        for folder in {(snapshot / name).parent for name in links}:
            disk.sync_dir(folder)
        path = self._flat.manifest_path(ModelRef(repo_id, selection.tag))
        disk.write_file(path, fitting_manifest(selection, manifest))
        # A system without any kind of link has the flat files alone.
        if all(linked):
            ref = self._hub.ref(repo_id)
            disk.make_dirs(ref.parent, self._hub.root)
            # Beside the ref the temporary name would be taken for a branch.
            disk.write_file(ref, commit.encode(), scratch=self._hub.repo_dir(repo_id))

    def _unchanged(self, repo_id: str, listing: Sequence[HubFile]) -> dict[str, str]:
        """The files of earlier snapshots that the listing still has, with the same content."""
        current = {file.filename: file.oid for file in listing if file.filename != PRESET}
        return {
            file.filename: file.oid
            for file in self._library.snapshot_files(repo_id)
            if file.oid is not None and current.get(file.filename) == file.oid
        }

    def _link(self, repo_id: str, snapshot: Path, filename: str, oid: str) -> bool:
        """Link one file into a snapshot; whether the system could."""
        path = snapshot / filename
        disk.make_dirs(path.parent, self._hub.root)
        target = blob_target(filename, oid)
        try:
            if os.readlink(path) == target:  # noqa: PTH115 - Path.readlink changes the text
                return True
        except OSError:
            pass  # nothing there yet, or a file
        blob, scratch = self._hub.blob(repo_id, oid), self._hub.repo_dir(repo_id)
        return disk.symlink(target, path, scratch) or (
            blob.exists() and disk.hard_link(blob, path, scratch)
        )


def fitting_manifest(selection: Selection, received: bytes | None) -> bytes:
    """The manifest as the Hub sent it, if it names these files.

    Else one that does, in the Hub's form: a mirror may have no manifests, and older llama.cpp
    finds nothing without one.
    """
    gguf, mmproj = selection.ggufs[0], selection.mmproj
    if received is not None:
        try:
            manifest = Manifest.parse(received)
        except BadMetadata:
            manifest = Manifest(received, None, None)
        named = None if mmproj is None else mmproj.filename
        if manifest.gguf == gguf.filename and manifest.mmproj in {None, named}:
            return received
    content = {"ggufFile": _manifest_entry(gguf)}
    if mmproj is not None:
        content["mmprojFile"] = _manifest_entry(mmproj)
    return json.dumps(content).encode()


def _manifest_entry(file: HubFile) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": file.filename, "size": file.size}
    if file.sha256 is not None:
        entry["blobId"] = f"sha256:{file.oid}"
        entry["lfs"] = {"sha256": file.oid, "size": file.size}
    return entry
