from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from llamactl.config import Config
from llamactl.errors import ModelNotFound
from llamactl.instances.modelfiles import ResolvedModel
from llamactl.instances.options import Options
from llamactl.instances.usage import User, loaded_options, preset_options, users_of
from tests.instances.conftest import Stage, StageFactory


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """GGUF files by name; ``org/name:Q4`` is the reference of the first."""
    found = {}
    for name in ("model", "projector", "draft", "adapter", "other"):
        path = tmp_path / "models--org--name" / f"{name}.gguf"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"GGUF")
        found[name] = path
    return found


def used_by(options: Options, files: dict[str, Path]) -> set[str]:
    """The names of the files that an instance which is being started uses."""

    def resolve(reference: str) -> ResolvedModel:
        if reference != "org/name:Q4":
            raise ModelNotFound(f"{reference} is not cached")
        return ResolvedModel(files["model"], files["projector"])

    user = User("one", options)
    return {name for name, path in files.items() if users_of([path], [user], resolve)}


def options(config: Config, **flags: Any) -> Options:
    return Options.from_json({"backend_options": flags}, config)


def test_everything_that_an_instance_loads_is_in_use(
    config: Config, files: dict[str, Path]
) -> None:
    flags = {"lora": [str(files["adapter"])], "model_draft": str(files["draft"])}
    everything = options(config, model="org/name:Q4", **flags)
    assert used_by(everything, files) == {"model", "projector", "adapter", "draft"}
    chosen = options(config, model=str(files["other"]), mmproj=str(files["projector"]))
    assert used_by(chosen, files) == {"other", "projector"}


def test_of_a_cached_repo_the_named_tag_is_in_use(config: Config, files: dict[str, Path]) -> None:
    assert used_by(options(config, hf_repo="org/name:Q4"), files) == {"model", "projector"}
    assert used_by(options(config, hf_repo="org/name:Q4", no_mmproj=True), files) >= {"model"}


def test_of_a_repo_that_llama_server_may_be_fetching_everything_is(
    config: Config, files: dict[str, Path]
) -> None:
    assert used_by(options(config, hf_repo="org/name:Q8"), files) == set(files)
    assert used_by(options(config, hf_repo="org/name", hf_file="a.gguf"), files) == set(files)
    assert used_by(options(config, model=str(files["other"]), hfd="org/name:Q8"), files) == set(
        files
    )
    assert used_by(options(config, hf_repo="org/else:Q8"), files) == set()


def test_what_the_sections_of_a_preset_name_is_in_use(
    config: Config, files: dict[str, Path]
) -> None:
    preset = (
        f"version = 1\n[*]\nctx-size = 512\n[org/name:Q4]\nno-mmproj = true\n"
        f"[mine]\nmodel = {files['other']} ; mine\nlora = {files['adapter']}\n"
    )
    router = Options.from_json({"preset_ini": preset}, config)
    assert used_by(router, files) == {"model", "projector", "other", "adapter"}


def test_a_preset_is_read_by_its_sections() -> None:
    found = preset_options("[a/b:Q4]\nmodel = /x.gguf\n[c]\nhf = d/e\n[f]\nmodel =\n[g/h]\n")
    assert [dict(each.backend_options) for each in found] == [
        {"model": "/x.gguf"},
        {"hf_repo": "d/e"},
        {},
        {"hf_repo": "g/h"},
    ]


def entry(value: str | None, *args: str, name: str = "org/name:Q4") -> dict[str, Any]:
    status = {} if value is None else {"status": {"value": value, "args": ["x", *args]}}
    return {"id": name, **(status if args or value is None else {"status": {"value": value}})}


def test_what_a_router_has_loaded_is_told_by_its_own_command_lines() -> None:
    entries = [
        entry("unloaded", "--model", "/a.gguf"),
        entry("loaded", "--port", "1", "--model", "/b.gguf", "--lora", "/c.gguf", "--odd", "1"),
        entry("loading", "--hf-repo", "a/b:Q4"),
        entry("sleeping"),
        entry(None, name="of/old"),
    ]
    found = loaded_options(json.dumps({"data": entries}).encode())
    assert found is not None
    assert [dict(each.backend_options) for each in found] == [
        {"model": "/b.gguf", "lora": ("/c.gguf",)},
        {"hf_repo": "a/b:Q4"},
        {"hf_repo": "org/name:Q4"},
        {"hf_repo": "of/old"},
    ]


@pytest.mark.parametrize(
    "answer",
    [None, b"", b"[]", b"{}", b'{"data": 5}', b'{"data": [5]}', b'{"data": [{}]}', b"[" * 100_000],
)
def test_an_answer_that_says_nothing_leaves_all_open(answer: bytes | None) -> None:
    assert loaded_options(answer) is None


@pytest.fixture
def router(make_stage: StageFactory, files: dict[str, Path]) -> Stage:
    stage = make_stage(models="org/name:Q4,org/name:Q8", loaded="org/name:Q4")
    stage.models["org/name:Q4"] = ResolvedModel(files["model"])
    stage.models["org/name:Q8"] = ResolvedModel(files["other"])
    stage.run(backend_options={})
    return stage


def test_a_model_that_a_router_has_loaded_is_in_use(router: Stage, files: dict[str, Path]) -> None:
    assert router.supervisor.users_of([files["model"]]) == ["one"]
    assert router.supervisor.users_of([files["other"]]) == []


def test_of_a_router_that_does_not_answer_everything_is_in_use(
    router: Stage, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamactl.instances.usage.PATIENCE", 0.1)
    pid = router.get().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        assert router.supervisor.users_of([files["other"]]) == ["one"]
    finally:
        os.kill(pid, signal.SIGCONT)
