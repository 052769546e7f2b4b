"""What the snapshots of one repository hold in the Hub's cache.

Nothing is followed out of the cache: a link counts when it holds the path of a blob beside it, or
when it ends, after all links, inside one of the caches.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from llamactl.models.layout import blob_target, repo_of_dir
from llamactl.models.names import is_commit, is_filename, is_oid
from llamactl.models.opening import read_beginning

_DEEPEST = 8


class SnapshotFile(NamedTuple):
    """One name in a snapshot. ``blob`` and ``oid`` are None for a file without a blob."""

    commit: str
    filename: str
    path: str
    blob: str | None
    oid: str | None
    status: os.stat_result


class Snapshots(NamedTuple):
    """What a repository's snapshots hold, and the folders and files that told it."""

    files: list[SnapshotFile]
    sources: list[str]


class HubScanner:
    """Reads the Hub's cache below ``root``."""

    def __init__(self, root: Path, is_inside: Callable[[str], bool]) -> None:
        self._root = str(root)
        self._is_inside = is_inside

    def repos(self) -> set[str]:
        """Every model repository that has a folder here."""
        named = (repo_of_dir(name) for name, _path in _folders(self._root))
        return {repo_id for repo_id in named if repo_id is not None}

    def scan(self, repo_dir: str) -> Snapshots:
        """The files of all snapshots: those of main first, then the newest snapshot's."""
        if not _is_folder(repo_dir):
            return Snapshots([], [repo_dir])
        snapshots, main = f"{repo_dir}/snapshots", f"{repo_dir}/refs/main"
        folder = f"{repo_dir}/blobs"
        found = Snapshots([], [snapshots, folder])
        if not _is_folder(snapshots):
            return found
        blobs = folder if _is_folder(folder) else None
        commits = [pair for pair in _folders(snapshots) if is_commit(pair[0])]
        if len(commits) > 1:
            found.sources.append(main)
            current = read_ref(main)
            commits.sort(key=lambda pair: (pair[0] == current, _modified(pair[1])), reverse=True)
        for commit, path in commits:
            for filename, entry in _walk(path, "", found.sources):
                file = self._file(commit, filename, entry, blobs)
                if file is not None:
                    found.files.append(file)
        return found

    def _file(
        self, commit: str, filename: str, entry: os.DirEntry[str], blobs: str | None
    ) -> SnapshotFile | None:
        try:
            if not entry.is_symlink():
                status = entry.stat(follow_symlinks=False)
                return SnapshotFile(commit, filename, entry.path, None, None, status)
            target = os.readlink(entry.path)  # noqa: PTH115 - a Path costs more than the call
            oid = target.rpartition("/")[2]
            if blobs is None or not is_oid(oid) or target != blob_target(filename, oid):
                return self._foreign_link(commit, filename, entry)
            blob = f"{blobs}/{oid}"
            status = os.lstat(blob)
            if stat.S_ISLNK(status.st_mode):
                # hf may keep the bytes in a store that several repositories share.
                if not self._is_inside(blob):
                    return None
                status = os.stat(blob)  # noqa: PTH116 - as above
            if not stat.S_ISREG(status.st_mode):
                return None
            return SnapshotFile(commit, filename, entry.path, blob, oid, status)
        except OSError:
            return None

    def _foreign_link(
        self, commit: str, filename: str, entry: os.DirEntry[str]
    ) -> SnapshotFile | None:
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode) or not self._is_inside(entry.path):
            return None
        return SnapshotFile(commit, filename, entry.path, None, None, status)


def read_ref(path: str | Path) -> str | None:
    """The commit that a branch's file holds, or None."""
    try:
        first_line = read_beginning(path, 256, follow_links=False).partition(b"\n")[0]
    except OSError:
        return None
    commit = first_line.decode("ascii", "replace").strip()
    return commit if is_commit(commit) else None


def refs_below(folder: Path) -> list[Path]:
    """The files in ``refs``, those of branches with a slash in their names included."""
    if not _is_folder(str(folder)):
        return []
    return sorted(Path(entry.path) for _name, entry in _walk(str(folder), "", []))


def _is_folder(path: str) -> bool:
    """Whether there is a real folder, not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _modified(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


def _folders(path: str) -> Iterator[tuple[str, str]]:
    """Name and path of the real folders in a folder."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield entry.name, entry.path
    except OSError:
        return


def _walk(
    path: str, prefix: str, visited: list[str], depth: int = 0
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    visited.append(path)
    try:
        with os.scandir(path) as entries:
            listed = list(entries)
    except OSError:
        return
    for entry in listed:
        filename = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            if depth < _DEEPEST:
                yield from _walk(entry.path, f"{filename}/", visited, depth + 1)
        elif is_filename(filename):
            yield filename, entry
