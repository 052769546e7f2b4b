"""What an instance is asked to be: ``Options``, read from JSON and written to it. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

from llamactl.config import Config
from llamactl.errors import InvalidInstanceName, InvalidRequest, UnsupportedBackend
from llamactl.instances import values
from llamactl.instances.flags import RESERVED, Flag, dashes, lookup, nearest
from llamactl.instances.permissions import check_permitted
from llamactl.instances.values import Value

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}")
RESERVED_NAMES = frozenset({"new"})
_FLAG_NAME = re.compile(r"-{0,2}[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ALIAS = re.compile(r"[!-~]{1,200}")
_REFERENCE = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*(:[A-Za-z0-9][\w.-]*)?", re.ASCII)
_SOURCES = ("model", "hf_repo", "model_url", "docker_repo")
#: Options of the Go llamactl that mean nothing here; tolerated where they ask for nothing.
_FOREIGN_FIELDS = frozenset({"docker_enabled"})


class OptionsJson(TypedDict):
    """How an instance runs. `idle_timeout` is in minutes (0: never), `restart_delay` in seconds.

    `backend_options` has llama-server's long flags with underscores, and `extra_args` for others.
    """

    backend_type: str
    backend_options: dict[str, Any]
    aliases: list[str]
    auto_restart: bool
    max_restarts: int
    restart_delay: float
    on_demand_start: bool
    idle_timeout: float
    environment: dict[str, str]
    command_override: str | None
    group: str | None
    preset_ini: str | None
    nodes: list[str]


@dataclass(frozen=True)
class Options:
    """How an instance runs: ``idle_timeout`` in minutes (0: never), ``restart_delay`` in seconds.

    ``backend_options`` has llama-server's long flags with underscores; ``extra_args`` flags that
    this table of flags does not know, as they were written.
    """

    backend_options: Mapping[str, Value] = field(default_factory=dict)
    extra_args: Mapping[str, Value] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    auto_restart: bool = True
    max_restarts: int = 3
    restart_delay: float = 5.0
    on_demand_start: bool = True
    idle_timeout: float = 30.0
    environment: Mapping[str, str] = field(default_factory=dict)
    command_override: str | None = None
    group: str | None = None
    preset_ini: str | None = None
    nodes: tuple[str, ...] = ()
    backend_type: str = "llama_cpp"

    @classmethod
    def from_json(cls, raw: Any, config: Config) -> Options:
        """Options from a request's JSON, with the configured defaults for what it leaves out.

        Raises ``InvalidRequest`` naming the field, also for what the configuration does not allow.
        """
        options = cls.parse(raw, config)
        check_permitted(options, config.security)
        return options

    @classmethod
    def parse(cls, raw: Any, config: Config) -> Options:
        """The same without asking what is allowed: for options that were stored."""
        given = values.mapping(raw, "the body")
        _refuse_unknown(given)
        _check_backend(given.get("backend_type", "llama_cpp"))
        flags, extra = _read_flags(values.mapping(given.get("backend_options"), "backend_options"))
        defaults = config.instances

        def optional(name: str) -> str | None:
            return None if given.get(name) in (None, "") else values.text(given[name], name)

        def or_default(name: str) -> Any:
            chosen = given.get(name)
            return getattr(defaults, f"default_{name}") if chosen is None else chosen

        return cls(
            backend_options=flags,
            extra_args=extra,
            aliases=_aliases(given.get("aliases")),
            auto_restart=values.truth(or_default("auto_restart"), "auto_restart"),
            max_restarts=values.integer(
                or_default("max_restarts"), "max_restarts", low=0, strict=True
            ),
            restart_delay=values.number(
                or_default("restart_delay"), "restart_delay", low=0, strict=True
            ),
            on_demand_start=values.truth(or_default("on_demand_start"), "on_demand_start"),
            idle_timeout=values.number(
                or_default("idle_timeout"), "idle_timeout", low=0, strict=True
            ),
            environment=_environment(given.get("environment")),
            command_override=optional("command_override"),
            group=optional("group"),
            preset_ini=optional("preset_ini"),
            nodes=_nodes(given.get("nodes")),
        )

    def to_json(self) -> OptionsJson:
        """The JSON that ``from_json`` reads back to the same options."""
        backend_options: dict[str, Any] = {}
        for key, value in self.backend_options.items():
            found = lookup(key)
            off = found[0].off if found and value is False else ""
            if off and off != f"no-{key.replace('_', '-')}":
                backend_options[off.replace("-", "_")] = True
            else:
                backend_options[key] = list(value) if isinstance(value, tuple) else value
        if self.extra_args:
            backend_options["extra_args"] = {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in self.extra_args.items()
            }
        return {
            "backend_type": self.backend_type,
            "backend_options": backend_options,
            "aliases": list(self.aliases),
            "auto_restart": self.auto_restart,
            "max_restarts": self.max_restarts,
            "restart_delay": self.restart_delay,
            "on_demand_start": self.on_demand_start,
            "idle_timeout": self.idle_timeout,
            "environment": dict(self.environment),
            "command_override": self.command_override,
            "group": self.group,
            "preset_ini": self.preset_ini,
            "nodes": list(self.nodes),
        }

    def option(self, key: str) -> Value | None:
        """The value of one of llama-server's flags, or None where it is left alone."""
        return self.backend_options.get(key)

    def text_option(self, key: str) -> str | None:
        """The same for a flag whose value is text."""
        value = self.backend_options.get(key)
        return value if isinstance(value, str) else None

    @property
    def is_router(self) -> bool:
        """Whether llama-server is to run without a model of its own, in router mode."""
        ready_made = any(key.endswith(("_default", "_spec")) for key in self.backend_options)
        named = any(self.option(key) for key in _SOURCES)
        return not named and not ready_made

    @property
    def hub_repos(self) -> tuple[str, ...]:
        """The repositories that llama-server itself reads from the Hugging Face Hub."""
        named = (self.text_option(key) for key in ("hf_repo", "spec_draft_hf"))
        return tuple(repo for repo in named if repo is not None)

    @property
    def wants_hub(self) -> bool:
        """Whether llama-server itself reads from the Hugging Face Hub."""
        return bool(self.hub_repos)


def check_name(name: str) -> str:
    """The name itself if an instance may have it, else ``InvalidInstanceName``."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise InvalidInstanceName(
            f"{str(name)[:60]!r} cannot be an instance's name",
            hint="Use 1 to 50 letters, digits, '.', '_' and '-', beginning with a letter or a "
            "digit; `new` is taken.",
            field="name",
        )
    return name


def is_reference(model: str) -> bool:
    """Whether ``model`` means a cached model ``org/name[:tag]`` rather than a path."""
    return bool(_REFERENCE.fullmatch(model)) and not model.lower().endswith(".gguf")


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    known = [each.name for each in fields(Options) if each.name != "extra_args"]
    for name, value in given.items():
        if name in known or (name in _FOREIGN_FIELDS and not value):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        raise InvalidRequest(
            f"{name[:60]!r} is not an option of an instance",
            hint=f"Did you mean {close[0]}?"
            if close
            else "llama-server's flags go into backend_options.",
            field=name,
        )


def _check_backend(raw: Any) -> None:
    if raw is not None and str(raw).replace("-", "_").replace(".", "_").lower() != "llama_cpp":
        raise UnsupportedBackend(
            f"The backend {str(raw)[:40]!r} is not supported",
            hint="Use llama_cpp.",
            field="backend_type",
        )


def _read_flags(given: Mapping[str, Any]) -> tuple[dict[str, Value], dict[str, Value]]:
    flags: dict[str, Value] = {}
    for key, raw in given.items():
        if key == "extra_args" or raw is None:
            continue
        where = f"backend_options.{key}"
        found = None if key.startswith("-") else lookup(key)
        if found is None:
            raise _unknown(key, where)
        _add(flags, found[0], found[1], raw, where)
    extra: dict[str, Value] = {}
    for name, raw in values.mapping(given.get("extra_args"), "backend_options.extra_args").items():
        where = f"backend_options.extra_args.{name}"
        if not _FLAG_NAME.fullmatch(name):
            raise InvalidRequest(f"{name[:60]!r} is not the name of a flag", field=where)
        found = lookup(name)
        if found is not None:
            _add(flags, found[0], found[1], True if raw is None else raw, where)
        else:
            extra[dashes(name)] = _extra_value(raw, where)
    return flags, extra


def _add(flags: dict[str, Value], flag: Flag, negated: bool, raw: Any, where: str) -> None:
    if flag.name in RESERVED:
        raise InvalidRequest(
            f"{where} cannot be set: {RESERVED[flag.name]}", hint="Leave it out.", field=where
        )
    if flag.key in flags:
        raise InvalidRequest(f"{where}: --{flag.name} is given twice", field=where)
    value = values.flag_value(flag, raw, where)
    flags[flag.key] = not value if negated else value


def _unknown(key: str, where: str) -> InvalidRequest:
    close = nearest(key)
    return InvalidRequest(
        f"{where} is not a flag of llama-server that llamactl knows",
        hint=(f"Did you mean {close.replace('-', '_')}? " if close else "")
        + "Flags that llamactl does not know go into extra_args.",
        field=where,
    )


def _extra_value(raw: Any, where: str) -> Value:
    if raw is None or isinstance(raw, bool):
        return raw is not False
    if isinstance(raw, (list, tuple)):
        return tuple(values.argument(item, where) for item in raw)
    return values.argument(raw, where)


def _aliases(raw: Any) -> tuple[str, ...]:
    aliases = values.texts(raw, "aliases")
    for alias in aliases:
        if not _ALIAS.fullmatch(alias):
            raise InvalidRequest(
                f"The alias {alias[:60]!r} must be one word of up to 200 plain characters",
                field="aliases",
            )
    return tuple(dict.fromkeys(aliases))


def _environment(raw: Any) -> dict[str, str]:
    variables: dict[str, str] = {}
    for name, value in values.mapping(raw, "environment").items():
        where = f"environment.{name[:60]}"
        if not _VARIABLE.fullmatch(name):
            raise InvalidRequest(f"{where} is not the name of a variable", field=where)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = values.number_text(value)
        variables[name] = "" if value == "" else values.text(value, where)
    return variables


def _nodes(raw: Any) -> tuple[str, ...]:
    nodes = values.texts(raw, "nodes")
    if set(nodes) - {"local", "main"}:
        raise InvalidRequest(
            "Instances run on this machine only", hint="Leave nodes out.", field="nodes"
        )
    return nodes
