from __future__ import annotations

from pathlib import Path

import pytest

from llamactl.instances.modelfiles import ResolvedModel
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
    started = stage.supervisor.logs("one").decode().splitlines()[0]
    assert started == f"--- llamactl starts: {' '.join(words[:-1])} {port}"


def test_a_preview_tells_what_a_cached_model_takes(make_stage: StageFactory, model: Path) -> None:
    stage = make_stage()
    stage.models["org/name:Q4_K_M"] = ResolvedModel(model)
    options = stage.options(backend_options={"model": "org/name:Q4_K_M"})
    preview = stage.supervisor.preview("one", options)
    assert preview.need is not None and preview.need.weights == model.stat().st_size
    assert preview.obstacle is None and str(model) in preview.words


def test_a_preview_says_why_a_start_would_fail(make_stage: StageFactory) -> None:
    stage = make_stage()
    options = stage.options(backend_options={"model": "org/name:Q4_K_M"})
    preview = stage.supervisor.preview("one", options)
    assert preview.obstacle is not None and "not cached" in preview.obstacle.details
    assert preview.need is None and preview.words == ()


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
