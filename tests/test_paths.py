"""The directories that the operating system and the other programs of the field prescribe."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamactl import paths

HOME = {"HOME": "/home/somebody"}


def test_the_variables_of_the_desktop_move_the_directories() -> None:
    environ = {**HOME, "XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "/c", "XDG_CACHE_HOME": "/k"}
    assert paths.default_data_dir(HOME) == Path("/home/somebody/.local/share/llamactl")
    assert paths.default_data_dir(environ) == Path("/d/llamactl")
    assert paths.config_files(environ)[1] == Path("/c/llamactl/config.yaml")
    assert paths.default_cache_dir(environ) == Path("/k/llama.cpp")
    assert paths.default_hub_dir(environ) == Path("/k/huggingface/hub")
    assert paths.default_hub_dir({**environ, "HF_HOME": "/hf"}) == Path("/hf/hub")


def test_on_a_mac_llama_cpp_keeps_its_models_in_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paths, "SYSTEM", "darwin")
    assert paths.default_cache_dir(HOME) == Path("/home/somebody/Library/Caches/llama.cpp")
    assert paths.default_data_dir(HOME).name == "llamactl"
    assert paths.config_files(HOME)[1].name == "config.yaml"


def test_on_windows_llama_cpp_keeps_its_models_in_the_local_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paths, "SYSTEM", "win32")
    local = paths.default_cache_dir({**HOME, "LOCALAPPDATA": "/local"})
    assert local == Path("/local/llama.cpp/cache")
    assert paths.default_cache_dir(HOME).parts[-2:] == ("llama.cpp", "cache")


def test_the_nearest_folder_that_is_there_is_found(tmp_path: Path) -> None:
    assert paths.nearest_existing(tmp_path) == tmp_path
    assert paths.nearest_existing(tmp_path / "not" / "there") == tmp_path
