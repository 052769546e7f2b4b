"""Where the token comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from llamactl.config import HubConfig
from llamactl.hub.tokens import current_token
from llamactl.secret import Secret

NONE_SET = HubConfig(endpoint="http://127.0.0.1:9", token=None, offline=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_hf_token_comes_first(home: Path) -> None:
    _write(home / ".cache/huggingface/token", "hf_from_file")
    config = HubConfig(endpoint="", token=Secret("hf_from_environment"), offline=False)
    assert current_token(config, {}) == Secret("hf_from_environment")


def test_without_any_there_is_none(home: Path) -> None:
    assert current_token(NONE_SET, {}) is None


def test_the_login_of_hf_is_found_without_the_newline(home: Path) -> None:
    _write(home / ".cache/huggingface/token", "hf_from_file\r\n")
    assert current_token(NONE_SET, {}) == Secret("hf_from_file")


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"HF_TOKEN_PATH": "~/elsewhere", "HF_HOME": "~/hf"}, "elsewhere"),
        ({"HF_HOME": "~/hf", "XDG_CACHE_HOME": "~/xdg"}, "hf/token"),
        ({"XDG_CACHE_HOME": "~/xdg"}, "xdg/huggingface/token"),
    ],
)
def test_the_login_is_looked_for_where_hf_was_told_to_keep_it(
    home: Path, environ: dict[str, str], path: str
) -> None:
    _write(home / ".cache/huggingface/token", "hf_wrong")
    _write(home / path, "hf_right")
    assert current_token(NONE_SET, environ) == Secret("hf_right")


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_a_login_that_is_kept_back_is_not_used(home: Path, value: str) -> None:
    _write(home / ".cache/huggingface/token", "hf_from_file")
    assert current_token(NONE_SET, {"HF_HUB_DISABLE_IMPLICIT_TOKEN": value}) is None


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe"])
def test_a_file_without_a_token_is_none(home: Path, content: bytes) -> None:
    path = home / ".cache/huggingface/token"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert current_token(NONE_SET, {}) is None


def test_a_folder_in_the_tokens_place_is_none(home: Path) -> None:
    (home / ".cache/huggingface/token").mkdir(parents=True)
    assert current_token(NONE_SET, {}) is None


def test_a_token_written_later_is_seen_without_a_restart(home: Path) -> None:
    assert current_token(NONE_SET, {}) is None
    _write(home / ".cache/huggingface/token", "hf_late")
    assert current_token(NONE_SET, {}) == Secret("hf_late")


def test_a_login_by_browser_of_another_home_is_used_as_it_is(home: Path) -> None:
    _write(home / "hf/token", "hf_oauth_x")
    _write(home / "hf/stored_tokens", "[me]\nhf_token = hf_oauth_x\nrefresh_token = r\n")
    assert current_token(NONE_SET, {"HF_HOME": str(home / "hf")}) == Secret("hf_oauth_x")


def _login_by_browser(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `hf auth login` leaves: a token that ends some day, and what renews it."""
    path = home / ".cache/huggingface/token"
    _write(path, "hf_oauth_old")
    stored = "[me]\nhf_token = hf_oauth_old\nrefresh_token = r\nexpires_at = 9999999999\n"
    _write(path.with_name("stored_tokens"), stored)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(path))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(path.with_name("stored_tokens")))


def test_a_login_by_browser_that_still_holds_is_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _login_by_browser(home, monkeypatch)
    assert current_token(NONE_SET, {}) == Secret("hf_oauth_old")


def test_a_login_by_browser_is_renewed_by_the_library_that_keeps_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _login_by_browser(home, monkeypatch)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_oauth_new")
    assert current_token(NONE_SET, {}) == Secret("hf_oauth_new")
