from __future__ import annotations

from typing import Any

import pytest

from llamactl.config import Config
from llamactl.errors import InvalidRequest
from llamactl.instances.masking import masked, unmasked
from llamactl.instances.options import Options
from llamactl.secret import MASK


def options(config: Config, **environment: str) -> Options:
    return Options.from_json({"environment": environment}, config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEY", "x"),
        ("MY_SERVICE_TOKEN", "x"),
        ("aws_secret_access_key", "x"),
        ("DB_PASSWORD", "x"),
        ("AWS_ACCESS_KEY_ID", "x"),
        ("CREDENTIALS", "x"),
        ("ENDPOINT", "https://me:word@example.org/"),
        ("ANYTHING", "hf_abcdefghijkl"),
        ("ANYTHING", "sk-proj-1234567890"),
        ("PGPASSWORD", "x"),
        ("MYSQL_PWD", "x"),
        ("accessToken", "x"),
        ("AUTHORIZATION", "x"),
        ("ANYTHING", "github_pat_0123456789"),
        ("ANYTHING", "eyJhbGciOi.eyJzdWIi.c2ln"),
        ("ANYTHING", "Bearer abc"),
        ("ANYTHING", "-----BEGIN RSA PRIVATE KEY-----\nMIIE"),
    ],
)
def test_what_looks_like_a_secret_is_not_shown(name: str, value: str) -> None:
    assert masked({name: value}) == {name: MASK}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CUDA_VISIBLE_DEVICES", "0,1"),
        ("GGML_CUDA_KEYED", "1"),
        ("MONKEY", "see"),
        ("PWD", "/home/me"),
        ("BYPASS", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("PROXY_FREE", "https://example.org/a@b"),
        ("API_KEY", ""),
    ],
)
def test_everything_else_is_shown(name: str, value: str) -> None:
    assert masked({name: value}) == {name: value}


def test_a_mask_that_comes_back_keeps_the_value(config: Config) -> None:
    before = options(config, MY_TOKEN="old", PLAIN="1")
    after = unmasked(options(config, MY_TOKEN=MASK, PLAIN="2", OTHER_KEY="new"), before)
    assert after.environment == {"MY_TOKEN": "old", "PLAIN": "2", "OTHER_KEY": "new"}


@pytest.mark.parametrize("before", [None, {}, {"OTHER_TOKEN": "x"}])
def test_a_mask_of_nothing_is_refused(config: Config, before: dict[str, Any] | None) -> None:
    stored = None if before is None else options(config, **before)
    with pytest.raises(InvalidRequest) as caught:
        unmasked(options(config, MY_TOKEN=MASK), stored)
    assert caught.value.field == "environment.MY_TOKEN"
