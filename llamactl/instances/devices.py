"""Whether this machine shows a GPU, from what its drivers leave on disk; no tool is run."""

from __future__ import annotations

import sys
from pathlib import Path


def visible_gpus(root: Path = Path("/")) -> tuple[str, ...]:
    """Words for the GPUs that a build of llama.cpp could use here, such as ``2 NVIDIA``.

    ``/dev/dri`` alone says nothing: every display adapter has it, those of virtual machines too.
    """
    if sys.platform == "darwin":
        return ("Apple Metal",)
    found = []
    nvidia = _count(root / "proc/driver/nvidia/gpus", "*") or _count(root / "dev", "nvidia[0-9]*")
    if nvidia:
        found.append(f"{nvidia} NVIDIA")
    if (root / "dev/kfd").exists() and (amd := _amd_gpus(root)):
        found.append(f"{amd} AMD")
    return tuple(found)


def _amd_gpus(root: Path) -> int:
    """The nodes of the compute driver that have shader units; a processor is a node without."""
    count = 0
    for properties in (root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties"):
        try:
            words = dict(
                line.split(maxsplit=1)
                for line in properties.read_text().splitlines()
                if " " in line
            )
        except (OSError, ValueError):
            continue
        count += int(words.get("simd_count", "0") or 0) > 0
    return count


def _count(directory: Path, pattern: str) -> int:
    try:
        return sum(1 for _ in directory.glob(pattern))
    except OSError:
        return 0
