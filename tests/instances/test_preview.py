from __future__ import annotations

from pathlib import Path

import pytest

from llamactl.instances.modelfiles import ResolvedModel
from llamactl.models.fit import DEVICE_RESERVE, RAM_RESERVE, Device, Machine, Memory
from tests.fakes.gguf_files import tiny_gguf
from tests.instances.conftest import StageFactory
from tests.requirements import require_module


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_module("gguf")
    return tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")[0]


def test_the_line_of_a_preview_is_the_one_that_a_start_runs(make_stage: StageFactory) -> None:
    stage = make_stage()
    options = stage.options(
        backend_options={"model": str(stage.llama.model), "ctx_size": 4096, "lora": []}
    )
    words = stage.supervisor.preview("one", options).words
    assert words[-2:] == ("--port", "PORT")
    stage.supervisor.create("one", options)
    port = stage.supervisor.start_instance("one", wait=20).port
    started, asked = stage.supervisor.logs("one").decode().splitlines()[:2]
    assert started == f"--- llamactl starts: {' '.join(words[:-1])} {port}"
    assert "asks it once without its key" in asked


def test_a_preview_tells_what_a_cached_model_takes(make_stage: StageFactory, model: Path) -> None:
    stage = make_stage()
    stage.models["org/name:Q4_K_M"] = ResolvedModel(model)
    options = stage.options(backend_options={"model": "org/name:Q4_K_M"})
    preview = stage.supervisor.preview("one", options)
    assert preview.need is not None and preview.need.weights == model.stat().st_size
    assert preview.obstacle is None and str(model) in preview.words


def test_a_preview_counts_what_is_cached_of_a_repo_that_llama_cpp_looks_up(
    make_stage: StageFactory, model: Path
) -> None:
    stage = make_stage()
    options = stage.options(backend_options={"hf_repo": "org/name:Q4_K_M"})
    assert stage.supervisor.preview("one", options).need is None
    stage.models["org/name:Q4_K_M"] = ResolvedModel(model)
    need = stage.supervisor.preview("one", options).need
    assert need is not None and need.weights == model.stat().st_size


@pytest.mark.parametrize(("free", "site"), [(2**40, "devices"), (0, None)])
def test_a_preview_and_the_plan_agree_where_it_would_lie(
    make_stage: StageFactory, model: Path, free: int, site: str | None
) -> None:
    memory = Memory(free + DEVICE_RESERVE, 2**41)
    machine = Machine(Memory(RAM_RESERVE, RAM_RESERVE), (Device("CUDA0", "", memory),))
    stage = make_stage(machine=lambda _within: machine)
    options = stage.options(backend_options={"model": str(model), "gpu_layers": "all"})
    stage.supervisor.create("one", options)
    assert stage.supervisor.preview("one", options).site == site
    assert stage.supervisor.plan("one").site == site


def test_the_preview_of_a_running_instance_counts_what_it_holds_as_its_own(
    make_stage: StageFactory, model: Path
) -> None:
    free = [2**40]

    def machine(_within: float) -> Machine:
        memory = Memory(DEVICE_RESERVE + free[0], 2**41)
        return Machine(Memory(RAM_RESERVE, RAM_RESERVE), (Device("CUDA0", "", memory),))

    stage = make_stage({"instances.memory_admission": "enforce"}, machine=machine)
    flags = {"model": str(model), "gpu_layers": "all", "ctx_size": 512}
    options = stage.options(backend_options=flags)
    stage.supervisor.create("one", options)
    stage.supervisor.start_instance("one", wait=20)
    free[0] = 0
    assert stage.supervisor.preview("one", options).site == "devices"
    assert stage.supervisor.preview("other", options).site is None


def test_a_preview_says_why_a_start_would_fail(make_stage: StageFactory) -> None:
    stage = make_stage()
    options = stage.options(backend_options={"model": "org/name:Q4_K_M"})
    preview = stage.supervisor.preview("one", options)
    assert preview.obstacle is not None and "not cached" in preview.obstacle.details
    assert preview.need is None and preview.words == ()


def test_what_the_embedded_llama_cpp_cannot_take_is_said_when_it_is_saved(
    make_stage: StageFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_module("xllamacpp")
    monkeypatch.setenv("PATH", "/nowhere")
    stage = make_stage({"backends.llama-cpp.command": None, "backends.llama-cpp.args": []})
    model = str(stage.llama.model)
    assert stage.supervisor.warnings(stage.options()) == []
    for flags, told in (
        (
            {"model": model, "extra_args": {"--flag-of-tomorrow": 1}},
            "cannot take --flag-of-tomorro",
        ),
        ({"ctx_size": 512}, "Without a model llama-server is a router, and the embedded"),
    ):
        (warning,) = stage.supervisor.warnings(stage.options(backend_options=flags))
        assert told in warning, warning


def test_a_program_that_is_not_there_is_said_when_it_is_saved(make_stage: StageFactory) -> None:
    stage = make_stage({"backends.llama-cpp.command": "/no/llama-server"})
    (warning,) = stage.supervisor.warnings(stage.options())
    assert "There is no program /no/llama-server" in warning


@pytest.mark.parametrize("command", ["'", " ", "\n", "~nobody.has.this.name/a", "/bin/echo 'x"])
def test_a_command_that_cannot_be_read_is_said_to_be_one(
    make_stage: StageFactory, command: str
) -> None:
    stage = make_stage({"security.allow_command_override": True})
    obstacle = stage.supervisor.preview("one", stage.options(command_override=command)).obstacle
    assert obstacle is not None and "command_override" in obstacle.details


def test_the_first_context_fits_and_is_no_longer_than_the_models_own(
    make_stage: StageFactory, model: Path
) -> None:
    stage = make_stage()
    options = stage.options(backend_options={"model": str(model)})
    assert stage.supervisor.first_context(options, (4096, 32768)) == 8192
    assert stage.supervisor.first_context(options, (1024, 4096)) == 4096
    # Nothing on earth has the memory for this one's scores.
    flags = {"model": str(model), "flash_attn": "off", "ubatch_size": 2**40}
    huge = stage.options(backend_options=flags)
    assert stage.supervisor.first_context(huge, (2048, 4096)) == 2048


def test_no_context_is_chosen_for_a_model_that_tells_nothing(make_stage: StageFactory) -> None:
    stage = make_stage()
    assert stage.supervisor.first_context(stage.options(), (4096,)) is None
    router = stage.options(backend_options={})
    assert stage.supervisor.first_context(router, (4096,)) is None
