"""The partial and its sidecar: what survives, what is trusted, who may write."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from llamactl.downloads import disk
from llamactl.downloads.partfile import (
    PartBusy,
    PartClosed,
    PartFile,
    recorded_bytes,
    remove_partial,
    sidecar_of,
)
from llamactl.errors import CacheNotWritable, InsufficientSpace

OID = "ab" * 32
SIZE = 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "blobs" / f"{OID}.llamactl.incomplete"


def interrupted(path: Path) -> None:
    """A partial whose first 300 bytes are recorded, and 100 more are not."""
    part = PartFile(path, SIZE, OID)
    part.write(b"a" * 300, 0)
    part.etag = '"e"'
    part.record()
    part.write(b"b" * 100, 300)
    part.close()


def test_a_new_partial_has_its_full_size_and_no_byte(path: Path) -> None:
    part = PartFile(path, SIZE, OID)
    assert path.stat().st_size == SIZE
    assert (part.received, part.durable, part.complete) == (0, 0, False)
    assert list(part.missing()) == [(0, SIZE)]
    part.close()


def test_what_was_recorded_is_there_again_and_what_was_not_is_missing(path: Path) -> None:
    interrupted(path)
    part = PartFile(path, SIZE, OID)
    assert (part.durable, part.etag) == (300, '"e"')
    assert list(part.missing()) == [(300, SIZE)]
    buffer = bytearray(300)
    assert part.read(memoryview(buffer), 0) == 300
    assert buffer == b"a" * 300
    part.close()


@pytest.mark.parametrize(("size", "oid"), [(SIZE, "cd" * 32), (SIZE + 1, OID)])
def test_a_partial_of_other_content_is_started_over(path: Path, size: int, oid: str) -> None:
    interrupted(path)
    part = PartFile(path, size, oid)
    assert (part.received, path.stat().st_size) == (0, size)
    assert not sidecar_of(path).exists()
    part.close()


def test_a_partial_that_became_shorter_is_started_over(path: Path) -> None:
    interrupted(path)
    os.truncate(path, 200)
    part = PartFile(path, SIZE, OID)
    assert part.received == 0
    part.close()


def test_a_second_writer_is_refused(path: Path) -> None:
    part = PartFile(path, SIZE, OID)
    with pytest.raises(PartBusy):
        PartFile(path, SIZE, OID)
    assert remove_partial(path) is False
    part.close()
    assert remove_partial(path) is True
    assert list(path.parent.iterdir()) == []


def test_the_sidecar_never_says_more_than_the_disk_has(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = PartFile(path, SIZE, OID)
    part.write(b"a" * 300, 0)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk is dying")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync_content", fail)
        with pytest.raises(CacheNotWritable, match="dying"):
            part.record()
    assert part.durable == 0
    assert recorded_bytes(path, SIZE, OID) == 0
    part.close()


def test_a_killed_record_leaves_the_earlier_one(path: Path) -> None:
    interrupted(path)
    fresh = path.with_name(f"{OID}.llamactl.ranges.new.incomplete")
    fresh.write_text('{"format": 1, "oid"')
    assert recorded_bytes(path, SIZE, OID) == 300
    assert remove_partial(path)
    assert list(path.parent.iterdir()) == []


def test_a_write_that_fails_counts_for_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = PartFile(path, SIZE, OID)

    def full(descriptor: int, data: memoryview, offset: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(disk, "write_at", full)
    with pytest.raises(InsufficientSpace):
        part.write(b"x", 0)
    assert part.received == 0
    part.close()


def test_nothing_is_written_after_the_close(path: Path) -> None:
    part = PartFile(path, SIZE, OID)
    part.close()
    with pytest.raises(PartClosed):
        part.write(b"x", 0)
    assert part.record() == 0
    part.close()


def test_a_close_waits_for_the_write_that_is_under_way(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = PartFile(path, SIZE, OID)
    writing, go_on = threading.Event(), threading.Event()
    usual = disk.write_at

    def held(descriptor: int, data: memoryview, offset: int) -> None:
        writing.set()
        go_on.wait()
        usual(descriptor, data, offset)

    monkeypatch.setattr(disk, "write_at", held)
    writer = threading.Thread(target=part.write, args=(b"late", 0))
    writer.start()
    writing.wait()
    closer = threading.Thread(target=part.close)
    closer.start()
    assert closer.is_alive()
    go_on.set()
    writer.join()
    closer.join()
    assert path.read_bytes()[:4] == b"late"


def test_a_reset_forgets_every_byte(path: Path) -> None:
    interrupted(path)
    part = PartFile(path, SIZE, OID)
    part.reset()
    assert (part.received, part.durable, recorded_bytes(path, SIZE, OID)) == (0, 0, 0)
    part.close()


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    in_the_way = tmp_path / "blobs"
    in_the_way.write_text("a file")
    with pytest.raises(CacheNotWritable, match="blobs is in the way"):
        PartFile(in_the_way / "x.incomplete", SIZE, OID)


def test_a_planted_link_is_neither_followed_nor_removed(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "precious"
    victim.write_text("precious")
    path.parent.mkdir()
    path.symlink_to(victim)
    for use in (lambda: PartFile(path, SIZE, OID), lambda: remove_partial(path)):
        with pytest.raises(CacheNotWritable, match="is in the way"):
            use()
    assert path.is_symlink()
    assert victim.read_text() == "precious"


def test_what_is_no_plain_file_is_no_partial(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(CacheNotWritable, match="is in the way"):
        PartFile(path, SIZE, OID)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(CacheNotWritable, match="not a plain file"):
        PartFile(path, SIZE, OID)


@pytest.mark.parametrize("what", ["pipe", "folder", "device", "huge", "link", "nesting"])
def test_what_is_planted_as_a_sidecar_is_neither_waited_for_nor_believed(
    path: Path, tmp_path: Path, what: str
) -> None:
    interrupted(path)
    sidecar = sidecar_of(path)
    elsewhere = sidecar.rename(tmp_path / "elsewhere")
    if what == "pipe":
        os.mkfifo(sidecar)
    elif what == "folder":
        sidecar.mkdir()
    elif what == "device":
        sidecar.symlink_to("/dev/zero")
    elif what == "link":
        sidecar.symlink_to(elsewhere)
    elif what == "nesting":
        sidecar.write_text("[" * 1_000_000)
    else:
        with sidecar.open("wb") as stream:
            stream.truncate(1 << 40)
    assert recorded_bytes(path, SIZE, OID) == 0
    if what == "folder":
        with pytest.raises(CacheNotWritable, match="is in the way"):
            PartFile(path, SIZE, OID)
        return
    part = PartFile(path, SIZE, OID)
    assert part.received == 0
    part.write(b"new", 0)
    assert part.record() == 3
    part.close()
    assert recorded_bytes(path, SIZE, OID) == 3
    assert elsewhere.exists()


@pytest.mark.parametrize("what", ["pipe", "link"])
def test_what_is_planted_where_a_sidecar_is_written_is_replaced(
    path: Path, tmp_path: Path, what: str
) -> None:
    victim = tmp_path / "precious"
    victim.write_text("precious")
    part = PartFile(path, SIZE, OID)
    fresh = path.with_name(f"{OID}.llamactl.ranges.new.incomplete")
    if what == "pipe":
        os.mkfifo(fresh)
    else:
        fresh.symlink_to(victim)
    part.write(b"new", 0)
    assert part.record() == 3
    part.close()
    assert recorded_bytes(path, SIZE, OID) == 3
    assert victim.read_text() == "precious"


def test_allocation_without_support_of_the_file_system_gives_a_sparse_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_fallocate", lambda descriptor, size: errno.EOPNOTSUPP)
    part = PartFile(path, SIZE, OID)
    assert path.stat().st_size == SIZE
    part.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_known_before_the_first_byte(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(disk, "_fallocate", lambda descriptor, size: number)
    with pytest.raises(InsufficientSpace):
        PartFile(path, SIZE, OID)
