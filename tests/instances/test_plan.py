from __future__ import annotations

from pathlib import Path

import pytest

from llamactl.config import Config
from llamactl.errors import InstanceNotFound
from llamactl.instances.admission import Decision
from llamactl.instances.modelfiles import ResolvedModel
from llamactl.instances.options import Options
from llamactl.instances.plan import StartPlan, load_of, make_plan, plan_json
from llamactl.models.fit import Machine, Memory
from tests.fakes.gguf_files import tiny_gguf
from tests.instances.conftest import StageFactory
from tests.requirements import require_module

GIB = 2**30
LARGE = Machine(Memory(64 * GIB, 64 * GIB))
SMALL = Machine(Memory(GIB // 2, GIB // 2))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_module("gguf")
    return tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")[0]


def plan(config: Config, model: str, machine: Machine, decision: Decision) -> StartPlan:
    options = Options.from_json({"backend_options": {"model": model}}, config)
    return make_plan(options, lambda reference: ResolvedModel(Path(reference)), machine, decision)


def test_a_model_that_fits_needs_more_than_its_file(config: Config, model: Path) -> None:
    made = plan(config, str(model), LARGE, Decision(True))
    assert made.fits is True and made.evicts == ()
    assert made.needs is not None and made.needs > model.stat().st_size
    assert "No other instance has to stop" in made.why


def test_a_model_that_is_too_large_is_said_to_be(config: Config, model: Path) -> None:
    made = plan(config, str(model), SMALL, Decision(True))
    assert made.fits is False and "not enough" in made.why


def test_who_would_stop_is_named(config: Config, model: Path) -> None:
    made = plan(config, str(model), LARGE, Decision(True, evict="old"))
    assert made.evicts == ("old",) and "old stops for it" in made.why and made.fits


def test_a_full_house_does_not_fit(config: Config, model: Path) -> None:
    made = plan(config, str(model), LARGE, Decision(False, full="big"))
    assert made.fits is False and "group big" in made.why


def test_a_model_that_cannot_be_loaded_does_not_fit(config: Config) -> None:
    made = plan(config, "/nowhere.gguf", LARGE, Decision(True))
    assert (made.needs, made.fits) == (None, False) and "/nowhere.gguf" in made.why


def test_what_cannot_be_known_is_left_open(config: Config) -> None:
    options = Options.from_json({"backend_options": {"hf_repo": "org/name"}}, config)
    made = make_plan(options, lambda _: ResolvedModel(Path()), LARGE, Decision(True))
    assert (made.needs, made.fits) == (None, None)
    assert set(plan_json(made)) == {"needs", "free", "fits", "evicts", "why"}


def test_the_options_decide_how_it_is_reckoned(config: Config) -> None:
    given = {"c": 4096, "np": 2, "flash_attn": "off", "ctk": "q8_0", "ctv": "odd", "ub": 256}
    load = load_of(Options.from_json({"backend_options": given}, config))
    assert (load.ctx_size, load.parallel, load.flash_attn) == (4096, 2, False)
    assert (load.cache_type_k, load.cache_type_v, load.ubatch_size) == ("q8_0", "f16", 256)


def test_planning_changes_nothing(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.max_running_instances": 1})
    stage.run("a")
    stage.create("b")
    assert stage.supervisor.plan("b").evicts == ("a",)
    assert stage.supervisor.plan("a").evicts == ()
    assert stage.get("a").status == "running" and stage.get("b").status == "stopped"
    with pytest.raises(InstanceNotFound):
        stage.supervisor.plan("none")
