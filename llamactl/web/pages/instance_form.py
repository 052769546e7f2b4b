"""The form of an instance: from options to fields, and from what was typed to options.

A field that is left empty is not in the options at all: llama.cpp's default, or the setting's, is
what counts then. Flags that have no field of their own are lines among the extra arguments, and
other options that the form does not have are kept as they are when an instance is edited.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llamactl.config import Config
from llamactl.errors import InstanceExists, InvalidInstanceName, LlamactlError, UnsupportedBackend
from llamactl.web.config_shown import MASK
from llamactl.web.pages.fields import Field

Typed = Mapping[str, str]
Choices = Sequence[tuple[str, str]]

BACKENDS = (("llama_cpp", "llama.cpp"),)
#: Fields whose value lies in ``backend_options``; the others lie beside it.
IN_BACKEND = frozenset(
    {
        "model",
        "ctx_size",
        "gpu_layers",
        "threads",
        "parallel",
        "hf_repo",
        "hf_file",
        "mmproj",
    }
)
NUMBERS = frozenset(
    {
        "ctx_size",
        "gpu_layers",
        "threads",
        "parallel",
        "idle_timeout",
        "max_restarts",
        "restart_delay",
    }
)
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,9})?")


@dataclass(frozen=True)
class InstanceForm:
    """The fields that everyone sees, and those behind "More options"."""

    first: Sequence[Field]
    more: Sequence[Field]

    @property
    def more_open(self) -> bool:
        """Whether something behind "More options" is wrong and must be seen."""
        return any(field.wrong for field in self.more)

    def named(self) -> frozenset[str]:
        """The names of all fields."""
        return frozenset(field.name for field in (*self.first, *self.more))


def empty_form(config: Config) -> InstanceForm:
    """The fields without values; their texts say what an empty one means."""
    defaults = config.instances
    first = (
        Field(
            "name",
            "Name",
            help="Letters, digits, dot, dash, underscore.",
            required=True,
            width="half",
        ),
        Field("backend_type", "Backend type", "select", choices=BACKENDS, width="half"),
        Field(
            "model",
            "Model",
            help="The full path of a GGUF file, or org/model-name:tag of a cached model.",
            width="wide",
        ),
        Field("ctx_size", "Context size", "number", help="Tokens.", placeholder="the model's own"),
        Field("gpu_layers", "GPU layers", "number", placeholder="as many as fit"),
        Field("threads", "Threads", "number", placeholder="all cores"),
        Field(
            "parallel", "Parallel", "number", help="Requests at a time.", placeholder="automatic"
        ),
        Field(
            "aliases",
            "Aliases",
            help="Further names that clients may ask for, with commas between.",
            width="wide",
        ),
        Field("on_demand_start", "Start with the first request", "check", width="wide"),
        Field(
            "idle_timeout",
            "Idle timeout",
            "number",
            help="Minutes without a request until it is stopped; 0: never.",
            placeholder=f"{defaults.default_idle_timeout:g}",
            width="half",
        ),
        Field(
            "extra_args",
            "Extra arguments",
            "lines",
            help="Flags of llama-server, one a line.",
            placeholder="--cache-type-k q8_0",
            width="wide",
        ),
    )
    return InstanceForm(first, _more(config))


def shown(form: InstanceForm, values: Typed) -> InstanceForm:
    """The form with these values in its fields."""

    def fill(fields: Sequence[Field]) -> Sequence[Field]:
        return [replace(field, value=values.get(field.name, "")) for field in fields]

    return InstanceForm(fill(form.first), fill(form.more))


def with_models(form: InstanceForm, models: Choices) -> InstanceForm:
    """The form whose field Model suggests the cached ones: (path, name)."""
    first = [
        replace(field, choices=models) if field.name == "model" else field for field in form.first
    ]
    return InstanceForm(first, form.more)


def told(form: InstanceForm, error: LlamactlError) -> tuple[InstanceForm, LlamactlError | None]:
    """The form with the error beside its field, or with the error that belongs to none."""
    culprit = _culprit(form, error)
    if culprit is None:
        return form, error

    def mark(fields: Sequence[Field]) -> Sequence[Field]:
        return [
            replace(field, wrong=error.details) if field.name == culprit else field
            for field in fields
        ]

    return InstanceForm(mark(form.first), mark(form.more)), None


def values_for_new(config: Config, model: str, name: str) -> dict[str, str]:
    """What the fields of a new instance hold at first."""
    ticked = {
        "on_demand_start": config.instances.default_on_demand_start,
        "auto_restart": config.instances.default_auto_restart,
    }
    values = {box: "on" for box, on in ticked.items() if on}
    return {**values, "backend_type": BACKENDS[0][0], "model": model, "name": name}


def values_of(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """What the fields hold for an instance that exists; values of variables are masked."""
    backend = dict(options.get("backend_options") or {})
    extra = backend.pop("extra_args", None) or {}
    values = {"name": name, "backend_type": str(options.get("backend_type", ""))}
    for field in (*IN_BACKEND, *NUMBERS, "group", "preset_ini", "command_override"):
        value = backend.pop(field, None) if field in IN_BACKEND else options.get(field)
        if value is not None:
            values[field] = _value_text(value)
    values["aliases"] = ", ".join(options.get("aliases") or ())
    values["extra_args"] = "\n".join([*_flag_lines(backend), *_flag_lines(extra)])
    environment = options.get("environment") or {}
    values["environment"] = "\n".join(f"{variable}={MASK}" for variable in environment)
    values.update({box: "on" for box in ("on_demand_start", "auto_restart") if options.get(box)})
    return values


def options_json(
    form: InstanceForm, typed: Typed, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What was typed as the JSON that makes options; ``before`` is what is edited.

    Nothing is judged here: a number that is none goes on as text, and is refused by its name.
    """
    options = dict(before or {})
    backend: dict[str, Any] = {}
    kept = dict(options.get("environment") or {})
    for name in form.named() - {"name"}:
        in_backend = name in IN_BACKEND or name == "extra_args"
        place = backend if in_backend else options
        value = _value(name, typed.get(name, "").strip(), kept)
        if value is None:
            place.pop(name, None)
        else:
            place[name] = value
    return {**options, "backend_options": backend}


def _more(config: Config) -> Sequence[Field]:
    defaults = config.instances
    fields = [
        Field("auto_restart", "Restart when it ends by itself", "check", width="wide"),
        Field(
            "max_restarts",
            "Restarts at most",
            "number",
            placeholder=str(defaults.default_max_restarts),
            width="half",
        ),
        Field(
            "restart_delay",
            "Restart delay",
            "number",
            help="Seconds; it grows with each try.",
            placeholder=f"{defaults.default_restart_delay:g}",
            width="half",
        ),
        Field("group", "Group", help="For limits that several instances share.", width="half"),
        Field(
            "hf_repo",
            "Hub repository",
            help="llama.cpp loads it itself, instead of Model.",
            width="half",
        ),
        Field("hf_file", "Hub file", width="half"),
        Field("mmproj", "Multimodal projector", help="The full path of its GGUF.", width="wide"),
        Field(
            "environment",
            "Environment",
            "lines",
            help=f"NAME=VALUE, one a line. A value that is shown as {MASK} stays as it is.",
            width="wide",
        ),
        Field("preset_ini", "Preset (INI)", "lines", width="wide"),
    ]
    if config.security.allow_command_override:
        fields.append(Field("command_override", "Command instead of llama-server", width="wide"))
    return fields


def _culprit(form: InstanceForm, error: LlamactlError) -> str | None:
    if isinstance(error, InvalidInstanceName | InstanceExists):
        return "name"
    if isinstance(error, UnsupportedBackend):
        return "backend_type"
    parts = str(getattr(error, "field", None) or "").split(".")
    return next((part for part in parts if part in form.named()), None)


def _value(name: str, text: str, kept: Mapping[str, str]) -> object:
    """What ``text`` means in the field ``name``; None where it means nothing was said."""
    if name in {"on_demand_start", "auto_restart"}:
        return bool(text)
    if name == "aliases":
        return [part.strip() for part in text.split(",") if part.strip()]
    if name == "environment":
        return _variables(text, kept)
    if not text:
        return None
    if name == "extra_args":
        return _flags(text)
    return _number(text) if name in NUMBERS else text


def _number(text: str) -> int | float | str:
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def _value_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _variables(text: str, kept: Mapping[str, str]) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if line.strip())
    return {
        name.strip(): kept.get(name.strip(), value) if value == MASK else value
        for name, _, value in pairs
    }


def _flags(text: str) -> dict[str, Any]:
    flags: dict[str, Any] = {}
    for line in text.splitlines():
        flag, value = _flag(line)
        if not flag:
            continue
        if flag not in flags:
            flags[flag] = value
        elif isinstance(flags[flag], list):
            flags[flag].append(value)
        else:
            flags[flag] = [flags[flag], value]
    return flags


def _flag(line: str) -> tuple[str, str | bool]:
    match = re.fullmatch(r"-*([^\s=]+)(?:[\s=]+(.*))?", line.strip())
    if match is None:
        return "", True
    return match[1], _unquoted((match[2] or "").strip()) or True


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        with contextlib.suppress(ValueError):
            return str(json.loads(value))
    return value


def _flag_lines(flags: Mapping[str, Any]) -> Sequence[str]:
    lines = []
    for flag, value in flags.items():
        dashed = flag.replace("_", "-")
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, bool):
                lines.append(f"--{dashed}" if each else f"--no-{dashed}")
            else:
                lines.append(f"--{dashed} {_quoted(_value_text(each))}")
    return lines


def _quoted(value: str) -> str:
    # A template with line breaks is one value all the same.
    one_line = value == value.strip() and value.isprintable() and not value.startswith('"')
    return value if one_line and value else json.dumps(value)
