"""What memory the machine has, from what the kernel and llama.cpp tell of it."""

from __future__ import annotations

from pathlib import Path

from llamactl.instances.backend import Backend
from llamactl.instances.memory import parse_devices, read_machine, read_ram
from llamactl.models.fit import MIB, Device, Memory
from tests.conftest import ConfigFactory

MEMINFO = "MemTotal:  1000 kB\nMemFree:   100 kB\nMemAvailable:  600 kB\nHugePages_Total: 0\n"
DEVICES = """\
Available devices:
  CUDA0: NVIDIA H200 (143156 MiB, 142612 MiB free)
  Vulkan1: Intel(R) Graphics (RPL-S) (24000 MiB, 25000 MiB free)
  MTL0: Apple M3 (36864 MiB, 36000 MiB free)
  BLAS: Accelerate (0 MiB, 0 MiB free)
"""


def write(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write_group(root: Path, folder: str, **texts: str) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (root / folder / name.replace("memory_", "memory.")).write_text(text)


def test_what_the_kernel_calls_available_is_free(tmp_path: Path) -> None:
    write(tmp_path, proc__meminfo=MEMINFO)
    assert read_ram(tmp_path) == Memory(600 * 1024, 1000 * 1024)


def test_the_limit_of_a_group_above_counts_and_kept_files_are_free(tmp_path: Path) -> None:
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/a.slice/b.scope\n")
    write_group(tmp_path, "sys/fs/cgroup/a.slice/b.scope", memory_max="max\n", memory_current="1\n")
    write_group(
        tmp_path,
        "sys/fs/cgroup/a.slice",
        memory_max="400000\n",
        memory_current="300000\n",
        memory_stat="anon 1\ninactive_file 250000\n",
    )
    assert read_ram(tmp_path) == Memory(350_000, 400_000)


def test_the_older_kind_of_group_counts_too_and_its_no_limit_is_none(tmp_path: Path) -> None:
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="4:cpu,memory:/docker/x\n0::/\n")
    folder = "sys/fs/cgroup/memory"
    write_group(
        tmp_path, folder, memory_limit_in_bytes=f"{2**63 - 4096}", memory_usage_in_bytes="7"
    )
    assert read_ram(tmp_path) == Memory(600 * 1024, 1000 * 1024)
    write_group(tmp_path, folder, memory_limit_in_bytes="5000", memory_usage_in_bytes="9000")
    assert read_ram(tmp_path) == Memory(0, 5000)


def test_this_machine_tells_its_memory() -> None:
    ram = read_ram()
    assert ram is not None and 0 < ram.free <= ram.total


def test_devices_are_those_with_memory_of_their_own_or_the_machines() -> None:
    assert parse_devices(DEVICES) == (
        Device("CUDA0", "NVIDIA H200", Memory(142612 * MIB, 143156 * MIB)),
        Device("Vulkan1", "Intel(R) Graphics (RPL-S)", Memory(24000 * MIB, 24000 * MIB)),
        Device("MTL0", "Apple M3", Memory(36000 * MIB, 36864 * MIB), shared=True),
    )
    for nothing in ("", "Available devices:\n  (none)\n", "error: unknown --list-devices\n"):
        assert parse_devices(nothing) == ()


def test_a_group_that_cannot_be_read_limits_nothing(tmp_path: Path) -> None:
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/gone\nnonsense\n")
    assert read_machine("", tmp_path).ram == Memory(600 * 1024, 1000 * 1024)


def test_the_backend_is_asked_anew_for_what_is_free_only_where_it_has_devices(
    make_config: ConfigFactory, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    program = tmp_path / "llama-server"
    for printed, times in (("  (none)", 1), ("  CUDA0: X (100 MiB, 40 MiB free)", 2)):
        asked.write_text("")
        program.write_text(f"#!/bin/sh\necho $1 >> {asked}\necho '{printed}'\n")
        program.chmod(0o755)
        backend = Backend(make_config({"backends.llama-cpp.command": str(program)}).llama_cpp, ())
        found = [backend.machine() for _ in range(3)]
        assert [len(machine.devices) for machine in found] == [times - 1] * 3
        assert asked.read_text().split() == ["--list-devices"] * times
