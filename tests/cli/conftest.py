"""Commands run in this process, with a scripted server beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from llamactl import cli
from llamactl.locks import FileLock
from tests.cli.rest import FakeRest


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("models", "rm", …)``: the exit code, standard output and standard error."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLAMACTL_DATA_DIRECTORY", str(tmp_path / "data"))
    monkeypatch.setenv("LLAMACTL_DOWNLOADS_MIN_FREE_SPACE", "0")
    monkeypatch.setenv("LLAMA_CACHE", "")
    monkeypatch.setenv("LLAMACTL_LLAMACPP_CACHE_DIR", str(tmp_path / "flat"))
    monkeypatch.setenv("LLAMACTL_HUB_DIR", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)

    def outcome(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = cli.run(arguments)
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return outcome


@pytest.fixture
def rest(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRest]:
    """A scripted server that the commands find through LLAMACTL_URL."""
    with FakeRest() as server:
        monkeypatch.setenv("LLAMACTL_URL", server.url)
        monkeypatch.setenv("LLAMACTL_KEY", "the-management-key")
        yield server


@contextlib.contextmanager
def held(data_dir: Path, **note: object) -> Iterator[None]:
    """A data directory while somebody holds it who left this note."""
    lock = FileLock(data_dir / "server.lock")
    assert lock.acquire()
    lock.write_note(**note)
    try:
        yield
    finally:
        lock.release()
