"""What pages say of memory: what a model takes, what the machine has, whether the one fits."""

from __future__ import annotations

import pytest

from llamactl.instances.admission import Site
from llamactl.instances.options import Options
from llamactl.instances.preview import Preview
from llamactl.models.fit import Device, Machine, Memory, Need, Place, Verdict
from llamactl.web.memory_view import context_view, machine_text, memory_view
from llamactl.web.preview_view import preview_view

GB = 10**9
NEED = Need(weights=2 * GB, cache=GB, compute=GB // 2, projector=GB // 4, ctx_size=8192)
UNREAD = Need(weights=2 * GB, cache=None, compute=None, projector=0, ctx_size=8192)
CPU_ONLY = Machine(Memory(8 * GB, 16 * GB))


def with_gpu(free: int, ram: int = 8 * GB) -> Machine:
    gpu = Device("CUDA0", "a card", Memory(free, 24 * GB))
    return Machine(Memory(ram, 16 * GB), (gpu,))


@pytest.mark.parametrize(
    ("need", "machine", "label", "tone"),
    [
        (NEED, CPU_ONLY, "fits", "good"),
        (NEED, with_gpu(20 * GB), "fits the GPU", "good"),
        (NEED, with_gpu(3 * GB), "fits, partly on the GPU", "good"),
        (NEED, with_gpu(GB, ram=GB), "not now", "warn"),
        (NEED, Machine(Memory(GB, 2 * GB)), "too large", "bad"),
        (NEED, Machine(None), "not known", ""),
        (UNREAD, CPU_ONLY, "not known", ""),
    ],
)
def test_a_model_is_said_to_fit_or_not(need: Need, machine: Machine, label: str, tone: str) -> None:
    view = memory_view(need, machine)
    assert (view.label, view.tone) == (label, tone)


def test_several_gpus_are_said_to_hold_a_model_together() -> None:
    gpus = tuple(Device(f"CUDA{i}", "", Memory(4 * GB, 8 * GB)) for i in range(2))
    machine = Machine(Memory(8 * GB, 16 * GB), gpus)
    assert memory_view(NEED, machine).label == "fits the GPUs together"
    small = Need(weights=GB, cache=0, compute=0, projector=0, ctx_size=8192)
    assert memory_view(small, machine).label == "fits the GPU"
    assert machine_text(machine).endswith("a model is laid on all of them, layer by layer.")


def test_the_figures_behind_the_sum_are_told() -> None:
    told = memory_view(NEED, CPU_ONLY)
    assert told.total == "3.8 GB"
    assert told.figures == "2.0 GB weights + 1.0 GB cache + 500 MB compute + 250 MB projector"
    assert "not known without its header" in memory_view(UNREAD, CPU_ONLY).figures


def test_the_machine_is_told_with_its_devices_or_that_there_is_none() -> None:
    told = "8.0 GB of 16.0 GB of this machine's memory are free."
    assert machine_text(CPU_ONLY) == f"{told} llama.cpp reports no GPU."
    assert machine_text(with_gpu(3 * GB)) == f"{told} CUDA0 (a card): 3.0 GB of 24.0 GB are free."


def test_a_context_of_ones_own_is_among_the_choices_in_its_place() -> None:
    view = context_view(10_000, CPU_ONLY)
    assert view.chosen == "10000"
    assert [value for value, _ in view.choices][:4] == ["4096", "8192", "10000", "16384"]
    assert view.choices[-1] == ("0", "the model's own")


@pytest.mark.parametrize(
    ("site", "place", "when_idle", "label", "tone"),
    [
        ("devices", "gpu", True, "fits the GPU", "good"),
        ("memory", "gpu_and_ram", True, "fits, partly on the GPU", "good"),
        ("memory", "ram", True, "fits", "good"),
        ("paged", "ram", True, "slow: read from disk again and again", "warn"),
        (None, None, True, "not now", "warn"),
        (None, None, False, "too large", "bad"),
    ],
)
def test_the_form_says_where_the_model_would_lie(
    site: Site | None, place: Place | None, when_idle: bool, label: str, tone: str
) -> None:
    verdict = Verdict(place is not None, place, when_idle)
    preview = Preview(("llama-server",), NEED, CPU_ONLY, None, site, verdict)
    view = preview_view(preview, Options({"model": "/m.gguf"}))
    assert (view.label, view.tone) == (label, tone)
    assert view.parts[-1] == ("Total", "3.8 GB")
    assert ("Projector", "250 MB") in view.parts


def test_what_llama_cpp_finds_by_itself_has_no_estimate() -> None:
    preview = Preview(("llama-server",), None, CPU_ONLY)
    fetched = preview_view(preview, Options({"hf_repo": "org/name"}))
    assert fetched.said == "llama.cpp finds the model itself; what it takes is known once it runs."
    assert preview_view(preview, Options({})).said.startswith("A router")
