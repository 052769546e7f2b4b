from __future__ import annotations

from pathlib import Path

from llamactl.instances.devices import visible_gpus


def test_a_machine_without_a_gpu_shows_none(tmp_path: Path) -> None:
    (tmp_path / "dev" / "dri").mkdir(parents=True)
    (tmp_path / "dev" / "dri" / "renderD128").touch()
    assert visible_gpus(tmp_path) == ()


def test_nvidia_gpus_are_counted_by_their_driver(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"proc/driver/nvidia/gpus/0000:0{number}:00.0").mkdir(parents=True)
    assert visible_gpus(tmp_path) == ("2 NVIDIA",)


def test_in_a_container_the_device_files_count(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    assert visible_gpus(tmp_path) == ("1 NVIDIA",)


def test_amd_gpus_are_the_nodes_with_shader_units(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").touch()
    for number, units in enumerate((0, 304)):
        node = tmp_path / f"sys/class/kfd/kfd/topology/nodes/{number}"
        node.mkdir(parents=True)
        (node / "properties").write_text(f"cpu_cores_count 8\nsimd_count {units}\n")
    assert visible_gpus(tmp_path) == ("1 AMD",)
