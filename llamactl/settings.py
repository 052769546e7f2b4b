"""The one table of settings: names, variables, parsers, defaults, help.

``config.py`` reads configuration by it and the documentation is written from it, so that neither
can forget a setting. A parser takes what YAML or an environment variable gave and returns the value
that the program uses, or raises ``ValueError`` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llamactl import paths
from llamactl.parsing import (
    MINIMUM_KEY_LENGTH,
    Environ,
    Parser,
    arguments,
    boolean,
    byte_count,
    choice,
    directory,
    host,
    limits,
    number,
    optional,
    optional_text,
    origins,
    port_range,
    proxies,
    secret,
    secrets,
    texts,
    url_prefix,
    variables,
)


@dataclass(frozen=True)
class Setting:
    """One setting. ``name`` is its dotted path in the file."""

    name: str
    parse: Parser
    default: Callable[[Environ], Any]
    help: str
    shown_default: str
    aliases: tuple[str, ...] = ()
    fallback_variables: tuple[str, ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set it; the first that is set counts."""
        derived = "LLAMACTL_" + self.name.replace(".", "_").replace("-", "_").upper()
        return tuple(dict.fromkeys((*self.aliases, derived)))


def _constant(value: Any) -> Callable[[Environ], Any]:
    return lambda _environ: value


def _setting(
    name: str,
    parse: Parser,
    default: Any,
    help_text: str,
    *aliases: str,
    shown: str | None = None,
    fallback_variables: tuple[str, ...] = (),
) -> Setting:
    computed = default if callable(default) else _constant(default)
    if shown is None:
        shown = {True: "true", False: "false", None: "none", "": "empty", (): "none"}.get(
            default, str(default)
        )
    return Setting(name, parse, computed, help_text, shown, aliases, fallback_variables)


def _whole(low: float, high: float) -> Parser:
    return number(low, high, whole=True)


_seconds = number(0, 10**7, whole=False)

SETTINGS: tuple[Setting, ...] = (
    _setting("server.host", host, "127.0.0.1", "The address to listen on.", "LLAMACTL_HOST"),
    _setting(
        "server.port",
        _whole(0, 65535),
        8080,
        "The port to listen on; 0 takes a free one.",
        "LLAMACTL_PORT",
    ),
    _setting(
        "server.allowed_hosts",
        texts,
        (),
        "Further host names under which browsers and clients may reach the server. Loopback names, "
        "the bound address and other IP literals are always allowed.",
        "LLAMACTL_ALLOWED_HOSTS",
    ),
    _setting(
        "server.allowed_origins",
        origins,
        (),
        "Origins whose web pages may call /v1 (CORS), such as https://chat.example.",
        "LLAMACTL_ALLOWED_ORIGINS",
    ),
    _setting(
        "server.trusted_proxies",
        proxies,
        (),
        "Addresses or networks of reverse proxies whose X-Forwarded headers are believed.",
        "LLAMACTL_TRUSTED_PROXIES",
    ),
    _setting(
        "server.url_prefix",
        url_prefix,
        "",
        "The path under which a reverse proxy serves llamactl, such as /llamactl.",
        "LLAMACTL_URL_PREFIX",
    ),
    _setting(
        "server.threads",
        _whole(20, 4096),
        256,
        "Threads that answer requests; each running stream takes one.",
        "LLAMACTL_THREADS",
    ),
    _setting(
        "server.accel",
        optional(choice("nginx")),
        None,
        "`nginx`: nginx carries the bytes of inference answers, llamactl decides about each.",
        "LLAMACTL_ACCEL",
    ),
    _setting(
        "data_dir",
        directory,
        paths.default_data_dir,
        "The database, the management key and the logs.",
        "LLAMACTL_DATA_DIRECTORY",
        shown="`~/.local/share/llamactl`",
    ),
    _setting(
        "backends.llama-cpp.command",
        optional_text,
        None,
        "The llama-server program, a name on PATH or a path.",
        "LLAMACTL_LLAMACPP_COMMAND",
        shown="`llama-server` if it is on PATH, else the embedded llama.cpp",
    ),
    _setting(
        "backends.llama-cpp.args",
        arguments,
        (),
        "Arguments for every instance, before its own.",
        "LLAMACTL_LLAMACPP_ARGS",
    ),
    _setting(
        "backends.llama-cpp.environment",
        variables,
        lambda _environ: {},
        "Environment variables for every instance.",
        "LLAMACTL_LLAMACPP_ENV",
        shown="none",
    ),
    _setting(
        "backends.llama-cpp.cache_dir",
        directory,
        paths.default_cache_dir,
        "The flat cache: one file a name, as llama.cpp kept it until 2026.",
        "LLAMACTL_LLAMACPP_CACHE_DIR",
        fallback_variables=("LLAMA_CACHE",),
        shown="`LLAMA_CACHE`, else on Linux `$XDG_CACHE_HOME/llama.cpp` or `~/.cache/llama.cpp`, "
        "on macOS `~/Library/Caches/llama.cpp`, on Windows `%LOCALAPPDATA%\\llama.cpp\\cache`",
    ),
    _setting(
        "backends.llama-cpp.hub_dir",
        directory,
        paths.default_hub_dir,
        "The Hub cache: what today's `llama-server -hf` and `hf` read.",
        "LLAMACTL_HUB_DIR",
        shown="`LLAMA_CACHE`, `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME/hub`, "
        "`XDG_CACHE_HOME/huggingface/hub`, `~/.cache/huggingface/hub`, the first that is set",
    ),
    _setting("downloads.max_concurrent", _whole(1, 64), 2, "Jobs that download at the same time."),
    _setting("downloads.connections", _whole(1, 64), 8, "Connections for one job's files."),
    _setting(
        "downloads.bandwidth_limit",
        optional(byte_count(1024)),
        None,
        "Bytes per second for all downloads together, such as 20MB.",
    ),
    _setting(
        "downloads.min_free_space",
        byte_count(0),
        2**30,
        "Bytes that a download must leave free on the disk.",
        shown="1 GiB",
    ),
    _setting(
        "downloads.stall_timeout",
        number(0.1, 86400, whole=False),
        30.0,
        "Seconds without a byte after which a connection is opened anew.",
        shown="30 s",
    ),
    _setting(
        "downloads.retry_limit",
        _whole(0, 1000),
        8,
        "Failures in a row without a byte of progress after which a job has failed.",
    ),
    _setting(
        "instances.port_range",
        port_range,
        (8000, 9000),
        "The ports of the instances, on loopback.",
        "LLAMACTL_INSTANCE_PORT_RANGE",
        shown="8000-9000",
    ),
    _setting(
        "instances.max_instances",
        _whole(-1, 100_000),
        -1,
        "Instances that may exist; -1 is no limit.",
        "LLAMACTL_MAX_INSTANCES",
    ),
    _setting(
        "instances.max_running_instances",
        _whole(-1, 100_000),
        -1,
        "Instances that may run at the same time; -1 is no limit.",
        "LLAMACTL_MAX_RUNNING_INSTANCES",
    ),
    _setting(
        "instances.enable_lru_eviction",
        boolean,
        True,
        "Stop the least recently used idle instance when another one must start.",
        "LLAMACTL_ENABLE_LRU_EVICTION",
    ),
    _setting(
        "instances.group_limits",
        limits,
        lambda _environ: {},
        "For a group of instances, how many of it may run at the same time.",
        "LLAMACTL_GROUP_LIMITS",
        shown="{}",
    ),
    _setting(
        "instances.memory_admission",
        choice("off", "warn", "enforce"),
        "warn",
        "Before a start compare the memory that it takes by estimate with what is free, and stop "
        "idle instances for it. Where that is not enough, `warn` starts all the same and `enforce` "
        "does not; `off` does not look.",
    ),
    _setting(
        "instances.default_auto_restart",
        boolean,
        True,
        "Start an instance again after a crash.",
        "LLAMACTL_DEFAULT_AUTO_RESTART",
    ),
    _setting(
        "instances.default_max_restarts",
        _whole(0, 1_000_000),
        3,
        "Restarts in a row after crashes; one more crash and the instance has failed.",
        "LLAMACTL_DEFAULT_MAX_RESTARTS",
    ),
    _setting(
        "instances.default_restart_delay",
        _seconds,
        5.0,
        "Seconds before the first restart; doubled for each further one.",
        "LLAMACTL_DEFAULT_RESTART_DELAY",
        shown="5 s",
    ),
    _setting(
        "instances.default_on_demand_start",
        boolean,
        True,
        "Start a stopped instance when a request for it comes.",
        "LLAMACTL_DEFAULT_ON_DEMAND_START",
    ),
    _setting(
        "instances.default_idle_timeout",
        number(0, 10**6, whole=False),
        30.0,
        "Minutes without a request after which an instance is stopped; 0 never; fractions count.",
        "LLAMACTL_DEFAULT_IDLE_TIMEOUT",
        shown="30 min",
    ),
    _setting(
        "instances.on_demand_start_timeout",
        number(0.1, 10**6, whole=False),
        120.0,
        "Seconds that a request waits for its instance; the load itself goes on.",
        "LLAMACTL_ON_DEMAND_START_TIMEOUT",
        shown="120 s",
    ),
    _setting(
        "instances.wedged_after",
        number(0, 10**6, whole=False),
        600.0,
        "Seconds in which an instance serves requests and gets no token further, after which it "
        "counts as wedged; 0 never.",
        shown="600 s",
    ),
    _setting(
        "instances.restart_wedged",
        boolean,
        False,
        "Restart an instance that is wedged, if its auto_restart is on.",
    ),
    _setting(
        "instances.logs_dir",
        optional(directory),
        None,
        "What the instances write.",
        "LLAMACTL_LOGS_DIR",
        shown="`data_dir`/logs",
    ),
    _setting(
        "instances.log_rotation_max_size",
        byte_count(4096),
        100 * 10**6,
        "Size at which a log is rotated.",
        "LLAMACTL_LOG_ROTATION_MAX_SIZE",
        shown="100 MB",
    ),
    _setting(
        "instances.log_backups",
        _whole(0, 1000),
        3,
        "Rotated logs that are kept for each instance.",
        "LLAMACTL_LOG_BACKUPS",
    ),
    _setting(
        "auth.require_management_auth",
        boolean,
        True,
        "Ask for a management key on pages and /api/v1.",
        "LLAMACTL_REQUIRE_MANAGEMENT_AUTH",
    ),
    _setting(
        "auth.require_inference_auth",
        boolean,
        True,
        "Ask for a key on /v1.",
        "LLAMACTL_REQUIRE_INFERENCE_AUTH",
    ),
    _setting(
        "auth.management_keys",
        secrets,
        (),
        f"Management keys, each of at least {MINIMUM_KEY_LENGTH} characters.",
        "LLAMACTL_MANAGEMENT_KEYS",
        shown="one made at the first start, kept in `data_dir`/management.key",
    ),
    _setting(
        "auth.metrics_key",
        optional(secret),
        None,
        "A key that opens /metrics and nothing else.",
        "LLAMACTL_METRICS_KEY",
    ),
    _setting(
        "gateway.max_waiting",
        _whole(0, 100_000),
        64,
        "Requests that may wait for one starting instance; further ones are told 429.",
    ),
    _setting(
        "gateway.max_streams",
        optional(_whole(1, 4096)),
        None,
        "Inference requests that may run at the same time.",
        shown="threads less 16",
    ),
    _setting(
        "gateway.max_streams_per_key",
        optional(_whole(1, 4096)),
        None,
        "Inference requests that one key may run at the same time.",
    ),
    _setting(
        "gateway.read_timeout",
        number(0.1, 10**6, whole=False),
        900.0,
        "Seconds without a byte after which an instance's answer is given up.",
        shown="900 s",
    ),
    _setting(
        "gateway.max_body",
        byte_count(1024),
        32 * 2**20,
        "Bytes that an inference request may have.",
        shown="32 MiB",
    ),
    _setting(
        "gateway.allow_remote_media",
        boolean,
        False,
        "Let requests name images and audio by URL, which the instance then fetches.",
    ),
    _setting(
        "security.allow_command_override",
        boolean,
        False,
        "Let an instance name the program that it runs.",
    ),
    _setting(
        "security.allow_dangerous_flags",
        boolean,
        False,
        "Let instances use flags that reach files, programs or the network beyond the model.",
    ),
    _setting(
        "security.allow_dangerous_environment",
        boolean,
        False,
        "Let instances set variables that change what a program loads or where it connects.",
    ),
    _setting(
        "security.allow_insecure_bind",
        boolean,
        False,
        "Listen beyond loopback without authentication.",
    ),
)
