"""What a job will fetch: one commit, chosen files. Made once, stored, and kept over restarts."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from llamactl.errors import NoSuchTag
from llamactl.hub.client import HubClient
from llamactl.models.hubfile import HubFile, Manifest
from llamactl.models.reference import ModelRef
from llamactl.models.selection import Selection, select


@dataclass(frozen=True)
class Plan:
    """``listing``: every file of the repository at ``commit``; ``manifest``: as received.

    ``done``: the names of the files that this job has seen complete in the cache.
    """

    commit: str
    selection: Selection
    manifest: bytes | None
    listing: tuple[HubFile, ...]
    done: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        return sum(file.size for file in self.selection.files)

    def with_done(self, *filenames: str) -> Plan:
        return replace(self, done=self.done.union(filenames))

    def chosen_only(self) -> Plan:
        """What a job that is done is remembered by; a repository may list thousands of files."""
        return replace(self, manifest=None, listing=())

    def to_json(self) -> str:
        """The plan as the jobs' table keeps it."""
        manifest = None if self.manifest is None else base64.b64encode(self.manifest).decode()
        chosen = self.selection
        return json.dumps(
            {
                "commit": self.commit,
                "tag": chosen.tag,
                "ggufs": [vars(file) for file in chosen.ggufs],
                "mmproj": None if chosen.mmproj is None else vars(chosen.mmproj),
                "preset": None if chosen.preset is None else vars(chosen.preset),
                "manifest": manifest,
                "listing": [vars(file) for file in self.listing],
                "done": sorted(self.done),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what ``to_json`` wrote."""
        value: dict[str, Any] = json.loads(text)
        manifest = value["manifest"]
        return cls(
            value["commit"],
            Selection(
                value["tag"],
                tuple(HubFile(**file) for file in value["ggufs"]),
                _optional(value["mmproj"]),
                _optional(value["preset"]),
            ),
            None if manifest is None else base64.b64decode(manifest),
            tuple(HubFile(**file) for file in value["listing"]),
            frozenset(value["done"]),
        )


def make_plan(hub: HubClient, ref: ModelRef, halt: threading.Event) -> Plan:
    """Ask the hub what ``ref`` means today. Raises what the hub and the selection raise."""
    with ThreadPoolExecutor(1, "download-manifest") as beside:
        asked = beside.submit(_manifest, hub, ref, halt)
        commit = hub.commit(ref.repo_id, halt)
        listing = hub.tree(ref.repo_id, commit, halt)
        manifest = asked.result()
    selection = select(ref, listing, manifest)
    raw = None if manifest is None else manifest.raw
    return Plan(commit, selection, raw, tuple(listing))


def _manifest(hub: HubClient, ref: ModelRef, halt: threading.Event) -> Manifest | None:
    try:
        return hub.manifest(ref, halt)
    except NoSuchTag:
        # The hub knows fewer tags than the rules for the listing, which then have the last word.
        return None


def _optional(value: Mapping[str, Any] | None) -> HubFile | None:
    return None if value is None else HubFile(**value)
