"""Which instances use which files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llamactl.errors import LlamactlError
from llamactl.instances.commandline import flags_of_words
from llamactl.instances.flags import lookup
from llamactl.instances.health import Probe
from llamactl.instances.modelfiles import ResolveModel, find_files
from llamactl.instances.options import Options, is_reference
from llamactl.instances.preset import preset_lines
from llamactl.instances.values import Value, flag_value

#: Seconds that a router gets to say what it has loaded.
PATIENCE = 2.0
#: What a section of a preset says about files.
_OF_FILES = frozenset(
    {
        "hf_repo",
        "spec_draft_hf",
        "model",
        "mmproj",
        "mmproj_auto",
        "lora",
        "control_vector",
        "spec_draft_model",
    }
)


@dataclass(frozen=True)
class User:
    """An instance that is neither stopped nor failed. ``files`` are those that its process was
    given, none while there is no process; ``router`` is how a running router is asked."""

    name: str
    options: Options
    files: tuple[Path, ...] = ()
    router: Probe | None = None


def users_of(
    paths: Sequence[Path], alive: Iterable[User], resolve_model: ResolveModel
) -> list[str]:
    """The names of those that use one of ``paths``, under whatever name the file has.

    An instance that is only being started has no files yet; those that its options mean count. Of a
    router what it has loaded counts, and what its preset names; one that does not answer may use
    anything.
    """
    wanted = {identity for path in paths for identity in _identities(path)}
    return [user.name for user in alive if _uses(user, paths, wanted, resolve_model)]


def _uses(
    user: User, paths: Sequence[Path], wanted: set[object], resolve_model: ResolveModel
) -> bool:
    asked = [user.options]
    if user.options.preset_ini:
        asked += preset_options(user.options.preset_ini)
    if user.router is not None:
        loaded = loaded_options(user.router.body("/models", PATIENCE))
        if loaded is None:
            return True
        asked += loaded
    used = {identity for path in user.files for identity in _identities(path)}
    if used & wanted:
        return True
    return any(_means(options, paths, wanted, resolve_model) for options in asked)


def _means(
    options: Options, paths: Sequence[Path], wanted: set[object], resolve_model: ResolveModel
) -> bool:
    """Whether these options mean one of the files."""
    used: set[object] = set()
    with contextlib.suppress(LlamactlError):
        files = find_files(options, resolve_model).all
        used |= {identity for path in files for identity in _identities(path)}
    for repo in options.hub_repos:
        cached = Options({"model": repo})
        try:
            files = find_files(cached, resolve_model).all if is_reference(repo) else ()
        except LlamactlError:
            files = ()
        if files and not options.option("hf_file"):
            used |= {identity for path in files for identity in _identities(path)}
        elif _of_repo(repo, paths):
            # It is not whole, so that llama-server may be fetching it, or one file is named.
            return True
    return bool(used & wanted)


def loaded_options(answer: bytes | None) -> list[Options] | None:
    """What the models that a router has loaded run with, from its ``/models``.

    None where that cannot be told.
    """
    try:
        entries = json.loads(answer or b"")["data"]
        loaded = [entry for entry in entries if _status(entry).get("value") != "unloaded"]
        return [_options_of_entry(entry) for entry in loaded]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, LlamactlError):
        return None


def _status(entry: dict[str, Any]) -> dict[str, Any]:
    return dict(entry.get("status") or {})


def _plain(value: Any) -> Value:
    return tuple(value) if isinstance(value, list) else value


def _options_of_entry(entry: dict[str, Any]) -> Options:
    words = [str(word) for word in _status(entry).get("args") or ()]
    if words:
        flags = flags_of_words(words[1:])
        return Options({key: _plain(flags[key]) for key in _OF_FILES & flags.keys()})
    return Options({"hf_repo": str(entry["id"])})


def preset_options(preset: str) -> list[Options]:
    """What the sections of a preset say about files; a section can itself be a model's name."""
    found: list[Options] = []
    for line in preset_lines(preset):
        if line.section is not None:
            named = {"hf_repo": line.section} if is_reference(line.section) else {}
            found.append(Options(named))
        flag = lookup(line.key)
        if not found or flag is None or flag[0].key not in _OF_FILES:
            continue
        with contextlib.suppress(LlamactlError):
            value = flag_value(flag[0], line.value, line.key)
            value = not value if flag[1] else value
            options = {**found[-1].backend_options, flag[0].key: value}
            if "model" in options:
                options.pop("hf_repo", None)
            found[-1] = replace(found[-1], backend_options=options)
    return found


def _identities(path: Path) -> Iterator[object]:
    """What tells a file: its path, and where it exists its inode, which links share."""
    yield str(path.absolute())
    with contextlib.suppress(OSError):
        status = path.stat()
        yield (status.st_dev, status.st_ino)


def _of_repo(repo: str, paths: Sequence[Path]) -> bool:
    """Whether one of the files lies under the repo's name in either cache."""
    org, _, rest = repo.partition("/")
    name = rest.partition(":")[0]
    folder = f"models--{org}--{name}"
    return any(folder in path.parts or path.name.startswith(f"{org}_{name}_") for path in paths)
