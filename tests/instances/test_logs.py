from __future__ import annotations

import threading
from pathlib import Path

import pytest

from llamactl.instances import logs
from llamactl.instances.logs import InstanceLog


def log(tmp_path: Path, *, max_size: int = 10**6, backups: int = 3) -> InstanceLog:
    return InstanceLog(tmp_path / "logs" / "one.log", max_size=max_size, backups=backups)


def test_every_byte_is_kept_as_it_was_written(tmp_path: Path) -> None:
    written = log(tmp_path)
    blocks = [b"a\xff\x00b\n", b"no newline", bytes(range(256)) * 10]
    for block in blocks:
        written.write(block)
    assert written.path.read_bytes() == b"".join(blocks) == written.tail(None)
    written.close()


def test_files_are_readable_by_the_owner_only(tmp_path: Path) -> None:
    written = log(tmp_path, max_size=10)
    for _ in range(5):
        written.write(b"123456")
    written.close()
    files = sorted(path for path in written.path.parent.iterdir())
    assert [path.name for path in files] == ["one.log", "one.log.1", "one.log.2", "one.log.3"]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert written.path.parent.stat().st_mode & 0o777 == 0o700


def test_rotation_loses_nothing_but_the_oldest_file(tmp_path: Path) -> None:
    written = log(tmp_path, max_size=100, backups=2)
    lines = [f"line {number:04d}\n".encode() for number in range(100)]
    for line in lines:
        written.write(line)
    written.close()
    names = ["one.log.2", "one.log.1", "one.log"]
    kept = b"".join((written.path.parent / name).read_bytes() for name in names)
    assert kept == b"".join(lines)[-len(kept) :] and len(kept) > 200
    assert not (written.path.parent / "one.log.3").exists()


def test_without_backups_the_file_begins_anew(tmp_path: Path) -> None:
    written = log(tmp_path, max_size=10, backups=0)
    for _ in range(4):
        written.write(b"12345678")
    written.close()
    assert [path.name for path in written.path.parent.iterdir()] == ["one.log"]


@pytest.mark.parametrize(
    ("count", "expected"), [(0, b""), (1, b"c"), (2, b"b\nc"), (9, b"a\nb\nc")]
)
def test_tail_gives_the_last_lines(tmp_path: Path, count: int, expected: bytes) -> None:
    written = log(tmp_path)
    written.write(b"a\nb\nc")
    assert written.tail(count) == expected
    written.close()


def test_tail_looks_into_the_file_before_a_rotation(tmp_path: Path) -> None:
    written = log(tmp_path, max_size=10)
    written.write(b"old one\n")
    written.write(b"new one\n")
    assert written.tail(2) == b"old one\nnew one\n"
    written.close()


def test_tail_of_an_instance_that_never_ran_is_empty(tmp_path: Path) -> None:
    assert log(tmp_path).tail(None) == b""


def test_tail_outlives_the_server(tmp_path: Path) -> None:
    first = log(tmp_path)
    first.write(b"from a former life\n")
    first.close()
    assert log(tmp_path).tail(5) == b"from a former life\n"


def test_memory_stays_bounded_whatever_is_written(tmp_path: Path) -> None:
    written = log(tmp_path, max_size=2**40)
    for _ in range(64):
        written.write(b"x" * 100_000)
    assert len(written._ring) <= 2 * logs.RING_SIZE
    assert written.written == 6_400_000 == written.path.stat().st_size
    assert written.last_lines(5) == ("x" * 2000,)
    written.close()


def test_a_full_disk_drops_bytes_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    written = log(tmp_path)
    written.path.parent.mkdir()
    written.path.mkdir()  # stands for any reason why a file cannot be written
    written.write(b"lost")
    assert written.dropped == 4
    assert written.last_lines(1) == ("lost",)
    written.path.rmdir()
    written.write(b"kept")
    assert written.path.read_bytes() == b"kept"
    written.close()


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    written = log(tmp_path)
    written.path.parent.mkdir()
    written.path.symlink_to(victim)
    written.write(b"x")
    assert victim.read_text() == "precious" and written.dropped == 1
    written.close()


def test_a_file_that_was_moved_away_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOOK_AGAIN", 0.0)
    written = log(tmp_path)
    written.write(b"before")
    written.path.rename(tmp_path / "moved")
    written.write(b"after")
    assert (tmp_path / "moved").read_bytes() == b"before"
    assert written.path.read_bytes() == b"after"
    written.close()


def test_followers_get_what_is_written_until_the_end(tmp_path: Path) -> None:
    written = log(tmp_path)
    gone = threading.Event()
    seen: list[bytes] = []
    ready = threading.Event()

    def follow() -> None:
        for block in written.follow(gone.is_set, pause=0.01):
            ready.set()
            seen.append(block)

    written.write(b"before")
    follower = threading.Thread(target=follow)
    follower.start()
    assert ready.wait(10)
    written.write(b"one ")
    written.write(b"two")
    while b"".join(seen) != b"one two":
        assert follower.is_alive()
    gone.set()
    follower.join(10)
    assert not follower.is_alive()
    written.close()


def test_closing_the_log_ends_its_followers(tmp_path: Path) -> None:
    written = log(tmp_path)
    follower = threading.Thread(target=lambda: list(written.follow(lambda: False)))
    follower.start()
    written.close()
    follower.join(10)
    assert not follower.is_alive()


def test_delete_removes_every_file(tmp_path: Path) -> None:
    written = log(tmp_path, max_size=5)
    for _ in range(4):
        written.write(b"12345")
    written.delete()
    assert list(written.path.parent.iterdir()) == []
