from __future__ import annotations

from pathlib import Path

import pytest

from llamactl.instances.backend import Backend
from tests.conftest import ConfigFactory
from tests.fakes.llama import FakeLlama


@pytest.fixture
def no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one empty folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(path: Path, output: str) -> None:
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)


def test_without_a_llama_server_the_embedded_one_runs(
    make_config: ConfigFactory, no_path: Path
) -> None:
    pytest.importorskip("xllamacpp")
    info = Backend(make_config().llama_cpp, ()).describe()
    assert info.kind == "embedded" and info.warning is None
    assert info.version is not None and "xllamacpp" in info.version


def test_a_llama_server_on_path_is_preferred_and_its_arguments_kept(
    make_config: ConfigFactory, no_path: Path
) -> None:
    program(no_path / "llama-server", "version: 11434 (abc)")
    config = make_config({"backends.llama-cpp.args": ["-ngl", "99"]})
    info = Backend(config.llama_cpp, ("1 NVIDIA",)).describe()
    assert info.kind == "command" and info.warning is None
    assert info.command == (str(no_path / "llama-server"), "-ngl", "99")
    assert info.version == "11434 (abc)"


def test_a_program_that_was_replaced_is_asked_again(
    make_config: ConfigFactory, no_path: Path
) -> None:
    backend = Backend(make_config().llama_cpp, ())
    program(no_path / "llama-server", "version: 1")
    assert backend.describe().version == "1"
    program(no_path / "llama-server", "version: 22")
    assert backend.describe().version == "22"


def test_a_gpu_beside_the_embedded_one_is_warned_of(
    make_config: ConfigFactory, no_path: Path
) -> None:
    pytest.importorskip("xllamacpp")
    warning = Backend(make_config().llama_cpp, ("2 NVIDIA",)).warning()
    assert warning is not None and "2 NVIDIA" in warning and "llama-server" in warning


def test_a_configured_command_that_is_not_there_is_missing(
    make_config: ConfigFactory, no_path: Path
) -> None:
    config = make_config({"backends.llama-cpp.command": "/nowhere/llama-server"})
    info = Backend(config.llama_cpp, ()).describe()
    assert (info.kind, info.command, info.version) == ("missing", (), None)
    assert info.warning is not None and "/nowhere/llama-server" in info.warning


def test_the_home_directory_is_expanded_in_the_command(
    make_config: ConfigFactory, no_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(no_path))
    program(no_path / "my-server", "version: 5")
    config = make_config({"backends.llama-cpp.command": "~/my-server"})
    assert Backend(config.llama_cpp, ()).find() == ("command", (str(no_path / "my-server"),))


def test_the_help_of_the_program_is_at_hand(make_config: ConfigFactory, tmp_path: Path) -> None:
    config = make_config(FakeLlama(tmp_path / "fake").settings)
    output = Backend(config.llama_cpp, ()).output_of("--help")
    assert output is not None and "--ctx-size" in output
