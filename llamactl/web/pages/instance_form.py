"""From an instance's options to what its form holds, and from what was typed to options.

A field that is left empty is not in the options at all: llama.cpp's default, or the setting's, is
what counts then. Flags that have no field of their own are lines among the extra arguments, and
other options that the form does not have are kept as they are when an instance is edited.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llamactl.secret import MASK
from llamactl.web.pages.flag_lines import flag_lines, flags_of, value_text
from llamactl.web.pages.instance_fields import InstanceForm, Typed

#: Fields whose value lies in ``backend_options``; the others lie beside it.
IN_BACKEND = frozenset(
    {
        "model",
        "ctx_size",
        "gpu_layers",
        "threads",
        "parallel",
        "flash_attn",
        "cache_type_k",
        "cache_type_v",
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


def with_backend(typed: Typed, backend_options: Mapping[str, Any]) -> dict[str, str]:
    """What was typed, but for llama-server's flags, which are these."""
    flags = values_of("", {"backend_options": backend_options})
    theirs = {*IN_BACKEND, "extra_args"}
    kept = {name: value for name, value in typed.items() if name not in theirs}
    return {**kept, **{name: flags[name] for name in theirs if name in flags}}


def values_of(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """What the fields hold for an instance that exists; values of variables are masked."""
    backend = dict(options.get("backend_options") or {})
    extra = backend.pop("extra_args", None) or {}
    values = {"name": name, "backend_type": str(options.get("backend_type", ""))}
    for field in (*IN_BACKEND, *NUMBERS, "group", "preset_ini", "command_override"):
        value = backend.pop(field, None) if field in IN_BACKEND else options.get(field)
        if value is not None:
            values[field] = value_text(value)
    values["aliases"] = ", ".join(options.get("aliases") or ())
    values["extra_args"] = "\n".join([*flag_lines(backend), *flag_lines(extra)])
    environment = options.get("environment") or {}
    values["environment"] = "\n".join(f"{variable}={MASK}" for variable in environment)
    values.update({box: "on" for box in ("on_demand_start", "auto_restart") if options.get(box)})
    return values


def options_json(
    form: InstanceForm, typed: Typed, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What was typed as the JSON that makes options; ``before`` is what is edited.

    Nothing is judged here: a number that is none goes on as text, and is refused by its name.
    Variables whose values were left masked have the mask for a value.
    """
    options = dict(before or {})
    backend: dict[str, Any] = {}
    for name in form.named():
        if name == "name":
            continue
        in_backend = name in IN_BACKEND or name == "extra_args"
        place = backend if in_backend else options
        value = _value(name, typed.get(name, "").strip())
        if value is None:
            place.pop(name, None)
        else:
            place[name] = value
    return {**options, "backend_options": backend}


def _value(name: str, text: str) -> object:
    """What ``text`` means in the field ``name``; None where it means nothing was said."""
    if name in {"on_demand_start", "auto_restart"}:
        return bool(text)
    if name == "aliases":
        return [part.strip() for part in text.split(",") if part.strip()]
    if name == "environment":
        return _variables(text)
    if not text:
        return None
    if name == "extra_args":
        return flags_of(text)
    return _number(text) if name in NUMBERS else text


def _number(text: str) -> int | float | str:
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def _variables(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if line.strip())
    return {name.strip(): value for name, _, value in pairs}
