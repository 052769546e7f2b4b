"""The memory that a model takes: what llama.cpp prints, and what follows from it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from llamactl.models.dimensions import AttentionLayer, Dimensions, dimensions_of
from llamactl.models.fit import (
    CACHE_TYPES,
    DEVICE_RESERVE,
    MIB,
    RAM_RESERVE,
    Device,
    Load,
    Machine,
    Memory,
    Need,
    estimate,
    judge,
)
from llamactl.models.gguf import read_dimensions, read_header
from llamactl.models.ggufbytes import NotGGUF, Value
from tests.fakes.gguf_files import tiny_gguf
from tests.models.gguf_shapes import Shape, write_model
from tests.requirements import require

GIB = 1024 * MIB


def fields(architecture: str = "llama", **values: Value) -> dict[str, Value]:
    """A header's fields; ``__`` stands for the dot in a name."""
    told: dict[str, Value] = {
        "block_count": 32,
        "embedding_length": 4096,
        "feed_forward_length": 14336,
        "context_length": 131072,
        "attention.head_count": 32,
        "attention.head_count_kv": 8,
    }
    told.update({name.replace("__", "."): value for name, value in values.items()})
    return {
        "general.architecture": architecture,
        **{f"{architecture}.{name}": value for name, value in told.items() if value is not None},
    }


def dimensions(architecture: str = "llama", **values: Value) -> Dimensions:
    found = dimensions_of(fields(architecture, **values), 128_256)
    assert found is not None
    return found


def cache_of(found: Dimensions, load: Load) -> int:
    need = estimate(found, 0, load)
    assert need.cache is not None
    return need.cache


def test_the_cache_of_a_model_with_grouped_heads_is_as_llama_cpp_says() -> None:
    # Llama 3.1 8B: 128 KiB a token.
    assert cache_of(dimensions(), Load(8192)) == GIB
    assert cache_of(dimensions(), Load(8192, "q8_0", "q8_0")) == GIB * 34 // 64
    assert cache_of(dimensions(), Load(8192, "q8_0", "f16")) == GIB * (34 + 64) // 128
    assert cache_of(dimensions(attention__head_count_kv=None), Load(8192)) == 4 * GIB


def test_without_a_context_the_models_own_is_reckoned_with() -> None:
    need = estimate(dimensions(), 5, Load())
    assert (need.ctx_size, need.cache) == (131072, 16 * GIB)
    assert estimate(dimensions(), 5, Load(1000)).ctx_size == 1024, "llama.cpp rounds up to 256"


def test_a_sliding_window_keeps_what_llama_cpp_keeps_of_it() -> None:
    # The figures that llama.cpp printed for a gemma3 of these sizes.
    found = dimensions(
        "gemma3",
        block_count=12,
        embedding_length=512,
        attention__head_count=8,
        attention__head_count_kv=4,
        attention__key_length=64,
        attention__value_length=64,
        attention__sliding_window=1024,
    )
    assert sum(layer.windowed for layer in found.layers) == 10
    assert cache_of(found, Load(8192)) == (16 + 45) * MIB
    assert cache_of(found, Load(8192, parallel=1)) == (16 + 15) * MIB
    assert cache_of(found, Load(8192, parallel=1, swa_full=True)) == (16 + 80) * MIB
    assert cache_of(found, Load(1024)) == 12 * 2 * 256 * 2 * 1024, "no longer than the context"


def test_a_window_that_llama_cpp_does_not_honour_saves_nothing() -> None:
    found = dimensions("qwen2", attention__sliding_window=1024)
    assert not any(layer.windowed for layer in found.layers)


def test_a_file_may_say_itself_which_layers_have_a_window() -> None:
    found = dimensions(
        "gemma4",
        block_count=4,
        attention__sliding_window=512,
        attention__sliding_window_pattern=(1, 1, 1, 0),
        attention__head_count_kv=(8, 8, 8, 2),
        attention__key_length=512,
        attention__value_length=512,
        attention__key_length_swa=256,
        attention__value_length_swa=256,
        attention__shared_kv_layers=1,
    )
    assert found.layers == (AttentionLayer(2048, 2048, True),) * 3
    every_second = dimensions(
        "new", attention__sliding_window=512, attention__sliding_window_pattern=2
    )
    assert [layer.windowed for layer in every_second.layers[:4]] == [True, False, True, False]


def test_layers_that_are_recurrent_keep_a_state_and_no_tokens() -> None:
    by_interval = dimensions(
        "qwen3next",
        block_count=4,
        full_attention_interval=4,
        ssm__conv_kernel=4,
        ssm__inner_size=4096,
        ssm__state_size=128,
        ssm__group_count=16,
    )
    assert len(by_interval.layers) == 1
    assert by_interval.recurrent_state == 3 * (3 * (4096 + 2 * 16 * 128) + 4096 * 128)
    by_heads = dimensions("jamba", block_count=4, attention__head_count_kv=(0, 0, 8, 0))
    assert len(by_heads.layers) == 1
    mamba = dimensions(
        "mamba",
        attention__head_count=0,
        attention__head_count_kv=None,
        ssm__conv_kernel=4,
        ssm__inner_size=8192,
        ssm__state_size=16,
    )
    assert mamba.layers == () and mamba.recurrent_state > 0
    assert cache_of(mamba, Load(4096)) == cache_of(mamba, Load(131072))


def test_encoders_and_layers_that_only_predict_keep_nothing() -> None:
    assert dimensions("bert", attention__causal=0).layers == ()
    assert len(dimensions("glm4moe", block_count=47, nextn_predict_layers=1).layers) == 46


def test_all_experts_that_work_at_a_time_count() -> None:
    found = dimensions(expert_feed_forward_length=2048, expert_used_count=8, feed_forward_length=1)
    assert found.feed_forward == 16384


def test_scores_of_the_whole_context_are_held_without_flash_attention() -> None:
    without = estimate(dimensions(), 0, Load(8192, flash_attn=False)).compute or 0
    assert without - (estimate(dimensions(), 0, Load(8192)).compute or 0) >= 32 * 8192 * 512 * 4


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"general.architecture": 7},
        {"general.architecture": "llama"},
        fields(block_count=0),
        fields(block_count=2**62),
        fields(embedding_length=-1),
        fields(block_count="many"),
    ],
)
def test_a_header_that_tells_too_little_gives_no_dimensions(broken: dict[str, Value]) -> None:
    assert dimensions_of(broken) is None
    need = estimate(None, 100, Load(4096), projector=10)
    assert (need.total, need.whole, need.cache) == (120, False, None)


def test_numbers_that_make_no_sense_break_nothing() -> None:
    values: list[Value] = [-5, 2**63, (), (-1,), (2**63,) * 5000, "x", 1.5, None]
    for name in fields():
        for value in values:
            found = dimensions_of({**fields(), name: value})
            if found is not None:
                assert estimate(found, 1, Load(ubatch_size=1)).total > 0


def test_the_first_kilobytes_of_a_file_tell_its_dimensions(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")[0]
    whole = read_header(path).dimensions
    assert whole is not None and whole.vocabulary > 0
    assert read_dimensions("tiny", path.read_bytes()) == whole
    cut = read_dimensions("tiny", path.read_bytes()[:2000])
    assert cut is not None and cut.layers == whole.layers
    for count in (100, 500):
        assert read_dimensions("tiny", path.read_bytes()[:count]) is None, "half told is not told"
    with pytest.raises(NotGGUF):
        read_dimensions("page", b"<html>")


def test_a_model_fits_where_there_is_room_for_it() -> None:
    need = Need(4 * GIB, GIB, 0, 0, 8192)
    ram = Memory(8 * GIB, 16 * GIB)
    small = Device("CUDA0", "", Memory(4 * GIB, 12 * GIB))
    large = Device("CUDA1", "", Memory(7 * GIB, 12 * GIB))
    metal = Device("MTL0", "", Memory(8 * GIB, 16 * GIB), shared=True)
    busy = Memory(GIB, 16 * GIB)
    for machine, fits, place in (
        (Machine(ram), True, "ram"),
        (Machine(ram, (small,)), True, "gpu_and_ram"),
        (Machine(ram, (small, large)), True, "gpu"),
        (Machine(ram, (metal,)), True, "gpu"),
        (Machine(busy, (metal,)), False, None),
        (Machine(busy), False, None),
        (Machine(busy, (small,)), False, None),
        (Machine(None, (large,)), True, "gpu"),
        (Machine(None), None, None),
    ):
        verdict = judge(need, machine)
        assert (verdict.fits, verdict.place) == (fits, place), machine
    assert judge(need, Machine(busy)).when_idle
    assert not judge(need, Machine(Memory(GIB, 4 * GIB))).when_idle


def test_on_several_devices_each_has_buffers_to_compute_in() -> None:
    half = Memory(4 * GIB + DEVICE_RESERVE, 12 * GIB)
    two = tuple(Device(name, "", half) for name in ("CUDA0", "CUDA1"))
    ram = Memory(8 * GIB, 16 * GIB)
    alone = Need(3 * GIB, GIB // 2, GIB // 2, 0, 8192)
    assert judge(alone, Machine(ram, two)).place == "gpu", "one has room for it"
    spread = Need(6 * GIB, GIB, GIB // 2, 0, 8192)
    assert judge(spread, Machine(ram, two)).place == "gpu"
    tight = Need(6 * GIB, GIB, GIB // 2 + 1, 0, 8192)
    assert judge(tight, Machine(ram, two)).place == "gpu_and_ram"
    assert judge(tight, Machine(Memory(0, GIB), two)).fits is False
    assert judge(tight, Machine(Memory(0, GIB), two)).when_idle
    shared = (*two, Device("MTL0", "", ram, shared=True))
    assert judge(tight, Machine(ram, shared)).place == "gpu", "they count as one"


def test_a_reserve_stays_free() -> None:
    need = Need(GIB, 0, 0, 0, 0)
    assert not judge(need, Machine(Memory(GIB + RAM_RESERVE - 1, 8 * GIB))).fits
    assert judge(need, Machine(Memory(GIB + RAM_RESERVE, 8 * GIB))).fits
    device = Device("CUDA0", "", Memory(GIB + DEVICE_RESERVE, 8 * GIB))
    assert judge(need, Machine(Memory(0, GIB), (device,))).place == "gpu"


def test_nothing_is_promised_where_the_context_is_not_known() -> None:
    need = estimate(None, 4 * GIB, Load(8192))
    assert judge(need, Machine(Memory(16 * GIB, 16 * GIB))).fits is None
    assert judge(need, Machine(Memory(2 * GIB, 16 * GIB))).fits is False


GROUPED = Shape()
WINDOWED = Shape("gemma3", layers=12, heads=4, window=512)


@pytest.mark.parametrize(
    ("shape", "flags", "load"),
    [
        (None, (), Load(4096)),
        (None, ("-np", "1", "-ctk", "f32", "-ub", "128"), Load(4096, "f32", "f16", 128, 1)),
        (None, ("-fa", "off"), Load(4096, flash_attn=False)),
        (GROUPED, ("-ctk", "q8_0", "-ctv", "q4_0"), Load(16384, "q8_0", "q4_0")),
        (WINDOWED, (), Load(8192)),
        (WINDOWED, ("-np", "3"), Load(8192, parallel=3)),
        (WINDOWED, ("-np", "1", "--swa-full"), Load(8192, parallel=1, swa_full=True)),
    ],
)
def test_the_estimate_is_what_llama_cpp_prints(
    tmp_path: Path, shape: Shape | None, flags: tuple[str, ...], load: Load
) -> None:
    path = tmp_path / "model.gguf"
    if shape is None:
        tiny_gguf(path)
    else:
        write_model(path, shape)
    printed = buffers(path, "-c", str(load.ctx_size), *flags)
    need = estimate(read_header(path).dimensions, path.stat().st_size, load)
    assert need.cache is not None and need.compute is not None
    # Each of up to two caches is printed to a hundredth of a MiB.
    assert need.cache == pytest.approx(printed["KV"], abs=0.02 * MIB)
    assert need.weights == pytest.approx(printed["model"], abs=0.1 * MIB)
    assert printed["compute"] <= need.compute + 0.1 * MIB
    assert need.compute <= 1.4 * printed["compute"] + MIB


def buffers(model: Path, *flags: str) -> dict[str, float]:
    """Bytes of the buffers that llama-server names while it loads a model."""
    program = require("llama-server")
    words = [program, "-m", str(model), "--port", "0", "--no-warmup", "-v", *flags]
    sizes: dict[str, float] = {}
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                # A first round measures without allocating, the last one counts.
                if "model buffer size" in line:
                    sizes = {}
                found = re.search(r"(model|KV|compute) buffer size = +([\d.]+) MiB", line)
                if found is not None:
                    size = float(found[2]) * MIB
                    sizes[found[1]] = size + (sizes.get("KV", 0.0) if found[1] == "KV" else 0.0)
                if "listening" in line:
                    break
        finally:
            process.kill()
    return sizes


def test_every_cache_type_is_named_as_llama_cpp_names_it() -> None:
    text = subprocess.run(
        [require("llama-server"), "--help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    [allowed] = set(re.findall(r"KV cache data type for K\n +allowed values: ([\w, ]+)", text))
    assert set(allowed.split(", ")) == set(CACHE_TYPES)
