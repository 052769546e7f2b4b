from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamactl.config import Config
from llamactl.errors import InstanceNotFound, ModelNotFound, StartFailed
from llamactl.instances.admission import Demand
from llamactl.instances.modelfiles import ResolvedModel
from llamactl.instances.needs import demand_of, load_of, machine_for, need_of_options
from llamactl.instances.options import Options
from llamactl.instances.plan import impossible_plan, plan_json
from llamactl.models.fit import Device, Machine, Memory, Need
from tests.fakes.gguf_files import tiny_gguf
from tests.instances.conftest import StageFactory
from tests.requirements import require_module

GIB = 2**30
NEED = Need(weights=800, cache=100, compute=50, projector=50, ctx_size=1)
ON_CPU = Machine(Memory(GIB, GIB))
ON_GPU = Machine(Memory(GIB, GIB), (Device("CUDA0", "", Memory(GIB, GIB)),))
UNIFIED = Machine(Memory(GIB, GIB), (Device("MTL0", "", Memory(GIB, GIB), shared=True),))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_module("gguf")
    return tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")[0]


def options(config: Config, **flags: Any) -> Options:
    return Options.from_json({"backend_options": flags}, config)


def need(options: Options, cached: dict[str, Path] | None = None) -> Need | None:
    def resolve(reference: str) -> ResolvedModel:
        if reference not in (cached or {}):
            raise ModelNotFound(f"{reference} is not cached")
        return ResolvedModel((cached or {})[reference])

    return need_of_options(options, resolve)


def test_a_model_needs_more_than_its_file(config: Config, model: Path) -> None:
    found = need(options(config, model=str(model)))
    assert found is not None and found.whole and found.total > model.stat().st_size


def test_what_cannot_be_loaded_is_said(config: Config) -> None:
    with pytest.raises(StartFailed, match=r"/nowhere\.gguf"):
        need(options(config, model="/nowhere.gguf"))


def test_of_a_repo_only_what_is_cached_is_known(config: Config, model: Path) -> None:
    given = options(config, hf_repo="org/name:Q4")
    assert need(given) is None
    assert need(given, {"org/name:Q4": model}) == need(options(config, model=str(model)))
    assert need(options(config)) is None


def test_adapters_and_a_draft_model_count(config: Config, model: Path) -> None:
    alone = need(options(config, model=str(model)))
    size = model.stat().st_size
    adapted = need(options(config, model=str(model), lora=[str(model), str(model)]))
    drafted = need(options(config, model=str(model), model_draft=str(model)))
    assert alone and adapted and drafted
    assert adapted.weights == alone.weights + 2 * size
    assert drafted.total == 2 * alone.total


def test_the_options_decide_how_it_is_reckoned(config: Config) -> None:
    given = {"c": 4096, "np": 2, "flash_attn": "off", "ctk": "q8_0", "ctv": "odd", "ub": 256}
    load = load_of(Options.from_json({"backend_options": given}, config))
    assert (load.ctx_size, load.parallel, load.flash_attn) == (4096, 2, False)
    assert (load.cache_type_k, load.cache_type_v, load.ubatch_size) == ("q8_0", "f16", 256)


@pytest.mark.parametrize("value", [-1, -(10**18)])
@pytest.mark.parametrize("flag", ["ctx_size", "ubatch_size", "parallel"])
def test_no_number_makes_an_instance_give_memory(
    config: Config, model: Path, flag: str, value: int
) -> None:
    usual = need(options(config, model=str(model)))
    found = need(options(config, model=str(model), **{flag: value}))
    assert usual and found and found.total >= usual.total


@pytest.mark.parametrize(
    ("flags", "machine", "demand"),
    [
        ({}, ON_CPU, Demand(1000, 800)),
        ({}, ON_GPU, Demand(1000, 800)),
        ({"ngl": 99}, ON_CPU, Demand(1000, 800)),
        ({"ngl": 99}, UNIFIED, Demand(1000, 800)),
        ({"ngl": 99}, ON_GPU, Demand(1000, 800, 1000)),
        ({"ngl": "all"}, ON_GPU, Demand(1000, 800, 1000)),
        ({"ngl": "auto"}, ON_GPU, Demand(1000, 800)),
        ({"ngl": 20}, ON_GPU, Demand(1000, 800)),
        ({"ngl": 99, "cpu_moe": True}, ON_GPU, Demand(1000, 800)),
        ({"ngl": 0}, ON_GPU, Demand(1000, 800, 0)),
        ({"device": ["none"]}, ON_GPU, Demand(1000, 800, 0)),
        ({"no_mmap": True}, ON_CPU, Demand(1000)),
        ({"mlock": True}, ON_CPU, Demand(1000)),
        ({"load_mode": "none"}, ON_CPU, Demand(1000)),
        ({"load_mode": "mmap"}, ON_CPU, Demand(1000, 800)),
    ],
)
def test_the_options_decide_where_it_must_lie_and_what_must_stay(
    config: Config, flags: dict[str, Any], machine: Machine, demand: Demand
) -> None:
    assert demand_of(NEED, options(config, **flags), machine) == demand


TWO_GPUS = Machine(
    Memory(GIB, GIB),
    tuple(Device(name, "", Memory(4 * GIB, 4 * GIB)) for name in ("CUDA0", "CUDA1")),
)


@pytest.mark.parametrize(
    ("flags", "among"),
    [
        ({}, None),
        ({"split_mode": "row"}, None),
        ({"main_gpu": 1}, None),
        ({"split_mode": "none"}, ("CUDA0",)),
        ({"split_mode": "none", "main_gpu": 1}, ("CUDA1",)),
        ({"split_mode": "none", "main_gpu": 0, "device": "CUDA1"}, ("CUDA1",)),
        ({"device": "cuda1"}, ("CUDA1",)),
        ({"device": ["CUDA1", "CUDA0"], "split_mode": "none"}, ("CUDA1",)),
        ({"device": ["CUDA0", "CUDA1"]}, None),
        # What nobody knows here is llama-server's to refuse, or another machine's.
        ({"device": ["CUDA1", "RPC0"]}, ("CUDA1",)),
        ({"device": ["RPC0"]}, None),
        ({"split_mode": "none", "main_gpu": 7}, None),
    ],
)
def test_an_instance_counts_on_the_devices_that_it_is_given(
    config: Config, flags: dict[str, Any], among: tuple[str, ...] | None
) -> None:
    given = options(config, **flags)
    # On two of them it computes in two buffers of 50.
    total = 1000 if among else 1050
    assert demand_of(NEED, given, TWO_GPUS) == Demand(total, 800, among=among)
    everywhere = demand_of(NEED, options(config, ngl=99, **flags), TWO_GPUS)
    assert everywhere == Demand(total, 800, total, among)
    seen = [device.name for device in machine_for(given, TWO_GPUS).devices]
    assert seen == list(among or ("CUDA0", "CUDA1"))


def test_without_any_device_it_lies_in_the_machines_memory(config: Config) -> None:
    for flags in ({"device": "none", "ngl": "auto"}, {"split_mode": "none", "main_gpu": -1}):
        given = options(config, **flags)
        assert demand_of(NEED, given, TWO_GPUS) == Demand(1000, 800, 0)
        assert machine_for(given, TWO_GPUS).devices == ()


def test_planning_changes_nothing(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.max_running_instances": 1})
    stage.run("a")
    stage.create("b")
    plan = stage.supervisor.plan("b")
    assert plan.evicts == ("a",) and plan.starts
    assert "a (24 B) stops for it: it was idle for longest, and no more may run." in plan.why
    assert plan.why.startswith("It takes more than 24 B, and ")
    assert " are free. How much more its header does not tell. " in plan.why
    assert stage.supervisor.plan("a").evicts == ()
    assert stage.supervisor.plan("a").why == "It is running already."
    assert stage.get("a").status == "running" and stage.get("b").status == "stopped"
    with pytest.raises(InstanceNotFound):
        stage.supervisor.plan("none")


def test_a_full_house_is_planned_as_the_start_would_say_it(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.group_limits": {"big": 1}})
    stage.create("a", group="big")
    stage.create("b", group="big")
    with stage.supervisor.lease("a"):
        plan = stage.supervisor.plan("b")
    assert (plan.fits, plan.starts) == (False, False) and "of the group big" in plan.why


def test_what_can_never_start_is_planned_so(make_stage: StageFactory) -> None:
    stage = make_stage()
    stage.create("a", backend_options={"model": "/nowhere.gguf"})
    plan = stage.supervisor.plan("a")
    assert (plan.needs, plan.fits, plan.starts) == (None, False, False)
    assert "/nowhere.gguf" in plan.why


def test_what_is_not_known_is_left_open(make_stage: StageFactory) -> None:
    stage = make_stage()
    stage.create("a", backend_options={"hf_repo": "org/name"})
    plan = stage.supervisor.plan("a")
    assert (plan.needs, plan.fits, plan.starts) == (None, None, True)
    assert set(plan_json(plan)) >= {"needs", "free", "fits", "evicts", "why"}


def test_why_one_can_never_start_is_a_sentence() -> None:
    plan = impossible_plan(None, "there is no file /x.")
    assert (plan.why, plan.starts) == ("There is no file /x.", False)
    assert impossible_plan(None, "org/name:Q8_0 is gone.").why == "org/name:Q8_0 is gone."
