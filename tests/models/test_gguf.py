"""The header of a GGUF file: right for real files, harmless for damaged and hostile ones."""

from __future__ import annotations

import os
import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import gguf
import pytest

from llamactl.models.dimensions import Dimensions, dimensions_of
from llamactl.models.facts import facts_of
from llamactl.models.fit import Load, estimate
from llamactl.models.gguf import GGUFHeader, NotGGUF, read_dimensions, read_header, read_model
from llamactl.models.ggufnames import FILE_TYPES, TENSOR_TYPES
from tests.fakes.gguf_files import CHAT_TEMPLATE, LAYERS, tiny_gguf

UINT32, TEXT, ARRAY = 4, 8, 9


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def field(key: bytes, type_: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", type_) + value


def header(*fields: bytes, version: int = 3, tensors: int = 0, count: int | None = None) -> bytes:
    counted = len(fields) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", version, tensors, counted) + b"".join(fields)


ARCHITECTURE = field(b"general.architecture", TEXT, text(b"llama"))


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], GGUFHeader]:
    path = tmp_path / "m.gguf"

    def read_bytes(content: bytes) -> GGUFHeader:
        path.write_bytes(content)
        return read_header(path)

    return read_bytes


def test_a_real_file_tells_all_that_a_models_page_shows(tmp_path: Path) -> None:
    [path] = tiny_gguf(tmp_path / "tiny.gguf", context_length=4096)
    found = read_header(path)
    other = gguf.GGUFReader(path)
    assert found.architecture == "llama"
    assert found.context_length == 4096
    assert found.layers == LAYERS
    assert found.quantisation == "F32"
    assert found.chat_template == CHAT_TEMPLATE
    assert found.parameters == sum(int(tensor.n_elements) for tensor in other.tensors)
    tokens = other.get_field("tokenizer.ggml.tokens")
    assert tokens is not None
    assert found.vocabulary_size == len(tokens.data)
    assert found.tokenizer == "llama"


def test_the_shards_of_a_model_are_read_as_one(tmp_path: Path) -> None:
    whole = read_header(tiny_gguf(tmp_path / "tiny.gguf")[0])
    shards = tiny_gguf(tmp_path / "split.gguf", shards=3)
    split = read_model(shards)
    assert split.parameters == whole.parameters
    assert split.architecture == whole.architecture


def test_the_names_of_all_kinds_are_those_of_the_gguf_package() -> None:
    package = {kind.value: kind.name.partition("_")[2] for kind in gguf.LlamaFileType}
    assert {number: package[number] for number in FILE_TYPES} == FILE_TYPES
    tensors = {kind.value: kind.name for kind in gguf.GGMLQuantizationType}
    assert {number: tensors[number] for number in TENSOR_TYPES} == TENSOR_TYPES


def test_a_file_that_tells_little_is_read_as_well(read: Callable[[bytes], GGUFHeader]) -> None:
    found = read(header())
    assert found.architecture == "unknown"
    assert found.parameters == 0
    assert found.quantisation is None
    assert found.layers is None


def test_the_quantisation_is_that_of_most_tensors_where_no_file_type_is_known(
    read: Callable[[bytes], GGUFHeader],
) -> None:
    def tensor(name: bytes, type_: int, *dimensions: int) -> bytes:
        shape = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        return text(name) + shape + struct.pack("<IQ", type_, 0)

    tensors = tensor(b"a", 12, 4096, 4096) + tensor(b"b", 0, 4096)
    unknown = field(b"general.file_type", UINT32, struct.pack("<I", 999))
    assert read(header(ARCHITECTURE, unknown, tensors=2) + tensors).quantisation == "Q4_K"
    guessed = field(b"general.file_type", UINT32, struct.pack("<I", 1024 + 15))
    found = read(header(ARCHITECTURE, guessed, tensors=2) + tensors)
    assert found.quantisation == "Q4_K_M"
    assert found.parameters == 4096 * 4096 + 4096


def test_a_number_that_differs_by_layer_is_told_by_its_largest(
    read: Callable[[bytes], GGUFHeader],
) -> None:
    array = struct.pack("<IQ3I", UINT32, 3, 8, 16, 4)
    found = read(header(ARCHITECTURE, field(b"llama.expert_count", ARRAY, array)))
    assert found.experts == 16


def test_a_field_of_another_type_than_expected_tells_nothing(
    read: Callable[[bytes], GGUFHeader],
) -> None:
    found = read(
        header(
            ARCHITECTURE,
            field(b"llama.context_length", TEXT, text(b"many")),
            field(b"tokenizer.ggml.model", UINT32, struct.pack("<I", 7)),
        )
    )
    assert found.context_length is None
    assert found.tokenizer is None


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0"), (999, "999"), (145_000, "145 K"), (3_210_000_000, "3.21 B")]
)
def test_parameters_are_told_as_people_count_them(
    read: Callable[[bytes], GGUFHeader], count: int, said: str
) -> None:
    found = replace(read(header(ARCHITECTURE)), parameters=count)
    assert facts_of(found, whole=True).get("Parameters") == said
    assert "Parameters" not in facts_of(found, whole=False)


def test_a_llama4_attends_in_chunks_that_its_file_does_not_size() -> None:
    found = dimensions_of(
        {
            "general.architecture": "llama4",
            "llama4.block_count": 4,
            "llama4.embedding_length": 64,
            "llama4.attention.head_count": 4,
        }
    )
    assert found is not None and found.window == 8192
    assert [layer.windowed for layer in found.layers] == [True, True, True, False]


# Damaged and hostile files.


LONG = struct.pack("<Q", 2**60)
HOSTILE = {
    "empty": b"",
    "half a magic": b"GG",
    "another magic": b"PK\x03\x04" + bytes(100),
    "html": b"<html>" + bytes(100),
    "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\n",
    "only a magic": b"GGUF",
    "zeros": b"GGUF" + bytes(4096),
    "version 1": header(version=1),
    "version 99": header(version=99),
    "big endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "many fields": header(count=2**63),
    "many tensors": header(tensors=2**63),
    "fields that are not there": header(ARCHITECTURE, count=4000),
    "tensors that are not there": header(ARCHITECTURE, tensors=60_000),
    "long key": header(LONG),
    "long text": header(text(b"general.name") + struct.pack("<I", TEXT) + LONG),
    "long array": header(field(b"x", ARRAY, struct.pack("<I", UINT32) + LONG)),
    "array of too many texts": header(
        field(b"tokenizer.ggml.tokens", ARRAY, struct.pack("<I", TEXT) + LONG)
    ),
    "array of arrays": header(field(b"x", ARRAY, struct.pack("<IQ", ARRAY, 1) * 1000)),
    "unknown type": header(field(b"x", 77, b"")),
    "text that is cut": header(ARCHITECTURE)[:-2],
    "tensor of many dimensions": header(tensors=1) + text(b"t") + struct.pack("<I", 2**31),
    "tensor of an impossible size": header(tensors=1)
    + text(b"t")
    + struct.pack("<I4QIQ", 4, *[2**63] * 4, 0, 0),
    "empty texts without end": header(
        *[field(b"x", ARRAY, struct.pack("<IQ", TEXT, 2**20) + bytes(8 * 2**20))] * 3
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_or_hostile_file_is_no_gguf(
    name: str, read: Callable[[bytes], GGUFHeader]
) -> None:
    with pytest.raises(NotGGUF) as caught:
        read(HOSTILE[name])
    assert "m.gguf" in caught.value.message


def test_a_name_that_is_no_regular_file_is_no_gguf(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    for path in (tmp_path, tmp_path / "none.gguf", tmp_path / "pipe.gguf", Path("/dev/zero")):
        with pytest.raises(NotGGUF, match=str(path)):
            read_header(path)
    with pytest.raises(NotGGUF):
        read_header(Path("a\0b"))


def test_no_damage_of_a_real_file_does_harm(tmp_path: Path) -> None:
    [real] = tiny_gguf(tmp_path / "tiny.gguf")
    content = real.read_bytes()
    end = content.index(b"blk.1.") + 200
    chance = random.Random(20)
    path = tmp_path / "damaged.gguf"
    slowest = 0.0
    read_header(real)
    tracemalloc.start()
    try:
        for _ in range(500):
            damaged = bytearray(content[: chance.choice([end, chance.randrange(end)])])
            for _ in range(chance.randrange(1, 6)):
                at = chance.randrange(len(damaged) or 1)
                damaged[at : at + chance.choice([1, 4, 8])] = chance.choice(
                    [b"\xff" * 8, bytes(8), chance.randbytes(8), struct.pack("<Q", 2**31)]
                )
            path.write_bytes(damaged)
            start = time.thread_time()
            try:
                found = read_header(path)
            except NotGGUF:
                pass
            else:
                assert found.parameters <= 65_536 * 2**50
            slowest = max(slowest, time.thread_time() - start)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024
    assert slowest < 5  # a damaged length that is believed would take minutes


@pytest.fixture(scope="module")
def real_header(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real model's file up to the middle of its tensors' names."""
    [real] = tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")
    content = real.read_bytes()
    return content[: content.index(b"blk.1.") + 200]


def offsets(content: bytes) -> list[int]:
    """Each of the first bytes, where every field is, and many of the rest."""
    return [*range(400), *range(400, len(content), 23)]


def test_a_file_that_is_cut_at_any_byte_is_no_gguf(
    real_header: bytes, read: Callable[[bytes], GGUFHeader]
) -> None:
    for end in offsets(real_header):
        with pytest.raises(NotGGUF):
            read(real_header[:end])


def test_no_flipped_bit_breaks_the_reckoning_of_memory(tmp_path: Path, real_header: bytes) -> None:
    whole = real_header + bytes(4096)
    path = tmp_path / "flipped.gguf"
    readable = 0
    for at in offsets(real_header):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        told: tuple[Callable[[], Dimensions | None], ...] = (
            lambda: read_header(path).dimensions,
            partial(read_dimensions, "m.gguf", bytes(damaged)),
        )
        for tell in told:
            try:
                dimensions = tell()
            except NotGGUF:
                continue
            readable += 1
            for context in (0, 8192, 2**31 - 256):
                assert estimate(dimensions, len(whole), Load(context)).total >= len(whole)
    assert readable > 0
