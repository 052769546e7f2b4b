"""Which files an instance's options mean, and whether they can be loaded at all.

Looked at before anything is started, because what llama.cpp says of a missing file takes a process,
a moment and an experienced reader.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from llamactl.errors import LlamactlError, StartFailed
from llamactl.instances.options import Options, is_reference
from llamactl.models.opening import read_beginning

_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_HOME = re.compile(r"^(\$HOME|\$\{HOME\})(?=/|$)")


@dataclass(frozen=True)
class ResolvedModel:
    """What a reference ``org/name:tag`` means on this machine: the first file, and a projector."""

    path: Path
    mmproj: Path | None = None


ResolveModel = Callable[[str], ResolvedModel]


@dataclass(frozen=True)
class ModelFiles:
    """``model`` and ``mmproj`` for the command line, ``all`` what must not be deleted meanwhile."""

    model: Path | None = None
    mmproj: Path | None = None
    all: tuple[Path, ...] = ()


def expand(path: str) -> str:
    """The absolute path that is meant: ``~`` and a leading ``$HOME`` are the home directory."""
    meant = Path(_HOME.sub("~", path))
    # The home of somebody whom the system does not know: there is no such file, and that is all.
    with contextlib.suppress(RuntimeError):
        meant = meant.expanduser()
    return str(meant.absolute())


def find_files(options: Options, resolve_model: ResolveModel) -> ModelFiles:
    """The files of these options; ``StartFailed`` naming the one that cannot be loaded."""
    model, mmproj = _locate(options, resolve_model)
    files = [*(shards_of(model) if model else ()), *([mmproj] if mmproj else [])]
    for path in files:
        _check_gguf(path)
    extra = [Path(expand(path)) for path in _other_paths(options)]
    for path in extra:
        _check_readable(path)
    return ModelFiles(model, mmproj, (*files, *extra))


def still_to_fetch(options: Options, resolve_model: ResolveModel) -> list[str]:
    """What a start with these options would have to fetch from the hub first, in sentences."""
    return [
        f"{repo} is not cached; llama-server fetches it at the first start. {_remedy(repo)}."
        for repo in options.hub_repos
        if not _is_cached(repo, resolve_model)
    ]


def with_cached_model(options: Options, resolve_model: ResolveModel) -> Options:
    """The options with the cached model by its reference, where they have llama-server fetch it."""
    repo = options.text_option("hf_repo") or ""
    if options.text_option("hf_file") or options.text_option("model") or not is_reference(repo):
        return options
    if not _is_cached(repo, resolve_model):
        return options
    flags = {key: value for key, value in options.backend_options.items() if key != "hf_repo"}
    return replace(options, backend_options={"model": repo, **flags})


def _remedy(reference: str) -> str:
    return f"`llamactl download {reference}` downloads it"


def _is_cached(repo: str, resolve_model: ResolveModel) -> bool:
    try:
        return not is_reference(repo) or resolve_model(repo).path.exists()
    except LlamactlError:
        return False


def _locate(options: Options, resolve_model: ResolveModel) -> tuple[Path | None, Path | None]:
    chosen = options.text_option("mmproj")
    mmproj = Path(expand(chosen)) if chosen else None
    name = options.text_option("model")
    if name is None:
        return None, mmproj
    if not is_reference(name):
        return Path(expand(name)), mmproj
    try:
        resolved = resolve_model(name)
    except LlamactlError as error:
        hints = [hint.rstrip(".") for hint in (error.hint, _remedy(name)) if hint]
        raise StartFailed(error.message, hint=". ".join(hints)) from error
    if mmproj is None and options.option("mmproj_auto") is not False:
        mmproj = resolved.mmproj
    return resolved.path, mmproj


def shards_of(model: Path) -> Iterator[Path]:
    """Every file of the set that ``model`` is the first one of."""
    found = _SHARD.fullmatch(model.name)
    if not found or int(found["number"]) != 1:
        yield model
        return
    for number in range(1, int(found["count"]) + 1):
        name = f"{found['stem']}-{number:05d}-of-{found['count']}{model.suffix}"
        yield model.with_name(name)


def _other_paths(options: Options) -> Iterator[str]:
    for key in ("lora", "control_vector", "spec_draft_model", "chat_template_file", "grammar_file"):
        value = options.option(key)
        if isinstance(value, tuple):
            yield from value
        elif isinstance(value, str):
            yield value


def _check_readable(path: Path) -> None:
    if not _is_there(path):
        raise StartFailed(
            f"there is no file {path}",
            hint="Check the path, or name a downloaded model as org/name:tag.",
        )
    if path.is_dir():
        raise StartFailed(f"{path} is a folder", hint="Give the path of the file in it.")
    if not os.access(path, os.R_OK):
        raise StartFailed(
            f"{path} may not be read",
            hint="Change its permissions so that llamactl's user may read it.",
        )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise StartFailed(
            f"{path} cannot be looked at: {error.strerror}",
            hint="Check the path, and that llamactl's user may open the folders above it.",
        ) from error


def _check_gguf(path: Path) -> None:
    if _SHARD.fullmatch(path.name) and not _is_there(path):
        raise StartFailed(
            f"{path.name}, a part of the model, is not in {path.parent}",
            hint="Download the model again: all of its parts must be in one folder.",
        )
    _check_readable(path)
    try:
        magic = read_beginning(path, 4)
    except OSError as error:
        raise StartFailed(f"{path} cannot be read: {error.strerror}") from error
    # Some systems write it the other way round; llama.cpp says whether it can read those.
    if magic not in (b"GGUF", b"FUGG"):
        raise StartFailed(
            f"{path} is no GGUF file",
            hint="llama.cpp loads GGUF files only; download the model's GGUF version.",
        )
