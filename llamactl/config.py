"""Configuration: defaults, then .env, the YAML file, the environment, the command line.

``load_config`` gives a frozen ``Config`` or raises ``ConfigError`` that names file, line and key;
a start never goes on with a configuration that it did not understand.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llamactl.config_sources import (
    Found,
    config_file,
    read_dotenv,
    read_environment,
    read_file,
)
from llamactl.errors import ConfigError
from llamactl.parsing import is_switched_on
from llamactl.secret import Secret
from llamactl.settings import SETTINGS, Setting


@dataclass(frozen=True)
class ServerConfig:
    host: str
    port: int
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    trusted_proxies: tuple[str, ...]
    url_prefix: str
    threads: int
    accel: str | None


@dataclass(frozen=True)
class LlamaCppConfig:
    command: str | None
    args: tuple[str, ...]
    environment: Mapping[str, str]
    cache_dir: Path
    hub_dir: Path


@dataclass(frozen=True)
class DownloadsConfig:
    """Sizes in bytes, times in seconds."""

    max_concurrent: int
    connections: int
    bandwidth_limit: int | None
    min_free_space: int
    stall_timeout: float
    retry_limit: int


@dataclass(frozen=True)
class InstancesConfig:
    """Times in seconds, but for ``default_idle_timeout``, which is in minutes; sizes in bytes."""

    port_range: tuple[int, int]
    max_instances: int
    max_running_instances: int
    enable_lru_eviction: bool
    group_limits: Mapping[str, int]
    memory_admission: Literal["off", "warn", "enforce"]
    default_auto_restart: bool
    default_max_restarts: int
    default_restart_delay: float
    default_on_demand_start: bool
    default_idle_timeout: float
    on_demand_start_timeout: float
    wedged_after: float
    restart_wedged: bool
    logs_dir: Path
    log_rotation_max_size: int
    log_backups: int


@dataclass(frozen=True)
class AuthConfig:
    require_management_auth: bool
    require_inference_auth: bool
    management_keys: tuple[Secret, ...]
    metrics_key: Secret | None


@dataclass(frozen=True)
class GatewayConfig:
    """``max_streams`` is the number that holds, computed from the threads where it was not set."""

    max_waiting: int
    max_streams: int
    max_streams_per_key: int | None
    read_timeout: float
    max_body: int
    allow_remote_media: bool


@dataclass(frozen=True)
class SecurityConfig:
    allow_command_override: bool
    allow_dangerous_flags: bool
    allow_dangerous_environment: bool
    allow_insecure_bind: bool


@dataclass(frozen=True)
class HubConfig:
    """``token`` is ``HF_TOKEN`` alone; the file of ``hf auth login`` is read when needed."""

    endpoint: str
    token: Secret | None
    offline: bool


@dataclass(frozen=True)
class Config:
    """Everything that a start decides. ``source`` is the file that was used, if any."""

    server: ServerConfig
    data_dir: Path
    llama_cpp: LlamaCppConfig
    downloads: DownloadsConfig
    instances: InstancesConfig
    auth: AuthConfig
    gateway: GatewayConfig
    security: SecurityConfig
    hub: HubConfig
    source: Path | None

    @property
    def database_file(self) -> Path:
        """Jobs, instances, keys: whatever outlives the process."""
        return self.data_dir / "llamactl.db"

    @property
    def server_lock_file(self) -> Path:
        """Whoever works in the data directory holds it, and says there how to be reached."""
        return self.data_dir / "server.lock"


DEFAULT_ENDPOINT = "https://huggingface.co"
#: Threads that streams never take, so that pages, health and management stay quick.
RESERVED_THREADS = 16


def load_config(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Config:
    """Read the configuration.

    ``path`` is the command line's ``--config``; ``overrides`` maps dotted names to values that win
    over everything else. Raises ``ConfigError``.
    """
    environ = dict(os.environ if environ is None else environ)
    source = config_file(path, environ)
    dotenv = read_dotenv(source)
    variables = environ
    environ = {**dotenv, **environ}
    found = read_environment(dotenv, environ, ".env")
    if source is not None:
        found.update(read_file(source, environ))
    found.update(read_environment(variables, environ, "environment"))
    for name, value in (overrides or {}).items():
        found[name] = Found(value, f"command line: {name}")
    values = {setting.name: _parse(setting, found, environ) for setting in SETTINGS}
    config = _assemble(values, source, environ)
    _check(config, found)
    return config


def _parse(setting: Setting, found: Mapping[str, Found], environ: Mapping[str, str]) -> Any:
    raw = found.get(setting.name)
    if raw is None:
        raw = next(
            (
                Found(environ[variable], f"environment: {variable}")
                for variable in setting.fallback_variables
                if environ.get(variable)
            ),
            None,
        )
    if raw is None:
        return setting.default(environ)
    try:
        return setting.parse(raw.value, environ)
    except ValueError as error:
        raise ConfigError(f"{raw.where}: {error}") from error


def _assemble(values: Mapping[str, Any], source: Path | None, environ: Mapping[str, str]) -> Config:
    def section(prefix: str) -> dict[str, Any]:
        return {
            name.removeprefix(prefix + "."): value
            for name, value in values.items()
            if name.startswith(prefix + ".")
        }

    data_dir: Path = values["data_dir"]
    server = ServerConfig(**section("server"))
    instances = section("instances")
    instances["logs_dir"] = instances["logs_dir"] or data_dir / "logs"
    gateway = section("gateway")
    gateway["max_streams"] = gateway["max_streams"] or max(1, server.threads - RESERVED_THREADS)
    return Config(
        server=server,
        data_dir=data_dir,
        llama_cpp=LlamaCppConfig(**section("backends.llama-cpp")),
        downloads=DownloadsConfig(**section("downloads")),
        instances=InstancesConfig(**instances),
        auth=AuthConfig(**section("auth")),
        gateway=GatewayConfig(**gateway),
        security=SecurityConfig(**section("security")),
        hub=_hub(environ),
        source=source,
    )


def _hub(environ: Mapping[str, str]) -> HubConfig:
    endpoint = (environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"environment: HF_ENDPOINT: {endpoint!r} must begin with https://")
    if "@" in endpoint:
        # It would be sent instead of the token, and shown wherever the endpoint is.
        raise ConfigError("environment: HF_ENDPOINT: must not hold a user name or a password")
    token = environ.get("HF_TOKEN", "").strip()
    if any(not 32 < ord(character) < 127 for character in token):
        raise ConfigError("environment: HF_TOKEN: must be one word of plain characters")
    offline = is_switched_on(environ.get("HF_HUB_OFFLINE", ""))
    return HubConfig(endpoint=endpoint, token=Secret(token) if token else None, offline=offline)


def _check(config: Config, found: Mapping[str, Found]) -> None:
    """Refuse what each setting allows alone but not together."""

    def where(name: str) -> str:
        return found[name].where if name in found else f"default: {name}"

    open_to_all = not (config.auth.require_management_auth and config.auth.require_inference_auth)
    if open_to_all and not is_loopback(config.server.host):
        if config.security.allow_insecure_bind:
            return
        raise ConfigError(
            f"{where('server.host')}: {config.server.host} is reachable from other machines, and "
            "authentication is switched off",
            hint="Switch it on, bind 127.0.0.1, or set security.allow_insecure_bind.",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that is bound to ``host``."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
