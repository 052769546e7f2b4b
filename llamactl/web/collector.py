"""What ``/metrics`` shows: read from the services at the moment of a scrape, nothing counted twice.

Nothing here waits: an instance is not asked, and devices are those of the last look at them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from llamactl.downloads.states import JobStatus
from llamactl.gateway.statistics import SECONDS, Histogram
from llamactl.instances.memory import read_ram
from llamactl.instances.processes import resident_bytes
from llamactl.instances.states import Status
from llamactl.models.fit import Device, Machine
from llamactl.web import Services

if TYPE_CHECKING:
    from llamactl.instances.snapshot import InstanceSnapshot

INSTANCE = ("instance",)


class Collector:
    """One scrape, with the devices as they were seen last."""

    def __init__(self, running: Services, devices: Sequence[Device]) -> None:
        self._services = running
        self._devices = devices

    def collect(self) -> Iterator[Metric]:
        yield from self._gateway()
        yield from self._instances(self._services.supervisor.instances())
        yield self._told_by_instances()
        yield from self._downloads()
        yield from _memory(Machine(read_ram(), tuple(self._devices)))

    def _gateway(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "llamactl_requests",
            "Inference requests that have ended, by HTTP status or by what went wrong.",
            labels=("instance", "result"),
        )
        tokens = CounterMetricFamily(
            "llamactl_tokens", "Tokens that answers were made of.", labels=("instance", "kind")
        )
        duration = HistogramMetricFamily(
            "llamactl_request_seconds",
            "Seconds from a request's arrival to the end of its answer.",
            labels=INSTANCE,
        )
        first_byte = HistogramMetricFamily(
            "llamactl_first_byte_seconds",
            "Seconds from a request's arrival to the first byte of its answer.",
            labels=INSTANCE,
        )
        first_token = HistogramMetricFamily(
            "llamactl_first_token_seconds",
            "Seconds from a request's arrival to the first token of its stream.",
            labels=INSTANCE,
        )
        for name, entry in sorted(self._services.gateway.statistics().items()):
            for result, count in sorted(entry.results.items()):
                requests.add_metric((name, result), count)
            tokens.add_metric((name, "prompt"), entry.prompt_tokens)
            tokens.add_metric((name, "generated"), entry.generated_tokens)
            duration.add_metric((name,), _buckets(entry.duration), entry.duration.total)
            first_byte.add_metric((name,), _buckets(entry.first_byte), entry.first_byte.total)
            first_token.add_metric((name,), _buckets(entry.first_token), entry.first_token.total)
        yield from (requests, tokens, duration, first_byte, first_token)
        yield GaugeMetricFamily(
            "llamactl_requests_in_flight",
            "Inference requests that are being answered.",
            value=self._services.gateway.in_flight(),
        )

    def _told_by_instances(self) -> Metric:
        family = CounterMetricFamily(
            "llamactl_instance_tokens",
            "Tokens as an instance counts them since its start, where nginx carries its answers.",
            labels=("instance", "kind"),
        )
        for name, usage in sorted(self._services.gateway.instance_tokens().items()):
            family.add_metric((name, "prompt"), usage.prompt)
            family.add_metric((name, "generated"), usage.generated)
        return family

    def _instances(self, instances: Sequence[InstanceSnapshot]) -> Iterator[Metric]:
        yield _by_state(
            "llamactl_instances",
            "Instances by state.",
            get_args(Status),
            Counter(each.status for each in instances),
        )
        leases = GaugeMetricFamily(
            "llamactl_instance_in_flight", "Requests that hold an instance.", labels=INSTANCE
        )
        for each in instances:
            leases.add_metric((each.name,), each.in_flight)
        yield leases
        wedged = GaugeMetricFamily(
            "llamactl_instance_wedged",
            "1 while an instance serves requests and gets no token further.",
            labels=INSTANCE,
        )
        for each in instances:
            if each.status == "running":
                wedged.add_metric((each.name,), each.health == "wedged")
        yield wedged
        memory = GaugeMetricFamily(
            "llamactl_instance_memory_bytes",
            "Resident memory of an instance's processes, the mapped part of its model included.",
            labels=INSTANCE,
        )
        running = {each.pid: each.name for each in instances if each.pid is not None}
        for pid, size in resident_bytes(list(running)).items():
            memory.add_metric((running[pid],), size)
        yield memory

    def _downloads(self) -> Iterator[Metric]:
        jobs = self._services.downloads.jobs()
        yield _by_state(
            "llamactl_downloads",
            "Download jobs by state.",
            get_args(JobStatus),
            Counter(snapshot.job.status for snapshot in jobs),
        )
        yield GaugeMetricFamily(
            "llamactl_download_bytes_per_second",
            "What all downloads receive together.",
            value=sum(
                snapshot.progress.bytes_per_second
                for snapshot in jobs
                if snapshot.job.status == "downloading"
            ),
        )


def _memory(machine: Machine) -> Iterator[Metric]:
    if machine.ram is not None:
        yield GaugeMetricFamily(
            "llamactl_memory_free_bytes",
            "Memory of this machine that programs can still have.",
            value=machine.ram.free,
        )
        yield GaugeMetricFamily(
            "llamactl_memory_total_bytes", "Memory of this machine.", value=machine.ram.total
        )
    free = GaugeMetricFamily(
        "llamactl_device_memory_free_bytes",
        "Free memory of a device, as llama.cpp reports it.",
        labels=("device", "description"),
    )
    total = GaugeMetricFamily(
        "llamactl_device_memory_total_bytes",
        "Memory of a device, as llama.cpp reports it.",
        labels=("device", "description"),
    )
    for device in machine.devices:
        free.add_metric((device.name, device.description), device.memory.free)
        total.add_metric((device.name, device.description), device.memory.total)
    yield from (free, total)


def _by_state(name: str, help_text: str, states: Sequence[str], counts: Counter[str]) -> Metric:
    # Each state is there, with 0 too: a series that comes and goes cannot be alerted on.
    family = GaugeMetricFamily(name, help_text, labels=("state",))
    for state in states:
        family.add_metric((state,), counts[state])
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound, as Prometheus wants them."""
    bounds = [*(str(bound) for bound in SECONDS), "+Inf"]
    cumulative = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip(bounds, histogram.counts, strict=True):
        cumulative += count
        buckets.append((bound, cumulative))
    return buckets
