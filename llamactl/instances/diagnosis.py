"""Why a process ended, in plain words, and what to do about it. Pure.

The patterns are what llama.cpp, its GPU libraries and the kernel print; the order is from the
specific to the general, because a log often has several of them.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """``permanent``: a new start without a change would end the same way."""

    code: str
    message: str
    hint: str
    permanent: bool


@dataclass(frozen=True)
class _Rule:
    code: str
    pattern: re.Pattern[str]
    message: str
    hint: str
    permanent: bool


def _rule(code: str, pattern: str, message: str, hint: str, *, permanent: bool = True) -> _Rule:
    return _Rule(code, re.compile(pattern, re.IGNORECASE), message, hint, permanent)


#: A process may end in the middle of a line; what it had written of it tells nobody anything.
_WORD = re.compile(r"[^\W\d_]{2}")
_UPDATE = "Update llama.cpp, or use a model that this version knows."
_AGAIN = "Download the model again; `llamactl models verify` names what is damaged."

_RULES = (
    _rule(
        "cannot_run",
        r"llamactl: cannot run (.*)",
        "the program cannot be run: {0}",
        "Check backends.llama-cpp.command or the instance's command_override.",
    ),
    _rule(
        "missing_library",
        r"error while loading shared libraries: ([^:]+)",
        "llama-server needs the library {0}, which is not on this machine",
        "Install it, or install another build of llama-server.",
    ),
    _rule(
        "unsupported_flag",
        r"llamactl-llama-server: (.*)",
        "{0}",
        "",
    ),
    _rule(
        "unknown_flag",
        r"error: (?:invalid|unknown) argument: (\S+)",
        "llama-server does not know the flag {0}",
        "Its name may have changed: `llama-server --help` lists today's.",
    ),
    _rule(
        "bad_value",
        r"error while handling argument \"?([^\":]+)\"?: (.*)",
        "llama-server refuses the value of {0}: {1}",
        "Change it in the instance's options.",
    ),
    _rule(
        "bad_value",
        r"((?:K|V) cache (?:type|quantization) .*)",
        "the cache types do not suit this model: {0}",
        "Leave out cache_type_k and cache_type_v.",
    ),
    _rule(
        "port_taken",
        r"couldn'?t bind|address already in use|bind: .*in use",
        "its port was taken by another program",
        "Start it again, or change instances.port_range.",
        permanent=False,
    ),
    _rule(
        "out_of_memory",
        r"out of (?:device )?memory|ErrorOutOfDeviceMemory|failed to allocate|unable to allocate"
        r"|bad_alloc|cannot allocate memory|failed to create context|alloc_tensor_range: failed",
        "there is not enough memory for it",
        "Lower ctx_size or gpu_layers, take a smaller quantisation, or stop another instance.",
        permanent=False,
    ),
    _rule(
        "missing_shard",
        r"invalid split|failed to load GGUF split from|missing split|split file",
        "a part of the model is missing or does not belong to it",
        _AGAIN,
    ),
    _rule(
        "no_such_file",
        r"(?:failed to open|cannot open|can't open)[^']*'?([^'\n]*?)'? ?[(:] ?no such file",
        "there is no file {0}",
        "Check the path, or name a downloaded model as org/name:tag.",
    ),
    _rule(
        "permission_denied",
        r"(?:failed to open|cannot open)[^']*'?([^'\n]*?)'? ?[(:] ?permission denied",
        "the file {0} may not be read",
        "Change its permissions so that llamactl's user may read it.",
    ),
    _rule(
        "not_gguf",
        r"invalid magic|bad magic|not a gguf",
        "the model's file is no GGUF",
        "llama.cpp loads GGUF files only; download the model's GGUF version.",
    ),
    _rule(
        "unsupported_architecture",
        r"unknown (?:model )?architecture:? '?([^'\s]+)",
        "this llama.cpp does not know the architecture {0}",
        _UPDATE,
    ),
    _rule(
        "unsupported_version",
        r"unsupported (?:file|gguf) version|unknown (?:tensor|ggml|pre-tokenizer) type",
        "the model is of a kind that this llama.cpp does not know yet",
        _UPDATE,
    ),
    _rule(
        "damaged",
        r"data is not within the file bounds|corrupted or incomplete|tensor '[^']+' (?:not found|"
        r"has invalid)|missing tensor|wrong number of tensors|failed to read|unexpected end"
        r"|unknown model architecture: ''",
        "the model's file is damaged or not whole",
        _AGAIN,
    ),
    _rule(
        "hub",
        r"(?:401|403).*(?:unauthorized|forbidden|gated)|(?:unauthorized|gated|forbidden).*hugging"
        r"|failed to download|error from HF|failed to get (?:manifest|repo)",
        "llama-server could not get the model from the hub",
        "Check hf_repo, the network and HF_TOKEN, or download the model with llamactl first.",
        permanent=False,
    ),
)


def wedged(seconds: float) -> Diagnosis:
    """Of an instance that answers and gets no further."""
    return Diagnosis(
        "wedged",
        f"it served requests for {seconds:.0f} seconds and got no token further",
        "Its log may tell why. If its model only takes that long, raise instances.wedged_after.",
        permanent=False,
    )


_SIGNALS = {
    signal.SIGKILL: (
        "killed",
        "it was killed (SIGKILL); most often the system had no memory left",
        "Look at the system's log for the out-of-memory killer; lower ctx_size or gpu_layers.",
    ),
    signal.SIGILL: (
        "illegal_instruction",
        "this build of llama-server uses instructions that this processor does not have",
        "Install a build for this processor.",
    ),
    signal.SIGSEGV: (
        "crashed",
        "llama-server crashed (SIGSEGV)",
        "Another version of llama.cpp may help; the log has its last words.",
    ),
    signal.SIGABRT: (
        "crashed",
        "llama-server gave up (SIGABRT)",
        "The log has the reason in its last lines.",
    ),
}


def diagnose(exit_code: int | None, lines: Sequence[str]) -> Diagnosis:
    """What the exit code and the last lines of output say.

    ``exit_code`` is negative for a signal and None for a process that had to be given up.
    """
    output = "\n".join(lines)
    for rule in _RULES:
        if found := rule.pattern.search(output):
            groups = [group.strip() if group else "?" for group in found.groups()]
            hint = rule.hint
            return Diagnosis(rule.code, rule.message.format(*groups), hint, rule.permanent)
    if exit_code is None:
        hint = "Look at its log; stop whatever else keeps the disk or the GPU busy."
        return Diagnosis("stalled", "it made no progress while it was loading", hint, False)
    if exit_code < 0:
        return _killed(-exit_code)
    last = next((line.strip() for line in reversed(lines) if _WORD.search(line)), "")
    said = f"; its last words: {last[:300]}" if last else ""
    hint = "The log shows what came before."
    return Diagnosis("exited", f"it ended with exit code {exit_code}{said}", hint, False)


def _killed(number: int) -> Diagnosis:
    try:
        name = signal.Signals(number)
    except ValueError:
        return Diagnosis("crashed", f"it was ended by signal {number}", "", False)
    if name in _SIGNALS:
        code, message, hint = _SIGNALS[name]
        return Diagnosis(code, message, hint, permanent=name == signal.SIGILL)
    return Diagnosis("signalled", f"it was ended by {name.name} from outside llamactl", "", False)
