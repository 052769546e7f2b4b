"""What the hash takes from memory: only what follows what it has, in order, and not too much."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from llamactl.downloads.fresh import Blocks, Fresh
from llamactl.downloads.partfile import PartFile
from tests.downloads.conftest import SMALL, Site
from tests.fakes.fake_hub import FakeHub, seeded_bytes

SIZE = 10


@pytest.fixture
def blocks() -> Blocks:
    return Blocks(SIZE)


def offered(fresh: Fresh, blocks: Blocks, position: int) -> bool:
    return fresh.offer(position, blocks.take(), SIZE)


def test_nothing_is_kept_of_a_file_that_nobody_hashes(blocks: Blocks) -> None:
    assert not offered(Fresh(), blocks, 0)


def test_bytes_that_follow_the_hash_come_in_their_order(blocks: Blocks) -> None:
    fresh = Fresh()
    assert fresh.take(100) is None
    first, second = blocks.take(), blocks.take()
    assert fresh.offer(100, first, SIZE)
    assert fresh.offer(110, second, 3)
    assert fresh.take(1000) == (first, SIZE)
    assert fresh.take(1000) == (second, 3)
    assert fresh.take(1000) is None


def test_bytes_of_another_place_are_left_to_the_file(blocks: Blocks) -> None:
    fresh = Fresh()
    fresh.take(100)
    assert not offered(fresh, blocks, 90)
    assert not offered(fresh, blocks, 101)
    assert offered(fresh, blocks, 100)
    assert not offered(fresh, blocks, 100)


def test_what_the_hash_reads_back_meanwhile_is_not_given_to_it_again(blocks: Blocks) -> None:
    fresh = Fresh()
    fresh.take(100)
    fresh.take(120)
    assert not offered(fresh, blocks, 100)
    assert offered(fresh, blocks, 120)


def test_a_hash_that_is_slow_keeps_only_some_blocks(blocks: Blocks) -> None:
    fresh = Fresh()
    fresh.take(0)
    kept = sum(offered(fresh, blocks, SIZE * number) for number in range(1000))
    assert 0 < kept < 20


def test_a_hash_that_begins_anew_gets_nothing_of_before(blocks: Blocks) -> None:
    fresh = Fresh()
    fresh.take(0)
    assert offered(fresh, blocks, 0)
    fresh.start_over()
    assert not offered(fresh, blocks, SIZE)
    assert fresh.take(SIZE) is None


def test_a_block_is_used_again_when_it_was_given_back(blocks: Blocks) -> None:
    block = blocks.take()
    assert len(block) == SIZE
    assert blocks.take() is not block
    blocks.give_back(block)
    assert blocks.take() is block


def test_the_hash_sees_each_byte_once_whoever_is_faster(tmp_path: Path) -> None:
    """One thread writes and offers, the other takes or reads back, as both come to it."""
    content = seeded_bytes(SIZE * 20_000, 7)
    blocks, fresh = Blocks(SIZE), Fresh()
    part = PartFile(tmp_path / "x.incomplete", len(content), "0" * 64)

    def write() -> None:
        for position in range(0, len(content), SIZE):
            block = blocks.take()
            block[:] = content[position : position + SIZE]
            part.write(bytes(block), position)
            if not fresh.offer(position, block, SIZE):
                blocks.give_back(block)

    writer = threading.Thread(target=write)
    writer.start()
    digest, position = hashlib.sha256(), 0
    while position < len(content):
        end = part.run_end(position)
        if end == position:
            continue
        received = fresh.take(end)
        if received is None:
            buffer = memoryview(bytearray(end - position))
            assert part.read(buffer, position) == len(buffer)
            digest.update(buffer)
            position = end
        else:
            block, count = received
            digest.update(block[:count])
            position += count
            blocks.give_back(block)
    writer.join()
    part.close()
    assert digest.hexdigest() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("connections", [1, 4])
def test_blocks_that_are_no_divisor_of_a_piece_are_hashed_rightly(
    hub: FakeHub, site: Site, connections: int
) -> None:
    site.tuning = replace(SMALL, read_size=777)
    site.settings["downloads.connections"] = connections
    site.assert_complete(site.download())
