"""How much memory a model takes when llama.cpp runs it, and whether a machine has that. Pure.

The sizes are those that llama.cpp itself names when it loads a model: "model buffer", "KV buffer",
"compute buffer". The weights and the context's cache follow from the header and are exact; the
compute buffer is reckoned from what the widest step of a layer holds at a time, and is an upper
bound for most architectures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llamactl.models.dimensions import Dimensions

MIB = 1024 * 1024

#: Bytes that 32 numbers take in the cache, by what ``--cache-type-k`` and ``-v`` take.
CACHE_TYPES: Mapping[str, int] = {
    "f32": 128,
    "f16": 64,
    "bf16": 64,
    "q8_0": 34,
    "q5_1": 24,
    "q5_0": 22,
    "q4_1": 20,
    "q4_0": 18,
    "iq4_nl": 18,
}

#: The context, in tokens, for which memory is reckoned where nobody says another.
USUAL_CONTEXT = 8192
#: The largest one that can be asked for: rounded up to whole steps it still has 32 bits.
LARGEST_CONTEXT = 2**31 - 256
#: Slots that llama-server opens when nobody says how many; they then share one cache.
AUTOMATIC_SLOTS = 4
_CELL_STEP = 256

#: What is left free of each device, as llama.cpp's own ``--fit-target`` does.
DEVICE_RESERVE = 1024 * MIB
#: What is left free of the machine's memory: the process itself, and everybody else.
RAM_RESERVE = 512 * MIB

Place = Literal["gpu", "gpu_and_ram", "ram"]


@dataclass(frozen=True)
class Load:
    """How a model is to be loaded, in llama-server's own flags and defaults.

    ``ctx_size`` 0 is the model's own context; ``parallel`` None lets llama-server choose.
    """

    ctx_size: int = 0
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    ubatch_size: int = 512
    parallel: int | None = None
    flash_attn: bool = True
    swa_full: bool = False


@dataclass(frozen=True)
class Need:
    """Bytes that a model takes. ``cache`` and ``compute`` are None where no header tells them.

    ``projector`` is an mmproj's weights and as much again, a rule of thumb for its work on one
    picture. ``ctx_size`` is the context that was reckoned with.
    """

    weights: int
    cache: int | None
    compute: int | None
    projector: int
    ctx_size: int

    @property
    def total(self) -> int:
        """What is known of it, together."""
        return self.weights + (self.cache or 0) + (self.compute or 0) + self.projector

    @property
    def whole(self) -> bool:
        """Whether everything is known."""
        return self.cache is not None and self.compute is not None


@dataclass(frozen=True)
class Memory:
    """Bytes of one memory: free now, and all in all."""

    free: int
    total: int


@dataclass(frozen=True)
class Device:
    """A device that llama.cpp computes on. ``shared``: its memory is the machine's own."""

    name: str
    description: str
    memory: Memory
    shared: bool = False


@dataclass(frozen=True)
class Machine:
    """What this machine has; ``ram`` is None where the system does not tell."""

    ram: Memory | None
    devices: tuple[Device, ...] = ()

    def usable(self, *, all_free: bool = False) -> tuple[int, int]:
        """Bytes that a model can have of the devices, and of the machine's memory beside them.

        With ``all_free`` as if nothing else ran.
        """

        def of(memory: Memory, reserve: int) -> int:
            return max(0, (memory.total if all_free else memory.free) - reserve)

        own = sum(of(device.memory, DEVICE_RESERVE) for device in self.devices if not device.shared)
        ram = 0 if self.ram is None else of(self.ram, RAM_RESERVE)
        return (own + ram, 0) if self.shares_memory else (own, ram)

    def usable_devices(self, *, all_free: bool = False) -> dict[str, int]:
        """Bytes that a model can have of each device, by its name.

        All count as the first where one of them shares the machine's memory. With ``all_free`` as
        if nothing else ran.
        """
        if self.shares_memory:
            return {self.devices[0].name: self.usable(all_free=all_free)[0]}
        return {
            device.name: max(
                0, (device.memory.total if all_free else device.memory.free) - DEVICE_RESERVE
            )
            for device in self.devices
        }

    @property
    def shares_memory(self) -> bool:
        """Whether the memory of one of its devices is its own."""
        return any(device.shared for device in self.devices)


@dataclass(frozen=True)
class Verdict:
    """Whether a model fits. ``fits`` is None where too little is known to say.

    ``place`` is where it would run; ``when_idle``: it fits once everything else is stopped.
    """

    fits: bool | None
    place: Place | None
    when_idle: bool


def estimate(
    dimensions: Dimensions | None, weights: int, load: Load, *, projector: int = 0
) -> Need:
    """The memory for ``weights`` bytes of GGUF and ``projector`` bytes of mmproj."""
    if dimensions is None:
        return Need(weights, None, None, 2 * projector, load.ctx_size)
    context = _padded(load.ctx_size or dimensions.context_length or 4096)
    if load.parallel is not None:
        # Slots that were asked for by number have a share of the context each.
        context = _slots(load) * _padded(context // _slots(load))
    cells = _windowed_cells(dimensions.window, context, load)
    cache = _cache(dimensions, context, cells, load)
    compute = _compute(dimensions, context, cells, load)
    return Need(weights, cache, compute, 2 * projector, context)


def judge(need: Need, machine: Machine) -> Verdict:
    """Whether ``machine`` has the memory now."""
    place = _place(need, machine)
    when_idle = place is not None or _place(need, machine, all_free=True) is not None
    if machine.ram is None and not machine.devices:
        return Verdict(None, None, False)
    if place is None:
        return Verdict(False, None, when_idle and need.whole)
    return Verdict(True if need.whole else None, place, when_idle)


def _place(need: Need, machine: Machine, *, all_free: bool = False) -> Place | None:
    rooms = [room for room in machine.usable_devices(all_free=all_free).values() if room]
    if rooms and need.total <= max(rooms):
        return "gpu"
    devices, ram = machine.usable(all_free=all_free)
    # Laid on several devices, a model has buffers to compute in on each.
    total = need.total + max(0, len(rooms) - 1) * (need.compute or 0)
    if devices and total <= devices:
        return "gpu"
    if total > devices + ram:
        return None
    return "gpu_and_ram" if devices else "ram"


def _slots(load: Load) -> int:
    return AUTOMATIC_SLOTS if load.parallel is None or load.parallel < 1 else load.parallel


def _windowed_cells(window: int, context: int, load: Load) -> int:
    """Tokens that a layer with a sliding window keeps, in all slots together."""
    if not window or load.swa_full:
        return context
    slots = _slots(load)
    if load.parallel is None:
        return min(context, _padded(window * slots + load.ubatch_size))
    return slots * min(context // slots, _padded(window + load.ubatch_size))


def _cache(dimensions: Dimensions, context: int, windowed: int, load: Load) -> int:
    key, value = CACHE_TYPES[load.cache_type_k], CACHE_TYPES[load.cache_type_v]
    attention = sum(
        (windowed if layer.windowed else context) * (layer.key * key + layer.value * value)
        for layer in dimensions.layers
    )
    return attention // 32 + 4 * dimensions.recurrent_state * _slots(load)


def _compute(dimensions: Dimensions, context: int, windowed: int, load: Load) -> int:
    """The largest that a step holds: the mask, a few activations, without flash attention scores.

    The factors are measured: they give what llama.cpp prints for a llama and a qwen2 to the MiB.
    """
    if not dimensions.layers:
        context = windowed = 0
    if load.parallel is not None:
        # A batch looks at one slot's own cells.
        context, windowed = context // _slots(load), windowed // _slots(load)
    batch = load.ubatch_size
    masked = context + (windowed if any(layer.windowed for layer in dimensions.layers) else 0)
    activations = 4 * batch * (5 * dimensions.embedding + 3 * dimensions.feed_forward)
    mask = masked * batch * (2 if load.flash_attn else 4)
    scores = 0 if load.flash_attn else 4 * context * batch * dimensions.heads
    outputs = 4 * dimensions.vocabulary * _slots(load)
    return activations + mask + scores + outputs + _converted(dimensions, context, load)


def _converted(dimensions: Dimensions, context: int, load: Load) -> int:
    """What flash attention, which takes no f32, holds of one layer's cache as f16."""
    if not load.flash_attn:
        return 0
    keys = max((layer.key for layer in dimensions.layers), default=0)
    values = max((layer.value for layer in dimensions.layers), default=0)
    wide = keys * (load.cache_type_k == "f32") + values * (load.cache_type_v == "f32")
    return 2 * context * wide


def _padded(count: int) -> int:
    return -(-count // _CELL_STEP) * _CELL_STEP
