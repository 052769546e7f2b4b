from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from llamactl.config import Config
from llamactl.errors import ModelNotFound, StartFailed
from llamactl.instances.modelfiles import ModelFiles, ResolvedModel, expand, find_files
from llamactl.instances.options import Options


def gguf(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF" + bytes(20))
    return path


def find(
    config: Config, resolve: dict[str, ResolvedModel] | None = None, **given: Any
) -> ModelFiles:
    def resolver(reference: str) -> ResolvedModel:
        if not resolve or reference not in resolve:
            raise ModelNotFound(f"{reference} is not cached", hint="Download it.")
        return resolve[reference]

    return find_files(Options.from_json({"backend_options": given}, config), resolver)


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for path in ("~/a.gguf", "$HOME/a.gguf", "${HOME}/a.gguf"):
        assert expand(path) == "/home/me/a.gguf"
    assert expand("/x/$HOME") == "/x/$HOME"
    assert expand("/x/~") == "/x/~"


def test_a_path_is_found_with_its_home(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    model = gguf(tmp_path / "models" / "a.gguf")
    assert find(config, model="~/models/a.gguf").model == model


def test_a_reference_brings_its_projector(config: Config, tmp_path: Path) -> None:
    cached = ResolvedModel(gguf(tmp_path / "m.gguf"), gguf(tmp_path / "p.gguf"))
    found = find(config, {"org/name:Q4": cached}, model="org/name:Q4")
    assert (found.model, found.mmproj) == (cached.path, cached.mmproj)
    assert found.all == (cached.path, cached.mmproj)


def test_no_mmproj_leaves_the_projector_out(config: Config, tmp_path: Path) -> None:
    cached = ResolvedModel(gguf(tmp_path / "m.gguf"), gguf(tmp_path / "p.gguf"))
    assert find(config, {"o/n": cached}, model="o/n", no_mmproj=True).mmproj is None


def test_a_chosen_projector_is_preferred(config: Config, tmp_path: Path) -> None:
    cached = ResolvedModel(gguf(tmp_path / "m.gguf"), gguf(tmp_path / "p.gguf"))
    own = gguf(tmp_path / "own.gguf")
    assert find(config, {"o/n": cached}, model="o/n", mmproj=str(own)).mmproj == own


def test_a_model_that_is_not_cached_is_said_to_be(config: Config) -> None:
    with pytest.raises(StartFailed, match="org/name:Q4 is not cached") as caught:
        find(config, model="org/name:Q4")
    assert caught.value.hint == "Download it. `llamactl download org/name:Q4` downloads it"


def test_a_missing_file_is_named(config: Config, tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="there is no file") as caught:
        find(config, model=str(tmp_path / "none.gguf"))
    assert str(tmp_path / "none.gguf") in caught.value.message


def test_a_folder_is_no_model(config: Config, tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="is a folder"):
        find(config, model=str(tmp_path))


def test_a_pipe_under_a_models_name_is_not_waited_for(config: Config, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(StartFailed, match=r"cannot be read: not a file"):
        find(config, model=str(tmp_path / "pipe.gguf"))


def test_a_file_that_is_no_gguf_is_named(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    for content in (b"", b"GG", b"<html>", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(StartFailed, match="is no GGUF file"):
            find(config, model=str(path))


def test_every_shard_must_be_there(config: Config, tmp_path: Path) -> None:
    shards = [gguf(tmp_path / f"m-0000{number}-of-00003.gguf") for number in (1, 2, 3)]
    assert find(config, model=str(shards[0])).all == tuple(shards)
    shards[2].unlink()
    with pytest.raises(StartFailed, match=r"m-00003-of-00003\.gguf, a part of the model"):
        find(config, model=str(shards[0]))


def test_adapters_are_looked_at_too(config: Config, tmp_path: Path) -> None:
    model = gguf(tmp_path / "m.gguf")
    adapter = gguf(tmp_path / "lora.gguf")
    assert adapter in find(config, model=str(model), lora=[str(adapter)]).all
    adapter.unlink()
    with pytest.raises(StartFailed, match=r"there is no file .*lora\.gguf"):
        find(config, model=str(model), lora=[str(adapter)])


def test_without_a_model_there_is_nothing_to_find(config: Config) -> None:
    assert find(config, hf_repo="a/b") == ModelFiles()


@pytest.mark.parametrize("path", ["~nobody.has.this.name/a.gguf", "$HOME/../~no/a.gguf"])
def test_a_home_of_nobody_is_a_file_that_is_not_there(config: Config, path: str) -> None:
    with pytest.raises(StartFailed, match="there is no file"):
        find(config, model=path)


def test_a_path_that_no_file_system_takes_is_said_to_be_one(config: Config) -> None:
    for name in ("a" * 300, "a" * 300 + "-00001-of-00002"):
        with pytest.raises(StartFailed, match="cannot be looked at: File name too long"):
            find(config, model=f"/{name}.gguf")
    with pytest.raises(StartFailed, match="cannot be looked at: File name too long"):
        find(config, hf_repo="o/n", mmproj="/" + "a/" * 3000)
