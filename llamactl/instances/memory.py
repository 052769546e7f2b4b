"""The memory that this machine has for models: its own, and that of llama.cpp's devices."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from llamactl.models.fit import MIB, Device, Machine, Memory

#: ``  CUDA0: NVIDIA H200 (143156 MiB, 142612 MiB free)``
_DEVICE = re.compile(
    r"^\s+(?P<name>[A-Za-z]\w*): (?P<description>.*)"
    r" \((?P<total>\d{1,12}) MiB, (?P<free>\d{1,12}) MiB free\)\s*$",
    re.MULTILINE,
)
#: Devices whose memory is the machine's own: Apple's by their name, a processor's by what it is.
_SHARED = re.compile(r"(Metal|MTL)\w*: |\w+: (llvmpipe|SwiftShader)", re.IGNORECASE)
#: What the Vulkan backend says of a device of this kind while it looks for devices.
_UNIFIED = re.compile(r"^ggml_vulkan: (?P<number>\d+) = .*\| uma: 1 \|", re.MULTILINE)

#: Seconds for which a device's free memory is taken to be what it was.
RECENT = 5.0

#: A limit of a control group beyond this (bytes) is no limit.
_NO_LIMIT = 2**60


def parse_devices(output: str) -> tuple[Device, ...]:
    """The devices with a memory that ``llama-server --list-devices`` prints.

    What two backends print of one device counts once, as llama.cpp uses it once.
    """
    unified = {f"Vulkan{match['number']}" for match in _UNIFIED.finditer(output)}
    found = []
    backends: dict[str, str] = {}
    for match in _DEVICE.finditer(output):
        name, description = match["name"], match["description"]
        free, total = int(match["free"]) * MIB, int(match["total"]) * MIB
        backend = name.rstrip("0123456789")
        if total and backends.setdefault(description, backend) == backend:
            shared = name in unified or _SHARED.match(f"{name}: {description}") is not None
            found.append(Device(name, description, Memory(min(free, total), total), shared))
    return tuple(found)


def read_machine(list_devices: str, root: Path = Path("/")) -> Machine:
    """The machine as it is now; ``list_devices`` is what llama.cpp prints of its devices."""
    return Machine(read_ram(root), parse_devices(list_devices))


def read_ram(root: Path = Path("/")) -> Memory | None:
    """The memory that programs can still have, within the limits of this process's control group.

    Pages of files that are merely kept count as free, as the kernel gives them up when asked.
    """
    memory = _meminfo(root) or _physical()
    if memory is None:
        return None
    for limit, used in _group_limits(root):
        memory = Memory(min(memory.free, max(0, limit - used)), min(memory.total, limit))
    return memory


def _meminfo(root: Path) -> Memory | None:
    sizes = {}
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdecimal():
            sizes[name] = int(number[0]) * 1024
    if "MemAvailable" not in sizes or "MemTotal" not in sizes:
        return None
    return Memory(sizes["MemAvailable"], sizes["MemTotal"])


def _physical() -> Memory | None:
    """All that is built in, on a system that does not say how much of it is free."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    return Memory(total, total) if total > 0 else None


def _group_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each control group that this process is in, of both kinds."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if number == "0" and not kinds:
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in kinds.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = base / path.lstrip("/")
        # In a container the path is the host's, and its own group is mounted at the base.
        for each in (folder, *folder.parents):
            limit, used = (_number(_text(each / name)) for name in names)
            if limit is not None and used is not None and limit < _NO_LIMIT:
                yield limit, max(0, used - _kept_files(each))
            if each == base:
                break


def _kept_files(group: Path) -> int:
    words = _text(group / "memory.stat").split()
    sizes = dict(zip(words[::2], words[1::2], strict=False))
    names = ("active_file", "inactive_file")
    return sum(_number(sizes.get(f"total_{name}") or sizes.get(name) or "") or 0 for name in names)


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
