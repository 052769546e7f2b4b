"""Whatever lies in the caches under a file's name: nothing there blocks or leads away."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from llamactl.errors import ModelNotFound
from llamactl.models import digest
from llamactl.models.gguf import NotGGUF, read_header
from llamactl.models.opening import read_beginning
from llamactl.models.reference import ModelRef
from tests.models.conftest import (
    COMMIT,
    MMPROJ,
    NEXT_COMMIT,
    Q4,
    Q8,
    REPO,
    SHARDS,
    Caches,
    content_of,
    hub_file,
    listing_of,
    manifest_of,
)

OTHER = "b/Other-GGUF"


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "inside.gguf").write_bytes(b"GGUF")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        # A socket's address may have a hundred bytes only.
        os.chdir(path.parent)
        try:
            bound.bind(path.name)
        finally:
            os.chdir(here)


Strange = Callable[[Path], None]
EVERY_STRANGE_FILE = pytest.mark.parametrize(
    "strange", [pipe, folder, loop, dangling, device, listener]
)


@EVERY_STRANGE_FILE
def test_in_place_of_any_file_it_spoils_that_model_alone(caches: Caches, strange: Strange) -> None:
    caches.download(f"{OTHER}:Q8_0", listing_of([Q8]))
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4, MMPROJ]))
    caches.hf_download(REPO, [Q4], commit=NEXT_COMMIT, ref="v2")
    repo_dir, org_name = caches.repo_dir(), REPO.replace("/", "=")
    for path in (
        caches.flat_path(REPO, Q4),
        caches.flat / f"manifest={org_name}=Q4_K_M.json",
        caches.flat / f"manifest={org_name}=latest.json",
        caches.flat_path(REPO, f"{Q4}.etag"),
        repo_dir / "refs" / "main",
        repo_dir / "blobs" / hub_file(Q4).oid,
        caches.snapshot() / Q4,
        caches.snapshot() / "Model-Q2_K.gguf",
        repo_dir / "trees",
    ):
        path.unlink(missing_ok=True)
        strange(path)
        assert f"{OTHER}:Q8_0" in caches.shown()
        caches.cache.find(ModelRef(REPO, "Q4_K_M"))
        found = caches.cache.has(REPO, hub_file(Q4))
        assert found is None or found.read_bytes() == content_of(Q4)
    for tag in ("Q4_K_M", None):
        try:
            caches.cache.delete(REPO, tag)
        except ModelNotFound:
            continue
    assert caches.shown() == [f"{OTHER}:Q8_0"]
    assert caches.cache.gguf_path(ModelRef(OTHER)).is_file()


@EVERY_STRANGE_FILE
def test_it_is_neither_read_nor_hashed(tmp_path: Path, strange: Strange) -> None:
    path = tmp_path / "m.gguf"
    strange(path)
    with pytest.raises(OSError, match=r"."):
        read_beginning(path, 10)
    with pytest.raises(OSError, match=r"."):
        digest.matches(path, "0" * 64)
    with pytest.raises(NotGGUF):
        read_header(path)


@pytest.mark.parametrize("strange", [pipe, loop, dangling, device, listener])
def test_in_place_of_a_folder_it_makes_the_repository_empty(
    caches: Caches, strange: Strange
) -> None:
    caches.hf_download(OTHER, [Q8])
    for number, place in enumerate(["", "blobs", "snapshots", f"snapshots/{COMMIT}", "refs"]):
        repo_id = f"org/Odd{number}-GGUF"
        caches.hf_download(repo_id, [Q4])
        path = caches.repo_dir(repo_id) / place
        path.rename(caches.hub / f"away{number}")
        strange(path)
        shown = [name for name in caches.shown() if repo_id in name]
        assert shown == ([f"{repo_id}:Q4_K_M"] if place == "refs" else [])
        if shown:
            caches.cache.delete(repo_id, None)
    assert caches.shown() == [f"{OTHER}:Q8_0"]


def test_a_manifest_of_a_gigabyte_is_not_read_whole(caches: Caches) -> None:
    caches.older_llama_cpp(REPO, "Q8_0", [Q8])
    huge = caches.flat / "manifest=org=Model-GGUF=Q4_K_M.json"
    huge.write_bytes(manifest_of(Q4))
    os.truncate(huge, 2**30)
    assert len(read_beginning(huge, 1000)) == 1000
    assert caches.shown() == [f"{REPO}:Q8_0"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"ggufFile": ' + b"9" * 10_000 + b"}",
        b'{"ggufFile":{"rfilename":["m.gguf"]}}',
        json.dumps({"ggufFile": {"rfilename": "\udcff.gguf"}}).encode(),
        json.dumps({"ggufFile": {"rfilename": f"{'d/' * 500}m.gguf"}}).encode(),
        json.dumps({"ggufFile": {"rfilename": "m-00001-of-99999.gguf"}}).encode(),
    ],
)
def test_a_manifest_that_makes_no_sense_tells_nothing(caches: Caches, content: bytes) -> None:
    caches.older_llama_cpp(REPO, "Q8_0", [Q8])
    (caches.flat / "manifest=org=Model-GGUF=Q4_K_M.json").write_bytes(content)
    assert caches.shown() == [f"{REPO}:Q8_0"]


def test_names_that_are_no_utf_8_are_passed_over(caches: Caches) -> None:
    caches.hf_download(REPO, [Q8])
    caches.older_llama_cpp(REPO, "Q8_0", [Q8])
    odd = os.fsdecode(b"Model-\xff-Q4_K_M.gguf")
    for path in (
        caches.snapshot() / odd,
        caches.flat / f"org_Model-GGUF_{odd}",
        caches.flat / os.fsdecode(b"manifest=org=Model\xff=Q4_K_M.json"),
        caches.hub / os.fsdecode(b"models--org--Mod\xe9l"),
        caches.repo_dir() / "refs" / os.fsdecode(b"v\xff"),
    ):
        path.write_bytes(manifest_of(Q4))
    assert caches.shown() == [f"{REPO}:Q8_0"]
    caches.cache.delete(REPO, None)
    assert caches.shown() == []


def test_a_folder_that_may_not_be_read_hides_its_models_alone(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches.hf_download(REPO, [Q8])
    caches.hf_download(OTHER, [Q8])
    real = os.scandir

    def scandir(path: str) -> object:
        # Not by its mode: root, who runs this in a container, may read everything.
        if Path(path) == caches.snapshot():
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert caches.shown() == [f"{OTHER}:Q8_0"]


def test_a_repository_with_ten_thousand_files_is_listed(caches: Caches) -> None:
    caches.hf_download(REPO, [Q8])
    for number in range(10_000):
        (caches.snapshot() / f"part-{number:05d}.bin").touch()
    assert caches.shown() == [f"{REPO}:Q8_0"]


def test_folders_deeper_than_any_repository_has_are_not_gone_into(caches: Caches) -> None:
    caches.hf_download(REPO, [Q8])
    deep = caches.snapshot().joinpath(*["d"] * 100)
    deep.mkdir(parents=True)
    (deep / Q4).write_bytes(b"GGUF")
    refs = caches.repo_dir().joinpath("refs", *["d"] * 100)
    refs.mkdir(parents=True)
    assert caches.shown() == [f"{REPO}:Q8_0"]
    caches.cache.delete(REPO, None)
    assert caches.shown() == []


def test_a_removal_does_not_even_look_where_a_planted_link_leads(
    caches: Caches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "main").write_text(COMMIT)
    caches.hf_download(REPO, [*SHARDS])
    (caches.repo_dir() / "refs" / "main").unlink()
    (caches.repo_dir() / "refs").rmdir()
    for name in ("refs", "trees", ".no_exist"):
        (caches.repo_dir() / name).symlink_to(outside)
    looked: list[str] = []
    real = os.scandir

    def scandir(path: str) -> object:
        looked.append(os.path.realpath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    caches.cache.delete(REPO, None)
    assert caches.shown() == []
    assert not [path for path in looked if path.startswith(str(outside))]
    assert (outside / "deep" / "main").read_text() == COMMIT
