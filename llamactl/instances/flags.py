"""llama-server's flags as a table: their kinds, their other names, which are ours, which dangerous.

A line of ``flagtable.py`` is: kind, canonical name, other spellings, the short ones with a dash.
``!name`` switches a toggle off; every toggle has ``!no-NAME`` besides. Kinds: ``switch`` (present
or absent), ``toggle`` (on, off or left alone), ``int``, ``float``, ``text``, ``path``, ``words`` (a
number or a word such as auto; true and false mean on and off), ``commas`` (a list in one value),
``many`` (the flag once for each value), ``paths`` (the same with paths), ``pair`` (two values). The
names are those of llama.cpp b11434 and the ones that builds before it used.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from llamactl.instances.flagtable import TABLE

#: llamactl itself decides these; the reason is told to whoever sets one.
RESERVED: dict[str, str] = {
    "host": "an instance listens on loopback only",
    "port": "llamactl finds a free port by itself",
    "reuse-port": "a port belongs to one instance",
    "api-prefix": "llamactl reaches an instance at its root",
    "api-key": "an instance gets a new random key at each start",
    "api-key-file": "an instance gets a new random key at each start",
    "ssl-key-file": "an instance is reached over loopback",
    "ssl-cert-file": "an instance is reached over loopback",
    "hf-token": "the token comes from HF_TOKEN or from `hf auth login`",
    "help": "it would print and end",
    "version": "it would print and end",
    "list-devices": "it would print and end",
    "cache-list": "it would print and end",
    "completion-bash": "it would print and end",
}

#: Flags that read or write files, reach the network or run programs for whoever may ask.
DANGEROUS: frozenset[str] = frozenset(
    {
        "agent",
        "docker-repo",
        "log-file",
        "log-prompts-dir",
        "lookup-cache-dynamic",
        "mcp-servers-config",
        "mcp-servers-json",
        "media-path",
        "model-url",
        "mmproj-url",
        "models-dir",
        "models-preset",
        "path",
        "rpc",
        "slot-save-path",
        "tools",
        "tools-runtime",
        "ui-config-file",
        "ui-mcp-proxy",
        "video-ffmpeg-dir",
    }
)

#: What took the place of flags that newer builds do not have: by name and, for a toggle, value.
RENAMED: dict[tuple[str, bool | None], tuple[str, str | None]] = {
    ("mmap", True): ("load-mode", "mmap"),
    ("mmap", False): ("load-mode", "none"),
    ("mlock", True): ("load-mode", "mmap+mlock"),
    ("direct-io", True): ("load-mode", "dio"),
    ("direct-io", False): ("load-mode", "auto"),
    ("draft-max", None): ("spec-draft-n-max", None),
    ("draft-min", None): ("spec-draft-n-min", None),
}


@dataclass(frozen=True)
class Flag:
    """One flag. Names are without dashes in front; ``name`` is the canonical, long one."""

    kind: str
    name: str
    aliases: tuple[str, ...] = ()
    off: str = ""
    other_off: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The name that it has in ``backend_options``."""
        return self.name.replace("-", "_")

    def spellings(self, *, off: bool = False) -> list[str]:
        """How it may stand on a command line, the canonical way first."""
        names = (self.off, *self.other_off) if off else (self.name, *self.aliases)
        return [f"{dash}{name}" for name in names if name for dash in ("--", "-")]

    @property
    def values(self) -> int:
        """How many words it takes after it on a command line."""
        return {"switch": 0, "toggle": 0, "pair": 2}.get(self.kind, 1)

    @property
    def is_list(self) -> bool:
        return self.kind in {"commas", "many", "paths"}

    @property
    def is_path(self) -> bool:
        return self.kind in {"path", "paths"}


def lookup(name: str) -> tuple[Flag, bool] | None:
    """The flag of that name, and whether the name switches it off.

    Dashes in front, and underscores for hyphens, are allowed; case counts (``-C`` is not ``-c``).
    """
    bare = name.lstrip("-")
    return _BY_NAME.get(bare) or _BY_NAME.get(bare.replace("_", "-"))


def nearest(name: str) -> str | None:
    """The known long name that is most like ``name``."""
    wanted = name.lstrip("-").replace("_", "-").lower()
    close = difflib.get_close_matches(wanted, [flag.name for flag in FLAGS], n=1, cutoff=0.6)
    return close[0] if close else None


def _read_line(line: str) -> Flag:
    kind, name, *others = line.split()
    names = tuple(word.lstrip("-") for word in others if not word.startswith("!"))
    offs = [word[1:] for word in others if word.startswith("!")]
    if kind != "toggle":
        return Flag(kind, name, names)
    # The long ones that are spelled out are older than the regular one, so every build has them.
    off = next((word for word in offs if not word.startswith("-")), f"no-{name}")
    rest = tuple(word.lstrip("-") for word in (*offs, f"no-{name}") if word != off)
    return Flag(kind, name, names, off, rest)


FLAGS = tuple(_read_line(line) for line in TABLE.strip().splitlines())
_BY_NAME: dict[str, tuple[Flag, bool]] = {
    **{name: (flag, False) for flag in FLAGS for name in (flag.name, *flag.aliases)},
    **{name: (flag, True) for flag in FLAGS for name in (flag.off, *flag.other_off) if name},
}


def dashes(name: str) -> str:
    """A flag's name with its dashes: kept as written, else one for a letter and two for a word."""
    if name.startswith("-"):
        return name
    return f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
