"""Where settings are written: .env, the YAML file, the environment. Raw values with their places.

Whatever cannot be understood is a ``ConfigError`` that names file, line and key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llamactl import paths
from llamactl.errors import ConfigError
from llamactl.settings import SETTINGS


@dataclass(frozen=True)
class Found:
    """A raw value and where it was read, for the error that it may deserve."""

    value: Any
    where: str


def config_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: the one that is named, else the first that exists; None without any."""
    named = path
    if named is None and environ.get("LLAMACTL_CONFIG_PATH"):
        named = paths.expand(environ["LLAMACTL_CONFIG_PATH"], environ)
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"{named}: there is no such configuration file")
        return named
    return next((file for file in paths.config_files(environ) if file.is_file()), None)


def read_dotenv(source: Path | None) -> dict[str, str]:
    """The .env file beside the configuration file in use, and no other.

    One of the folder that somebody happens to be in may be another program's, token and all.
    """
    if source is None or not (file := source.with_name(".env")).is_file():
        return {}
    from dotenv import dotenv_values

    return {name: value for name, value in dotenv_values(file).items() if value is not None}


def read_file(source: Path, environ: Mapping[str, str]) -> dict[str, Found]:
    """What the file says, by the names of the settings; ``${VAR}`` is taken from ``environ``."""
    try:
        root = yaml.compose(source.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        bad_line = 1 + error.object[: error.start].count(b"\n")
        raise ConfigError(f"{source}:{bad_line}: cannot be read: it is not UTF-8 text") from error
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"{source}{line}: {problem}") from error
    found: dict[str, Found] = {}
    if root is not None:
        _walk(root, "", source, environ, found)
    return found


_KEYS = {setting.name.replace("-", "_"): setting for setting in SETTINGS}
_SECTIONS = {
    ".".join(name.split(".")[:depth]) for name in _KEYS for depth in range(1, name.count(".") + 1)
}


def _walk(
    node: yaml.Node, prefix: str, source: Path, environ: Mapping[str, str], found: dict[str, Found]
) -> None:
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{source}:{line}: {prefix or 'the file'} must be a mapping of keys")
    seen: set[str] = set()
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = str(key_node.value).replace("-", "_")
        name = f"{prefix}.{key}" if prefix else key
        if name in seen:
            raise ConfigError(f"{source}:{line}: {name} is given twice")
        seen.add(name)
        if name in _KEYS:
            where = f"{source}:{line}: {_KEYS[name].name}"
            try:
                value = yaml.SafeLoader("").construct_object(value_node, deep=True)
                found[_KEYS[name].name] = Found(_expand(value, environ), where)
            except (yaml.YAMLError, ValueError) as error:
                raise ConfigError(f"{where}: {error}") from error
        elif name in _SECTIONS:
            _walk(value_node, name, source, environ, found)
        else:
            raise ConfigError(
                f"{source}:{line}: {name} is not a setting",
                hint=_nearest(name, [*_KEYS, *_SECTIONS]),
            )


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else ""


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def _expand(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, str):

        def replace(match: re.Match[str]) -> str:
            name, default = match.groups()
            if name in environ:
                return environ[name]
            if default is None:
                raise ValueError(f"the variable {name} is not set; write ${{{name}:-default}}")
            return str(default)

        return _VARIABLE.sub(replace, value)
    if isinstance(value, list):
        return [_expand(item, environ) for item in value]
    if isinstance(value, dict):
        return {key: _expand(item, environ) for key, item in value.items()}
    return value


#: Variables of ours that are not settings: which file to read, whom the command line asks, and the
#: mark that processes of an instance bear.
_OTHER_VARIABLES = {"LLAMACTL_CONFIG_PATH", "LLAMACTL_URL", "LLAMACTL_KEY", "LLAMACTL_RUN"}


def read_environment(
    variables: Mapping[str, str], environ: Mapping[str, str], origin: str
) -> dict[str, Found]:
    """What ``variables`` say, by the names of the settings; ``origin`` is where they stand."""
    found: dict[str, Found] = {}
    known = set(_OTHER_VARIABLES)
    for setting in SETTINGS:
        known.update(setting.variables)
        for variable in setting.variables:
            if variable in variables:
                try:
                    value = _expand(variables[variable], environ)
                except ValueError as error:
                    raise ConfigError(f"{origin}: {variable}: {error}") from error
                found[setting.name] = Found(value, f"{origin}: {variable}")
                break
    for variable in variables:
        if variable.startswith("LLAMACTL_") and variable not in known:
            if variable.startswith("LLAMACTL_TEST_"):
                continue
            raise ConfigError(
                f"{origin}: {variable} is not a setting", hint=_nearest(variable, sorted(known))
            )
    return found
