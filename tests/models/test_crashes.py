"""A crash at any moment of a publication, and what a killed process leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamactl.database import Database
from llamactl.models import disk
from llamactl.models.cache import ModelCache
from tests.models import offline
from tests.models.conftest import (
    NEXT_COMMIT,
    REPO,
    REPOSITORY,
    Caches,
    content_of,
    listing_of,
)


class PowerCut(BaseException):
    """The machine is off: nothing that follows happens, no clean-up either."""


class Machine:
    """Counts the changes on disk, and can be switched off before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[tuple[str, str]] = []
        self.off_at: int | None = None
        for name in ("replace", "symlink_to", "mkdir", "unlink"):
            monkeypatch.setattr(Path, name, self._watched(Path, name))
        for name in ("link", "unlink", "rmdir", "fsync"):
            monkeypatch.setattr(os, name, self._watched(os, name))

    def _watched(self, owner: object, name: str) -> Callable[..., object]:
        real = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> object:
            if self.off_at is not None and len(self.log) >= self.off_at:
                raise PowerCut
            changed = args[1 if name in {"replace", "link"} else 0]
            if isinstance(changed, int):
                changed = Path(f"/proc/self/fd/{changed}").readlink()
            # No machine goes down here, so nothing has to be waited for.
            result = None if name == "fsync" else real(*args, **kwargs)
            self.log.append((name, str(changed)))
            return result

        return watched


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_everything_is_on_the_disk_before_the_ref_says_so(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY))
    ref = ("replace", str(caches.repo_dir() / "refs" / "main"))
    assert machine.log.count(ref) == 1
    before = machine.log[: machine.log.index(ref)]
    for folder in (
        caches.flat,
        caches.repo_dir() / "blobs",
        caches.snapshot(),
        caches.snapshot() / "Q6_K",
        caches.snapshot().parent,
        caches.repo_dir(),
    ):
        changed = [
            n
            for n, (what, path) in enumerate(before)
            if what != "fsync" and str(Path(path).parent) == str(folder)
        ]
        synced = [n for n, event in enumerate(before) if event == ("fsync", str(folder))]
        kept = [n for n in changed if ".incomplete" not in before[n][1]]
        assert max(synced) > max(kept), folder
    after = machine.log[machine.log.index(ref) + 1 :]
    assert ("fsync", str(caches.repo_dir() / "refs")) in after


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("update", [False, True], ids=["first download", "update"])
def test_a_crash_at_any_change_leaves_the_old_model_or_the_new_one(
    tmp_path: Path, database: Database, update: bool
) -> None:
    database.read("PRAGMA synchronous=OFF")
    names = ["Model-Q6_K-00001-of-00002.gguf", "Model-Q6_K-00002-of-00002.gguf"]
    whole = [content_of(name, 2) for name in names]
    previous = [content_of(name) for name in names] if update else None
    listing = listing_of(names, 2)
    step = 0
    finished = False
    while not finished:
        folder = tmp_path / str(step)
        caches = _caches_in(folder, database)
        with pytest.MonkeyPatch.context() as patches:
            machine = Machine(patches)
            if update:
                caches.download(f"{REPO}:Q6_K", listing_of(names))
            machine.off_at = len(machine.log) + step
            try:
                caches.download(f"{REPO}:Q6_K", listing, commit=NEXT_COMMIT)
                finished = True
            except PowerCut:
                pass
            machine.off_at = None
            allowed = [whole] if finished else [previous, whole]
            assert offline.find(caches.hub, REPO, "Q6_K") in allowed
            caches = _caches_in(folder, database)
            caches.download(f"{REPO}:Q6_K", listing, commit=NEXT_COMMIT)
        assert offline.find(caches.hub, REPO, "Q6_K") == whole
        assert caches.shown() == [f"{REPO}:Q6_K"]
        for file in caches.cache.list()[0].files:
            assert file.path.read_bytes() == content_of(file.name, 2)
        for swept in (caches.flat, caches.hub, caches.repo_dir()):
            disk.sweep(swept, older_than=time.time() + 1)
        assert not [name for name in caches.tree() if "incomplete" in name]
        step += 1
    assert step > 30


def _caches_in(folder: Path, database: Database) -> Caches:
    """What a process finds when it starts."""
    flat, hub = folder / "flat", folder / "hub"
    return Caches(ModelCache(flat, hub, database, lambda _paths: []), flat, hub)


def test_what_a_killed_process_left_goes_at_once_and_a_living_ones_stays(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from llamactl.models import disk\n"
        "with disk.temporary_name(pathlib.Path(sys.argv[1])) as path:\n"
        "    path.touch(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with disk.temporary_name(tmp_path) as ours:
        ours.touch()
        disk.sweep(tmp_path, older_than=0)
        assert list(tmp_path.iterdir()) == [ours]
