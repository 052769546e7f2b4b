"""Fixtures that every room shares: a configuration on a folder of its own, an open database."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from llamactl.config import Config, load_config
from llamactl.database import Database

ConfigFactory = Callable[..., Config]

# How long an example takes says something of the machine only.
settings.register_profile(
    "unhurried", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")


# A run in a shell's background ignores Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the person who runs the tests reaches what is tested."""
    for name in list(os.environ):
        ours = name.startswith("LLAMACTL_") and not name.startswith("LLAMACTL_TEST_")
        if ours or name.startswith(("HF_", "HUGGING", "LLAMA_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)


@pytest.fixture
def make_config(tmp_path: Path) -> ConfigFactory:
    """A configuration under ``tmp_path``: ``make_config({"server.port": 1}, hub_endpoint=…)``."""

    def make(
        overrides: dict[str, object] | None = None,
        *,
        hub_endpoint: str = "http://127.0.0.1:9",
        hub_token: str | None = None,
    ) -> Config:
        environ = {"HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub_endpoint}
        if hub_token is not None:
            environ["HF_TOKEN"] = hub_token
        settings: dict[str, object] = {
            "data_dir": str(tmp_path / "data"),
            "backends.llama-cpp.cache_dir": str(tmp_path / "flat"),
            "backends.llama-cpp.hub_dir": str(tmp_path / "hub"),
            "server.port": 0,
            "downloads.min_free_space": 0,
            **(overrides or {}),
        }
        return load_config(environ=environ, overrides=settings)

    return make


@pytest.fixture
def config(make_config: ConfigFactory) -> Config:
    return make_config()


@pytest.fixture
def database(config: Config) -> Iterator[Database]:
    opened = Database(config.database_file)
    opened.open()
    yield opened
    opened.close()
