"""The configuration in use, as it may be shown: without anything secret."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from llamactl.config import Config
from llamactl.instances.masking import masked_words
from llamactl.secret import MASK, Secret


def config_json(config: Config) -> dict[str, object]:
    """Every setting under its name in the configuration file; what is secret is ``***``."""
    shown = {name: _shown(value) for name, value in _fields(config).items()}
    llama_cpp = {
        **_section(shown.pop("llama_cpp")),
        # What an environment variable is for cannot be known, so none of their values is shown.
        "environment": dict.fromkeys(config.llama_cpp.environment, MASK),
        "args": masked_words(config.llama_cpp.args),
    }
    return {**shown, "backends": {"llama-cpp": llama_cpp}}


def _shown(value: object) -> object:
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_shown(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _shown(item) for name, item in value.items()}
    if dataclasses.is_dataclass(value):
        return {name: _shown(item) for name, item in _fields(value).items()}
    return value


def _fields(value: object) -> dict[str, object]:
    assert dataclasses.is_dataclass(value)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _section(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value
