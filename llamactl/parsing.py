"""From what YAML or a variable gave to what the program uses, one parser a kind of value.

A parser raises ``ValueError`` whose text reads on from the setting's name: "must be …".
"""

from __future__ import annotations

import ipaddress
import json
import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llamactl import paths
from llamactl.secret import Secret

Environ = Mapping[str, str]
Parser = Callable[[Any, Environ], Any]

#: Keys shorter than this could be guessed.
MINIMUM_KEY_LENGTH = 32


def boolean(value: Any, _environ: Environ) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in {"true", "yes", "on", "1"}:
        return True
    if isinstance(value, str) and value.strip().lower() in {"false", "no", "off", "0"}:
        return False
    raise ValueError("must be true or false")


def is_switched_on(text: str) -> bool:
    """Whether a variable of ``huggingface_hub`` (``HF_HUB_OFFLINE`` and the like) says yes."""
    return text.strip().upper() in {"1", "ON", "YES", "TRUE"}


def text(value: Any, _environ: Environ) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("must not contain control characters")
    return value


def optional_text(value: Any, environ: Environ) -> str | None:
    return None if value is None or value == "" else text(value, environ)


def number(low: float, high: float, *, whole: bool) -> Parser:
    def parse(value: Any, _environ: Environ) -> float | int:
        if isinstance(value, str):
            try:
                value = int(value, 10) if whole else float(value)
            except ValueError:
                kind = "a whole number" if whole else "a number"
                raise ValueError(f"must be {kind}") from None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError("must be a number")
        if whole and isinstance(value, float) and not value.is_integer():
            raise ValueError("must be a whole number")
        if math.isnan(value) or not low <= value <= high:
            raise ValueError(f"must lie between {low:g} and {high:g}")
        return int(value) if whole else float(value)

    return parse


def optional(parse: Parser) -> Parser:
    def parse_optional(value: Any, environ: Environ) -> Any:
        if value is None or (isinstance(value, str) and value.strip().lower() in {"", "none"}):
            return None
        return parse(value, environ)

    return parse_optional


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def byte_count(low: int) -> Parser:
    def parse(value: Any, environ: Environ) -> int:
        if isinstance(value, str):
            text = value.strip().upper().removesuffix("/S").removesuffix("B").strip()
            digits = text.rstrip("KMGTI").strip()
            unit = text[len(digits) :].strip()
            try:
                value = float(digits) * _UNITS[unit]
            except (KeyError, ValueError, OverflowError):
                raise ValueError("must be a number of bytes, such as 20MB or 1GiB") from None
            if not math.isfinite(value):
                raise ValueError("must be a finite number of bytes")
            value = int(value)
        if isinstance(value, (int, float)) and value < low:
            raise ValueError(f"must be at least {low:,} bytes; units make it shorter, such as 20MB")
        return int(number(low, 2**62, whole=True)(value, environ))

    return parse


def texts(value: Any, _environ: Environ) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of texts")
    return tuple(value)


def arguments(value: Any, environ: Environ) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(shlex.split(value))
    if isinstance(value, list):
        value = [str(item) if isinstance(item, (int, float)) else item for item in value]
    return texts(value, environ)


def variables(value: Any, _environ: Environ) -> dict[str, str]:
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(separator for _name, separator, _value in pairs):
            raise ValueError("must look like NAME=VALUE,OTHER=VALUE")
        value = {name.strip(): content for name, _separator, content in pairs}
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of names to texts")
    result = {}
    for name, content in value.items():
        if not isinstance(name, str) or isinstance(content, (dict, list)) or content is None:
            raise ValueError("must be a mapping of names to texts")
        result[name] = str(content)
    return result


def limits(value: Any, environ: Environ) -> dict[str, int]:
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except ValueError:
            value = variables(value, environ)
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of group names to numbers")
    whole = number(1, 10_000, whole=True)
    return {str(name): int(whole(limit, environ)) for name, limit in value.items()}


def directory(value: Any, environ: Environ) -> Path:
    content = text(value, environ)
    if not content:
        raise ValueError("must not be empty")
    return paths.expand(content, environ).absolute()


def host(value: Any, environ: Environ) -> str:
    content = text(value, environ)
    if not content or any(character.isspace() or character in "/@?#" for character in content):
        raise ValueError("must be an address or a host name")
    return content.removeprefix("[").removesuffix("]")


def port_range(value: Any, environ: Environ) -> tuple[int, int]:
    if isinstance(value, str):
        value = [part.strip() for part in value.replace(",", "-").split("-")]
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("must be two ports, such as [8000, 9000] or 8000-9000")
    whole = number(1, 65535, whole=True)
    low, high = (int(whole(port, environ)) for port in value)
    if low > high:
        raise ValueError("must begin with the smaller port")
    return low, high


def proxies(value: Any, environ: Environ) -> tuple[str, ...]:
    names = texts(value, environ)
    for name in names:
        try:
            ipaddress.ip_network(name, strict=False)
        except ValueError:
            raise ValueError(f"{name!r} is not an address or a network") from None
    return names


def origins(value: Any, environ: Environ) -> tuple[str, ...]:
    names = texts(value, environ)
    for name in names:
        if not name.startswith(("http://", "https://")) or name.endswith("/") or "*" in name:
            raise ValueError(f"{name!r} is not an origin such as https://chat.example")
    return names


def url_prefix(value: Any, environ: Environ) -> str:
    content = text(value, environ).rstrip("/")
    if content and (
        not content.startswith("/") or any(c in content for c in "?#%\\ ") or "//" in content
    ):
        raise ValueError("must look like /llamactl")
    return content


def choice(*allowed: str) -> Parser:
    def parse(value: Any, _environ: Environ) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of: {', '.join(allowed)}")
        return str(value)

    return parse


def secret(value: Any, environ: Environ) -> Secret:
    content = text(value, environ)
    if len(content) < MINIMUM_KEY_LENGTH:
        raise ValueError(f"must have at least {MINIMUM_KEY_LENGTH} characters")
    return Secret(content)


def secrets(value: Any, environ: Environ) -> tuple[Secret, ...]:
    return tuple(secret(item, environ) for item in texts(value, environ))
