from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llamactl.instances import logfiles, logs
from llamactl.instances.logs import InstanceLog
from tests.requirements import in_own_namespace


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
    told = b"\n--- llamactl: 4 bytes could not be written here\n"
    assert written.path.read_bytes() == told + b"kept"
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
    monkeypatch.setattr(logfiles, "LOOK_AGAIN", 0.0)
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
    assert ready.wait(60)
    written.write(b"one ")
    written.write(b"two")
    while b"".join(seen) != b"one two":
        assert follower.is_alive()
        time.sleep(0.001)
    gone.set()
    follower.join(60)
    assert not follower.is_alive()
    written.close()


def test_closing_the_log_ends_its_followers_at_once(tmp_path: Path) -> None:
    for _ in range(20):
        written = log(tmp_path)
        following = written.follow(never, pause=3600)
        follower = threading.Thread(target=lambda following=following: list(following))
        follower.start()
        written.close()
        follower.join(60)
        assert not follower.is_alive()


def test_following_from_the_last_lines_repeats_and_loses_nothing(tmp_path: Path) -> None:
    """Whatever is written between the reading of the files and the following after them."""
    written = log(tmp_path, max_size=5000, backups=3)
    enough = threading.Event()

    def write() -> None:
        for number in itertools.count():
            written.write(b"line %06d\n" % number)
            if enough.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            text = b""
            for block in written.follow(never, 50, pause=0.01):
                text += block
                if text.count(b"\n") > 100:
                    break
            first = int(text[5:11])
            count = text.count(b"\n")
            assert text == b"".join(b"line %06d\n" % (first + number) for number in range(count))
    finally:
        enough.set()
        writer.join(60)
    written.close()


def test_a_file_is_never_larger_than_it_may_be_whatever_the_blocks(tmp_path: Path) -> None:
    written = log(tmp_path, max_size=1000, backups=5)
    everything = b""
    for size in (999, 1, 1000, 1, 2500, 1001, 10):
        block = bytes([65 + size % 26]) * size
        everything += block
        written.write(block)
    written.close()
    parts = sorted(written.path.parent.iterdir(), reverse=True)
    assert max(path.stat().st_size for path in parts) <= 1000
    kept = b"".join(path.read_bytes() for path in parts)
    assert everything.endswith(kept) and len(kept) > 3000
    with written.whole() as cut:
        assert (cut.size, b"".join(cut.pieces())) == (len(kept), kept)


def test_two_hundred_megabytes_without_a_newline_are_bounded(tmp_path: Path) -> None:
    written = log(tmp_path, max_size=1_000_000, backups=2)
    block = b"x" * 65536
    for _ in range(200_000_000 // len(block)):
        written.write(block)
    files = list(written.path.parent.iterdir())
    assert sum(path.stat().st_size for path in files) <= 3_000_000 and written.dropped == 0
    assert len(written._ring) <= 2 * logs.RING_SIZE
    assert len(written.tail(400)) <= logfiles.LONGEST_TAIL
    written.close()


def test_a_whole_log_is_what_it_was_when_it_was_asked_for(tmp_path: Path) -> None:
    written = log(tmp_path, max_size=10, backups=1)
    written.write(b"old one\n")
    written.write(b"new one\n")
    with written.whole() as cut:
        for _ in range(5):
            written.write(b"later\n")
        assert b"".join(cut.pieces()) == b"old one\nnew one\n"
    written.close()


def test_a_long_tail_looks_through_all_files(tmp_path: Path) -> None:
    written = log(tmp_path, max_size=100, backups=9)
    lines = [f"line {number:04d}\n".encode() for number in range(90)]
    for line in lines:
        written.write(line)
    assert written.tail(85) == b"".join(lines[-85:])
    written.close()


def test_a_slow_follower_is_told_what_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "RING_SIZE", 100)
    written = log(tmp_path)
    following = written.follow(lambda: False)
    written.write(b"x" * 1000)
    assert b"900 bytes came too fast" in next(following)
    assert next(following) == b"x" * 100
    written.close()


def test_many_followers_get_the_same(tmp_path: Path) -> None:
    written = log(tmp_path)
    written.write(b"before\n")
    seen: list[list[bytes]] = [[] for _ in range(20)]
    threads = [
        threading.Thread(target=lambda blocks=blocks: blocks.extend(written.follow(never, 1)))
        for blocks in seen
    ]
    for thread in threads:
        thread.start()
    for number in range(100):
        written.write(b"line %d\n" % number)
    expected = b"before\n" + b"".join(b"line %d\n" % number for number in range(100))
    deadline = time.monotonic() + 60
    while not all(expected.endswith(b"".join(blocks)[-9:]) and blocks for blocks in seen):
        assert time.monotonic() < deadline, seen
        time.sleep(0.01)
    written.close()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert all(expected.endswith(b"".join(blocks)) for blocks in seen)


def never() -> bool:
    return False


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_put_in_the_logs_place_is_neither_read_nor_waited_for(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    written = log(tmp_path)
    written.path.parent.mkdir()
    if kind == "link":
        written.path.symlink_to(tmp_path / "secret")
    else:
        os.mkfifo(written.path)
    assert written.tail(None) == b""
    written.write(b"x")
    assert written.dropped == 1
    written.path.unlink()
    written.write(b"y")
    assert written.tail(1) == b"y"
    written.close()


#: More is written than the disk takes; then there is room again.
FULL_DISK = """
import sys
from pathlib import Path

from llamactl.instances.logs import InstanceLog

disk = Path(sys.argv[1])
log = InstanceLog(disk / "one.log", max_size=10**6, backups=1)
for _ in range(40):
    log.write(b"0123456789abcde;" * 256)
dropped = log.dropped
(disk / "filler").unlink()
log.write(b"kept")
text, told = log.path.read_bytes(), b"%d bytes could not be written here" % dropped
assert 0 < dropped == log.dropped < 40 * 4096, dropped
assert text.count(b";") * 16 == 40 * 4096 - dropped, (text.count(b";"), dropped)
assert text.endswith(b"--- llamactl: " + told + bytes([10]) + b"kept"), text[-200:]
print("goes on")
"""


def test_a_disk_that_is_really_full_loses_only_what_it_cannot_take(tmp_path: Path) -> None:
    script = tmp_path / "full.py"
    script.write_text(FULL_DISK)
    mount = 'mount -t tmpfs -o size=96k tmpfs "$1" && head -c 32768 /dev/zero >"$1/filler"'
    command = in_own_namespace(mount + ' && exec "$2" "$3" "$1"')
    (tmp_path / "disk").mkdir()
    command += [str(tmp_path / "disk"), sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "goes on\n", done.stderr


def test_delete_removes_every_file(tmp_path: Path) -> None:
    written = log(tmp_path, max_size=5)
    for _ in range(4):
        written.write(b"12345")
    written.delete()
    assert list(written.path.parent.iterdir()) == []
