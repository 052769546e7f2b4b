"""What the system page shows of the server itself."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llamactl import __version__
from llamactl.config import Config
from llamactl.instances.backend import BackendInfo
from llamactl.models.fit import Machine
from llamactl.paths import nearest_existing
from llamactl.settings import SETTINGS
from llamactl.sizes import size_text
from llamactl.web.config_shown import config_json
from llamactl.web.memory_view import machine_text
from llamactl.web.texts import duration_text

LLAMA_CPP = {
    "command": "llama-server",
    "embedded": "embedded (xllamacpp)",
    "missing": "none: no llama-server on PATH, and the embedded one is not installed",
}


@dataclass(frozen=True)
class PlaceView:
    what: str
    path: str
    free: str


@dataclass(frozen=True)
class SettingView:
    name: str
    value: str
    help: str


@dataclass(frozen=True)
class SystemView:
    warning: str
    facts: tuple[tuple[str, str], ...]
    command: str
    places: tuple[PlaceView, ...]
    settings: tuple[SettingView, ...]
    source: str
    machine: str


def system_view(
    config: Config, backend: BackendInfo, machine: Machine, started_at: float, now: float
) -> SystemView:
    """The server as a whole, at unix seconds ``now``; ``machine`` is what models may take."""
    facts = (
        ("llamactl", __version__),
        ("llama.cpp", LLAMA_CPP[backend.kind]),
        ("llama.cpp version", backend.version or "unknown"),
        ("Python", platform.python_version()),
        ("System", f"{platform.system()} {platform.machine()}"),
        ("Running for", duration_text(now - started_at) if started_at else "–"),
        ("Hub", str(_value(config_json(config), "hub.endpoint"))),
        ("Hub token", "HF_TOKEN" if config.hub.token else "that of hf's login, if any"),
    )
    return SystemView(
        warning=backend.warning or "",
        facts=facts,
        # Configured arguments are among the settings, where secrets are masked.
        command=" ".join(backend.command[: len(backend.command) - len(config.llama_cpp.args)]),
        places=tuple(_places(config)),
        settings=tuple(_settings(config)),
        source=str(config.source or ""),
        machine=machine_text(machine),
    )


def _places(config: Config) -> Sequence[PlaceView]:
    named = (
        ("Models, flat names", config.llama_cpp.cache_dir),
        ("Models, Hub layout", config.llama_cpp.hub_dir),
        ("Data, keys and database", config.data_dir),
        ("Logs of instances", config.instances.logs_dir),
        ("Python", Path(sys.executable)),
    )
    return [PlaceView(what, str(path), _free(path)) for what, path in named]


def _free(path: Path) -> str:
    try:
        return size_text(shutil.disk_usage(nearest_existing(path)).free)
    except OSError:
        return "–"


def _settings(config: Config) -> Sequence[SettingView]:
    shown = config_json(config)
    return [
        SettingView(setting.name, _text(_value(shown, setting.name)), setting.help)
        for setting in SETTINGS
    ]


def _value(shown: object, name: str) -> object:
    for key in name.split("."):
        shown = shown.get(key) if isinstance(shown, dict) else None
    return shown


def _text(value: object) -> str:
    if value is None or value in ("", [], {}):
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
