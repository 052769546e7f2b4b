"""llama-server inside ``xllamacpp``, for machines that have no llama-server of their own.

It takes llama-server's usual flags (``embedded_flags.py`` lists them) and the key from
``LLAMA_API_KEY``. The server listens at once and answers 503 until its model is loaded. It runs as
a process of its own, like the real one: a crash takes nothing with it, and its memory goes back.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

if not __package__:  # run as a file, isolated: the package lies two folders up
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from llamactl.errors import LlamactlError
from llamactl.instances.embedded_flags import (
    Setting,
    documented,
    read_settings,
    words_of,
)
from llamactl.instances.hints import HOW_TO_INSTALL

PROGRAM = "llamactl-llama-server"
#: The sampling flags that a model's own defaults must not override, and how llama.cpp calls them.
_CHOSEN = {
    "samplers": "SAMPLERS",
    "top-k": "TOP_K",
    "top-p": "TOP_P",
    "min-p": "MIN_P",
    "xtc-probability": "XTC_PROBABILITY",
    "xtc-threshold": "XTC_THRESHOLD",
    "temp": "TEMP",
    "repeat-last-n": "PENALTY_LAST_N",
    "repeat-penalty": "PENALTY_REPEAT",
    "mirostat": "MIROSTAT",
    "mirostat-ent": "MIROSTAT_TAU",
    "mirostat-lr": "MIROSTAT_ETA",
}


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 1 if the model cannot be loaded, 2 for flags that cannot be honoured."""
    words = sys.argv[1:] if argv is None else argv
    for flag, told in _TOLD.items():
        if flag in words:
            sys.stdout.write(told() + "\n")
            return 0
    try:
        params = _params(read_settings(words))
    except (LlamactlError, ImportError) as error:
        _report(f"{PROGRAM}: {error}")
        return 2
    except (RuntimeError, ValueError, OSError) as error:
        _report(f"{PROGRAM} could not start: {error}")
        return 1
    try:
        server = _start(params)
    except RuntimeError as error:
        _write_out_log()
        _report(f"{PROGRAM} could not start with {params.model.path}: {error}")
        return 1
    return _serve_until_signal(server)


def _params(settings: list[Setting]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.port = 8080
    if not any(setting.flag.name == "parallel" for setting in settings):
        # What llama-server does when nothing is said of it.
        params.n_parallel, params.kv_unified = 4, True
    if key := os.environ.get("LLAMA_API_KEY"):
        params.api_keys = key.split(",")
    for setting in settings:
        _apply(xllamacpp, params, setting)
    return params


def _apply(xllamacpp: Any, params: Any, setting: Setting) -> None:
    name, turn, value = setting.flag.name, setting.flag.turn, setting.value
    if turn == "adapters":
        value = [*params.lora_adapters, *_adapters(xllamacpp, [(path, 1.0) for path in value])]
    elif turn == "scaled_adapters":
        pairs = [item.rpartition(":") for item in value]
        scaled = [(path, float(scale)) for path, _, scale in pairs]
        value = [*params.lora_adapters, *_adapters(xllamacpp, scaled)]
    elif turn == "file":
        value = Path(value).read_text(encoding="utf-8")
    elif turn == "reranking":
        params.embedding = True
        params.pooling_type = _constant(xllamacpp, "LLAMA_POOLING_TYPE_RANK")
        return
    else:
        value = words_of(turn, value, lambda constant: _constant(xllamacpp, constant))
    for target in setting.flag.targets:
        owner, _, attribute = target.rpartition(".")
        setattr(getattr(params, owner) if owner else params, attribute, value)
    if name in _CHOSEN:
        bits = xllamacpp.common_params_sampling_config
        bit = bits[f"COMMON_PARAMS_SAMPLING_CONFIG_{_CHOSEN[name]}"]
        params.sampling.user_sampling_config |= bit


def _adapters(xllamacpp: Any, pairs: list[tuple[str, float]]) -> list[Any]:
    return [xllamacpp.CommonAdapterLoraInfo(path, scale) for path, scale in pairs]


def _constant(xllamacpp: Any, name: str) -> Any:
    """One of llama.cpp's constants; its enumeration is the one that has a member of that name."""
    for enumeration in vars(xllamacpp).values():
        members = getattr(enumeration, "__members__", {})
        if name in members:
            return members[name]
    raise ValueError(f"llama.cpp knows no {name}")


def _start(params: Any) -> Any:
    """The running server, once its model is loaded.

    It holds the interpreter's lock while it loads, so that no handler of ours could run: until then
    SIGTERM does what it does by default, which is the end at once.
    """
    import xllamacpp

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return xllamacpp.Server(params)


def _write_out_log() -> None:
    """Wait for the thread that writes llama.cpp's log; the end of the process would cut it short.

    The wheel has no name for this in Python; a build without it keeps what was written so far.
    """
    from xllamacpp import xllamacpp

    try:
        library = ctypes.CDLL(xllamacpp.__file__)
        log, flush = library._Z15common_log_mainv, library._Z16common_log_flushP10common_log
    except (OSError, AttributeError):
        return
    log.restype, flush.argtypes, flush.restype = ctypes.c_void_p, [ctypes.c_void_p], None
    flush(log())


def _serve_until_signal(server: Any) -> NoReturn:
    """End the process with 0 at SIGTERM or SIGINT.

    Not by ending ``server``: that waits for the ends of all streams, however long they are, and
    holds the interpreter's lock meanwhile.
    """

    def stop(*_: object) -> None:
        _report(f"{PROGRAM} stops {server.listening_address}")
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while True:
        signal.pause()


def _version() -> str:
    try:
        import xllamacpp
    except ImportError:
        return "version: none (xllamacpp is not installed)"
    return f"version: {xllamacpp.__version__} (xllamacpp, llama.cpp on the processor)"


def _help() -> str:
    lines = [f"{PROGRAM}: llama.cpp's server inside llamactl, on the processor.", ""]
    lines += [f"{flag:<28} {target}" for flag, target in documented()]
    lines += ["", "Short forms and other names are llama-server's own.", HOW_TO_INSTALL]
    return "\n".join(lines)


def _devices() -> str:
    import xllamacpp

    devices = xllamacpp.get_device_info()
    lines = [f"  {each['name']}: {each['description']}" for each in devices]
    return "\n".join(["Available devices:", *lines])


_TOLD = {
    "--version": _version,
    "--help": _help,
    "-h": _help,
    "--usage": _help,
    "--list-devices": _devices,
}


def _report(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
