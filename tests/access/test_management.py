"""The management key's file."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from llamactl.access.management import ManagementKey
from llamactl.access.management import ensure_management_key as ensure
from llamactl.config import Config
from llamactl.errors import ConfigError
from tests.conftest import ConfigFactory


def ensure_management_key(config: Config) -> ManagementKey:
    made = ensure(config)
    assert made is not None
    return made


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_first_start_makes_a_key_that_only_its_owner_reads(config: Config) -> None:
    made = ensure_management_key(config)
    assert made.created
    assert mode(made.path) == 0o600
    assert made.path.read_text().strip() == made.secret.reveal()
    assert len(made.secret.reveal()) >= 43
    assert [file.name for file in config.data_dir.glob("*management*")] == ["management.key"]


def test_later_starts_keep_the_key(config: Config) -> None:
    first = ensure_management_key(config)
    second = ensure_management_key(config)
    assert not second.created
    assert second.secret == first.secret


def test_starts_at_one_moment_agree_on_one_key(config: Config) -> None:
    barrier = threading.Barrier(8)
    made: list[ManagementKey] = []

    def start() -> None:
        barrier.wait(60)
        made.append(ensure_management_key(config))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({key.secret.reveal() for key in made}) == 1
    assert sum(key.created for key in made) == 1


def test_a_file_that_others_could_read_is_shut(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    made = ensure_management_key(config)
    made.path.chmod(0o644)
    ensure_management_key(config)
    assert mode(made.path) == 0o600
    assert "0600" in caplog.text
    assert made.secret.reveal() not in caplog.text


@pytest.mark.parametrize("content", ["", "short", "\0" * 64, "é" * 40])
def test_a_file_without_a_usable_key_stops_the_start(config: Config, content: str) -> None:
    path = config.data_dir / "management.key"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"management\.key"):
        ensure_management_key(config)


def test_a_link_in_the_place_of_the_key_is_not_followed(config: Config, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("x" * 64)
    config.data_dir.mkdir(parents=True, exist_ok=True)
    (config.data_dir / "management.key").symlink_to(target)
    with pytest.raises(ConfigError):
        ensure_management_key(config)
    assert target.read_text() == "x" * 64


def test_no_file_is_made_where_keys_are_configured(make_config: ConfigFactory) -> None:
    config = make_config({"auth.management_keys": "k" * 40})
    assert ensure(config) is None
    assert not (config.data_dir / "management.key").exists()
