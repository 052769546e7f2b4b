"""What memory the machine has, from what the kernel and llama.cpp tell of it."""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("printed", "devices"),
    [
        (
            """\
ggml_cuda_init: found 2 CUDA devices (Total VRAM: 35936 MiB):
  Device 0: NVIDIA GeForce RTX 3080 Ti, compute capability 8.6, VMM: yes, VRAM: 11909 MiB
  Device 1: NVIDIA RTX PRO 4000 Blackwell, compute capability 12.0, VMM: yes, VRAM: 24026 MiB
load_backend: loaded CUDA backend from /usr/lib/llama/libggml-cuda.so
Available devices:
  CUDA0: NVIDIA GeForce RTX 3080 Ti (11909 MiB, 11650 MiB free)
  CUDA1: NVIDIA RTX PRO 4000 Blackwell (24026 MiB, 23795 MiB free)
""",
            [("CUDA0", 11650, 11909, False), ("CUDA1", 23795, 24026, False)],
        ),
        (
            """\
ggml_cuda_init: found 1 ROCm devices:
  Device 0: AMD Radeon RX 7900 XTX, gfx1100 (0x1100), VMM: no, Wave Size: 32
Available devices:
  ROCm0: AMD Radeon RX 7900 XTX (24560 MiB, 24000 MiB free)
""",
            [("ROCm0", 24000, 24560, False)],
        ),
        (
            """\
ggml_vulkan: Found 3 Vulkan devices:
ggml_vulkan: 0 = NVIDIA GeForce RTX 2060 (NVIDIA) | uma: 0 | fp16: 1 | bf16: 1 | warp size: 32
ggml_vulkan: 1 = AMD Radeon Graphics (RADV GFX1151) (radv) | uma: 1 | fp16: dot2 | bf16: 0
ggml_vulkan: 2 = llvmpipe (LLVM 17.0.6, 256 bits) (llvmpipe) | uma: 0 | fp16: 0
Available devices:
  Vulkan0: NVIDIA GeForce RTX 2060 (6144 MiB, 5136 MiB free)
  Vulkan1: AMD Radeon Graphics (RADV GFX1151) (63488 MiB, 60000 MiB free)
  Vulkan2: llvmpipe (LLVM 17.0.6, 256 bits) (32000 MiB, 32000 MiB free)
""",
            [
                ("Vulkan0", 5136, 6144, False),
                ("Vulkan1", 60000, 63488, True),
                ("Vulkan2", 32000, 32000, True),
            ],
        ),
        (
            """\
ggml_metal_device_init: GPU name:   MTL0
ggml_metal_device_init: recommendedMaxWorkingSetSize  = 26800.60 MB
Available devices:
  BLAS: Accelerate (0 MiB, 0 MiB free)
  MTL0: Apple M1 Max (25559 MiB, 25558 MiB free)
""",
            [("MTL0", 25558, 25559, True)],
        ),
        (
            # A build with two backends for one card; two cards of one kind are two.
            """\
Available devices:
  CUDA0: NVIDIA GeForce RTX 3090 (24135 MiB, 23700 MiB free)
  CUDA1: NVIDIA GeForce RTX 3090 (24135 MiB, 1200 MiB free)
  Vulkan0: NVIDIA GeForce RTX 3090 (24576 MiB, 24000 MiB free)
  Vulkan1: NVIDIA GeForce RTX 3090 (24576 MiB, 1500 MiB free)
  SYCL0: Intel(R) Arc(TM) A770 Graphics (15473 MiB, 15000 MiB free)
""",
            [
                ("CUDA0", 23700, 24135, False),
                ("CUDA1", 1200, 24135, False),
                ("SYCL0", 15000, 15473, False),
            ],
        ),
    ],
    ids=["CUDA", "ROCm", "Vulkan", "Metal", "several backends"],
)
def test_the_devices_of_every_backend_are_read_as_it_prints_them(
    printed: str, devices: list[tuple[str, int, int, bool]]
) -> None:
    found = parse_devices(printed.replace("\n", "\r\n") if "ROCm" in printed else printed)
    assert [
        (each.name, each.memory.free // MIB, each.memory.total // MIB, each.shared)
        for each in found
    ] == devices


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
        found = [backend.machine(within) for within in (5.0, 5.0, 0.0, 3600.0)]
        assert {len(machine.devices) for machine in found} == {int(times > 1)}
        assert asked.read_text().split() == ["--list-devices"] * times
