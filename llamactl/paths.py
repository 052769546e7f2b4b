"""The directories that the operating system and the other programs of the field prescribe."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import appdirs

#: A variable, so that the type checker looks at every system's branch.
SYSTEM: str = sys.platform


def expand(path: str, environ: Mapping[str, str]) -> Path:
    """``~`` and ``~/x`` replaced by the home directory that ``environ`` names."""
    if path == "~" or path.startswith("~/"):
        return home(environ) / path[2:]
    return Path(path)


def home(environ: Mapping[str, str]) -> Path:
    """The user's home directory."""
    value = environ.get("HOME")
    return Path(value) if value else Path.home()


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there, where it would be made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Where the database, the management key and the logs are kept."""
    if SYSTEM.startswith("linux"):
        base = environ.get("XDG_DATA_HOME")
        return (Path(base) if base else home(environ) / ".local/share") / "llamactl"
    return Path(appdirs.user_data_dir("llamactl", appauthor=False))


def config_files(environ: Mapping[str, str]) -> list[Path]:
    """The configuration files that are looked for, the first that exists is used."""
    if SYSTEM.startswith("linux"):
        base = environ.get("XDG_CONFIG_HOME")
        user = (Path(base) if base else home(environ) / ".config") / "llamactl"
    else:
        user = Path(appdirs.user_config_dir("llamactl", appauthor=False))
    return [
        Path("llamactl.yaml"),
        user / "config.yaml",
        Path("/etc/llamactl/config.yaml"),
    ]


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    """The flat cache of llama.cpp, without ``LLAMA_CACHE``, which the settings table treats."""
    if SYSTEM == "darwin":
        return home(environ) / "Library/Caches/llama.cpp"
    if SYSTEM == "win32":
        return Path(environ.get("LOCALAPPDATA", appdirs.user_cache_dir())) / "llama.cpp/cache"
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else home(environ) / ".cache") / "llama.cpp"


def default_hub_dir(environ: Mapping[str, str]) -> Path:
    """Where today's llama.cpp looks for the Hub's models; an empty variable counts as unset."""
    for name, suffix in (
        ("LLAMA_CACHE", ""),
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ):
        value = environ.get(name)
        if value:
            return Path(value) / suffix
    return home(environ) / ".cache/huggingface/hub"
