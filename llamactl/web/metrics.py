"""``/healthz`` and ``/metrics``: what machines watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from flask import Blueprint, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from llamactl.gateway.statistics import SECONDS, Histogram
from llamactl.secret import Secret
from llamactl.web import Services, services
from llamactl.web.answers import text_answer
from llamactl.web.auth import authenticate_management, presented_key

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say ok, to anyone."""
    return text_answer("ok\n")


@blueprint.get("/metrics")
def show() -> Response:
    """Show counters and gauges in Prometheus's text format."""
    _let_in()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(services()))
    answer = Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _let_in() -> None:
    wanted = services().config.auth.metrics_key
    key = presented_key()
    if wanted is None or key is None or Secret(key) != wanted:
        authenticate_management()


class _Collector:
    """Reads the services at the moment of a scrape; nothing is counted twice."""

    def __init__(self, running: Services) -> None:
        self._services = running

    def collect(self) -> Iterator[Metric]:
        yield from self._gateway()
        yield from self._states()
        yield self._told_by_instances()

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
            labels=("instance",),
        )
        first_byte = HistogramMetricFamily(
            "llamactl_first_byte_seconds",
            "Seconds from a request's arrival to the first byte of its answer.",
            labels=("instance",),
        )
        for name, entry in sorted(self._services.gateway.statistics().items()):
            for result, count in sorted(entry.results.items()):
                requests.add_metric((name, result), count)
            tokens.add_metric((name, "prompt"), entry.prompt_tokens)
            tokens.add_metric((name, "generated"), entry.generated_tokens)
            duration.add_metric((name,), _buckets(entry.duration), entry.duration.total)
            first_byte.add_metric((name,), _buckets(entry.first_byte), entry.first_byte.total)
        yield from (requests, tokens, duration, first_byte)
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

    def _states(self) -> Iterator[Metric]:
        instances = self._services.supervisor.instances()
        yield _by_state(
            "llamactl_instances", "Instances by state.", Counter(each.status for each in instances)
        )
        leases = GaugeMetricFamily(
            "llamactl_instance_in_flight",
            "Requests that hold an instance.",
            labels=("instance",),
        )
        for instance in instances:
            leases.add_metric((instance.name,), instance.in_flight)
        yield leases
        jobs = self._services.downloads.jobs()
        yield _by_state(
            "llamactl_downloads",
            "Download jobs by state.",
            Counter(snapshot.job.status for snapshot in jobs),
        )


def _by_state(name: str, help_text: str, counts: Counter[str]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=("state",))
    for state, count in sorted(counts.items()):
        family.add_metric((state,), count)
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
