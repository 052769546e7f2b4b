"""The configuration is shown whole, and without a secret."""

from __future__ import annotations

import json
from collections.abc import Callable

from llamactl.config import Config
from llamactl.settings import SETTINGS
from llamactl.web.config_shown import config_json


def found(shown: object, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(shown, dict) or part not in shown:
            return False
        shown = shown[part]
    return True


def test_every_setting_is_shown_under_its_own_name(config: Config) -> None:
    shown = config_json(config)
    assert [setting.name for setting in SETTINGS if not found(shown, setting.name)] == []
    assert json.loads(json.dumps(shown)) == shown


def test_no_secret_is_shown(make_config: Callable[..., Config]) -> None:
    secret = "unique-token-0123456789-abcdefghij-klmnop"
    config = make_config(
        {
            "auth.management_keys": [secret],
            "auth.metrics_key": secret,
            "backends.llama-cpp.environment": {"SOME_KEY": secret},
            "backends.llama-cpp.args": ["--api-key", secret, f"--hf-token={secret}", "--jinja"],
        },
        hub_endpoint="https://mirror.example",
        hub_token=secret,
    )
    text = json.dumps(config_json(config))
    assert secret not in text
    for visible in ("SOME_KEY", "--api-key", "--jinja", "mirror.example"):
        assert visible in text
