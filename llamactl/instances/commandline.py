"""Options to llama-server's command line, and a pasted command line back to options. Pure."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from llamactl.errors import InvalidRequest, UnsupportedFlag
from llamactl.instances.flags import RENAMED, RESERVED, Flag, lookup, nearest
from llamactl.instances.shellwords import split_words
from llamactl.instances.values import Value, number_text

if TYPE_CHECKING:
    from llamactl.instances.options import Options

#: Words before and after a command that mean nothing for what it runs: prompts, and how a shell is
#: to go on.
_BEFORE = frozenset({"$", "%", ">", "&", "env", "exec", "nohup", "time"})
_AFTER = frozenset({"&", ";"})
#: Flags that were switches once, and take a word today.
_ONCE_SWITCHES = frozenset({"flash-attn", "log-colors"})
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_NUMBER = re.compile(r"-[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True)
class Launch:
    """What only the moment of the start decides: where to listen, which files are meant.

    ``metrics``: whether its own counts are wanted.
    """

    host: str
    port: int
    model: str | None = None
    mmproj: str | None = None
    models_preset: str | None = None
    metrics: bool = False


def arguments(
    options: Options,
    name: str,
    launch: Launch,
    expand: Callable[[str], str],
    known: frozenset[str] | None = None,
) -> list[str]:
    """The words after the program's own: every flag of ``options``, ours last.

    ``expand`` turns ``~`` and ``$HOME`` in paths into what they stand for; ``known`` are the flags
    that the program has, where they are known, so that one that was renamed gets its name there.
    The later of two equal flags counts for llama-server: nothing can take the port from us.
    """
    chosen: dict[str, Value] = dict(options.backend_options)
    if launch.model is not None:
        chosen["model"] = launch.model
    if launch.mmproj is not None:
        chosen["mmproj"] = launch.mmproj
    if not options.is_router:
        chosen.setdefault("alias", (name,))
        if launch.metrics:
            chosen.setdefault("metrics", True)
    words: list[str] = []
    for key, value in chosen.items():
        flag, meant = current(key, value, known)
        words += flag_words(flag, meant, expand, known)
    for spelled, value in options.extra_args.items():
        words += _extra_words(spelled, value)
    if launch.models_preset is not None:
        words += ["--models-preset", launch.models_preset]
    return [*words, "--host", launch.host, "--port", str(launch.port)]


def current(key: str, value: Value, known: frozenset[str] | None) -> tuple[Flag, Value]:
    """The flag of an option with its value, or what took its place where only that is known."""
    flag = _flag(key)
    switch = value if isinstance(value, bool) else None
    renamed = RENAMED.get((flag.name, switch))
    if known is None or renamed is None or known.intersection(flag.spellings(off=value is False)):
        return flag, value
    return _flag(renamed[0]), value if renamed[1] is None else renamed[1]


def has_renamed(options: Options) -> bool:
    """Whether it matters which flags the program has."""
    names = {name for name, _ in RENAMED}
    return any(_flag(key).name in names for key in options.backend_options)


def _flag(key: str) -> Flag:
    found = lookup(key)
    if found is None:
        raise InvalidRequest(f"{key} is no flag of llama-server", field=f"backend_options.{key}")
    return found[0]


def flag_words(
    flag: Flag,
    value: Value,
    expand: Callable[[str], str] = str,
    known: frozenset[str] | None = None,
) -> list[str]:
    """One flag with its value, as llama.cpp wants its kind."""
    if value is False and not flag.off:
        return []
    spellings = flag.spellings(off=value is False)
    spelled = next((each for each in spellings if known and each in known), spellings[0])
    if isinstance(value, bool):
        return [spelled]
    if isinstance(value, (int, float)):
        return [spelled, number_text(value)]
    items = (value,) if isinstance(value, str) else value
    if flag.is_path:
        items = tuple(expand(item) for item in items)
    if flag.kind == "commas":
        return [spelled, ",".join(items)]
    if flag.kind == "pair":
        return [spelled, *items]
    return [word for item in items for word in (spelled, item)]


def missing_flags(options: Options, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The options that a program with the flags ``known`` does not have: field, spelled flag."""
    for key, value in options.backend_options.items():
        flag, meant = current(key, value, known)
        spellings = flag.spellings(off=meant is False)
        if flag_words(flag, meant) and not known.intersection(spellings):
            yield f"backend_options.{key}", spellings[0]
    for spelled, value in options.extra_args.items():
        if value is not False and spelled not in known:
            yield f"backend_options.extra_args.{spelled}", spelled


def check_known(options: Options, known: frozenset[str] | None) -> None:
    """Raise ``UnsupportedFlag`` for the first of those, with the nearest flag that there is.

    ``known`` is None where nobody knows what the program has.
    """
    for field, spelled in missing_flags(options, known) if known else ():
        close = difflib.get_close_matches(spelled, sorted(known or ()), n=1)
        raise UnsupportedFlag(
            f"This llama-server has no flag {spelled}",
            hint=f"Did you mean {close[0]}?" if close else "Its --help lists those it has.",
            field=field,
        )


def _extra_words(spelled: str, value: Value) -> list[str]:
    if isinstance(value, bool):
        return [spelled] if value else []
    items = value if isinstance(value, tuple) else (str(value),)
    return [word for item in items for word in (spelled, item)] or [spelled]


@dataclass(frozen=True)
class Given:
    """One flag as it stood on a command line; ``flag`` is None for one that is not known."""

    spelled: str
    flag: Flag | None
    negated: bool
    values: tuple[str, ...]


def read_flags(words: Sequence[str]) -> Iterator[Given]:
    """The flags of a llama-server command line, in order.

    A flag that is not known takes the words up to the next one that begins with a dash. Raises
    ``InvalidRequest`` for a word that belongs to no flag and for a flag without its value.
    """
    position = 0
    while position < len(words):
        spelled = words[position]
        position += 1
        if not _is_flag(spelled) or spelled in {"-", "--"}:
            raise InvalidRequest(f"{spelled[:80]!r} belongs to no flag")
        found = lookup(spelled)
        if found is None:
            end = position
            while end < len(words) and not _is_flag(words[end]):
                end += 1
            yield Given(spelled, None, False, tuple(words[position:end]))
        else:
            flag, negated = found
            count = 0 if negated else flag.values
            if flag.name in _ONCE_SWITCHES and _is_flag(*words[position : position + 1]):
                yield Given(spelled, flag, negated, ("on",))
                continue
            end = position + count
            if end > len(words):
                raise InvalidRequest(f"{spelled} wants a value")
            yield Given(spelled, flag, negated, tuple(words[position:end]))
        position = end


def _is_flag(word: str = "-") -> bool:
    """Whether a word begins another flag, as the end of the line does; a number does not."""
    return word.startswith("-") and not _NUMBER.fullmatch(word)


def parse_command(command: str) -> dict[str, Any]:
    """The JSON of ``Options`` that runs a pasted ``llama-server …`` line.

    Variables set in front of the program become ``environment``. What llamactl decides itself
    (address, port, keys) is left out. Raises ``InvalidRequest`` for anything else than one command.
    """
    environment, words = _split(command)
    flags = flags_of_words(words)
    options: dict[str, Any] = {"backend_type": "llama_cpp", "backend_options": flags}
    return {**options, "environment": environment} if environment else options


def left_out(command: str) -> Mapping[str, str]:
    """The flags of a pasted line that ``parse_command`` does not take, as written, and why."""
    _, words = _split(command)
    return {
        given.spelled: RESERVED[given.flag.name]
        for given in read_flags(words)
        if given.flag is not None and given.flag.name in RESERVED
    }


def _split(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables in front of ``llama-server``, and the words after it."""
    words = split_words(command)
    environment: dict[str, str] = {}
    while words and ((assignment := _ASSIGNMENT.fullmatch(words[0])) or words[0] in _BEFORE):
        if assignment:
            environment[assignment[1]] = assignment[2]
        words.pop(0)
    while words and words[-1] in _AFTER:
        words.pop()
    program = PureWindowsPath(words[0]).name.lower().removesuffix(".exe") if words else ""
    if program == "llama" and words[1:2] == ["serve"]:
        program, words = "llama-server", words[1:]
    if program not in {"llama-server", "llamactl-llama-server"}:
        raise InvalidRequest(
            "This is no llama-server command",
            hint="Paste a line that begins with llama-server, with its flags.",
            field="command",
        )
    return environment, words[1:]


def flags_of_words(words: Sequence[str]) -> dict[str, Any]:
    """The ``backend_options`` of a command line's words after the program."""
    options: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for given in read_flags(words):
        if given.flag is None:
            extra[given.spelled] = list(given.values) if len(given.values) > 1 else True
            if len(given.values) == 1:
                extra[given.spelled] = given.values[0]
        elif given.flag.name not in RESERVED:
            _collect(options, given.flag, given)
    return {**options, "extra_args": extra} if extra else options


def _collect(options: dict[str, Any], flag: Flag, given: Given) -> None:
    """Add one flag: a repeated list grows, anything else that is repeated counts the last time."""
    if flag.values == 0:
        options[flag.key] = not given.negated
    elif flag.kind == "pair":
        options[flag.key] = list(given.values)
    elif flag.is_list:
        items = given.values[0].split(",") if flag.kind != "many" else list(given.values)
        options[flag.key] = [*options.get(flag.key, []), *items]
    else:
        options[flag.key] = given.values[0]


def shown(argv: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
    """A command line as one can paste it into a shell."""
    assignments = [f"{name}={shlex.quote(value)}" for name, value in (variables or {}).items()]
    return " ".join([*assignments, *(shlex.quote(word) for word in argv)])


def unknown_flag(spelled: str) -> str:
    """What to say of a flag that nobody knows."""
    close = nearest(spelled)
    return f"{spelled} is not a flag of llama-server" + (
        f"; did you mean --{close}?" if close else ""
    )
