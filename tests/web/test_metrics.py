"""``/metrics``: what Prometheus reads of a server with an instance and a download."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from llamactl.models.fit import Device, Machine, Memory
from llamactl.runtime import Runtime
from llamactl.web.metrics import Lookout
from tests.fakes.gguf_files import tiny_gguf
from tests.web.conftest import PATIENCE, Instances, Models

Sample = tuple[str, tuple[tuple[str, str], ...]]


def scrape(client: FlaskClient) -> Mapping[Sample, float]:
    """Every sample by its name and labels; what is no exposition raises."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.mimetype == "text/plain"
    found: dict[Sample, float] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation and family.type != "unknown", family.name
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def value(found: Mapping[Sample, float], name: str, **labels: str) -> float:
    return found[(name, tuple(sorted(labels.items())))]


@pytest.fixture
def running(instances: Instances, tmp_path: Path) -> Iterator[str]:
    (model,) = tiny_gguf(tmp_path / "tiny.gguf")
    assert instances.create("one", backend_options={"model": str(model)}).status_code == 201
    assert instances.do("one", "start", wait=PATIENCE).status_code == 200
    yield "one"


def ask(client: FlaskClient, *, stream: bool) -> None:
    body = {"model": "one", "max_tokens": 4, "stream": stream, "messages": []}
    with client.post("/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        assert answer.get_data()


def test_requests_tokens_and_times_are_told_by_instance(client: FlaskClient, running: str) -> None:
    ask(client, stream=False)
    tokens = {"instance": running, "kind": "generated"}
    assert value(scrape(client), "llamactl_tokens_total", **tokens) == 4
    ask(client, stream=True)
    found = scrape(client)
    assert value(found, "llamactl_requests_total", instance=running, result="200") == 2
    for name, count in (("request", 2), ("first_byte", 2), ("first_token", 1)):
        assert value(found, f"llamactl_{name}_seconds_count", instance=running) == count
        buckets = [
            number for key, number in found.items() if key[0] == f"llamactl_{name}_seconds_bucket"
        ]
        assert buckets == sorted(buckets) and buckets[-1] == count, "cumulative, up to +Inf"
    assert value(found, "llamactl_requests_in_flight") == 0
    assert value(found, "llamactl_instance_in_flight", instance=running) == 0


def test_an_instance_that_is_wedged_is_told(
    client: FlaskClient, running: str, runtime: Runtime
) -> None:
    assert value(scrape(client), "llamactl_instance_wedged", instance=running) == 0
    runtime.supervisor._registry.find(running).health = "wedged"
    assert value(scrape(client), "llamactl_instance_wedged", instance=running) == 1


def test_every_state_is_told_also_with_nobody_in_it(
    client: FlaskClient, running: str, models: Models, repo: str
) -> None:
    models.fetch(f"{repo}:Q4_K_M")
    found = scrape(client)
    states = {
        dict(key[1])["state"]: number
        for key, number in found.items()
        if key[0] == "llamactl_instances"
    }
    assert states == {
        "stopped": 0,
        "starting": 0,
        "running": 1,
        "stopping": 0,
        "restarting": 0,
        "failed": 0,
    }
    assert value(found, "llamactl_downloads", state="completed") == 1
    assert value(found, "llamactl_downloads", state="failed") == 0


def test_what_downloads_receive_is_told_while_they_do(
    client: FlaskClient, models: Models, slow: str
) -> None:
    assert value(scrape(client), "llamactl_download_bytes_per_second") == 0
    models.download(slow)
    deadline = time.monotonic() + PATIENCE
    while not value(scrape(client), "llamactl_download_bytes_per_second"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_memory_is_told_of_the_machine_the_server_and_each_instance(
    client: FlaskClient, running: str
) -> None:
    found = scrape(client)
    assert value(found, "llamactl_instance_memory_bytes", instance=running) > 1_000_000
    assert value(found, "process_resident_memory_bytes") > 1_000_000
    total = value(found, "llamactl_memory_total_bytes")
    assert 0 < value(found, "llamactl_memory_free_bytes") <= total
    assert total <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_devices_are_told_as_llama_cpp_reports_them_and_a_scrape_waits_for_none(
    client: FlaskClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    gpu = Device("CUDA0", 'A "GPU"', Memory(3, 8), shared=False)

    def slow_machine() -> Machine:
        assert told.wait(PATIENCE)
        return Machine(None, (gpu,))

    monkeypatch.setattr(runtime.supervisor, "machine", slow_machine)
    labels = {"device": "CUDA0", "description": 'A "GPU"'}
    name = "llamactl_device_memory_free_bytes"
    assert (name, tuple(sorted(labels.items()))) not in scrape(client)
    told.set()
    deadline = time.monotonic() + PATIENCE
    while (name, tuple(sorted(labels.items()))) not in (found := scrape(client)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert value(found, name, **labels) == 3
    assert value(found, "llamactl_device_memory_total_bytes", **labels) == 8


def test_devices_are_looked_at_by_one_at_a_time_and_again_once_that_is_old() -> None:
    looks: list[int] = []
    go_on = threading.Event()

    def look() -> Machine:
        looks.append(threading.get_ident())
        assert go_on.wait(PATIENCE)
        return Machine(None)

    lookout = Lookout(seconds=0.0)
    for _ in range(20):
        assert lookout.last(look) == ()
    assert len(looks) <= 1
    go_on.set()
    deadline = time.monotonic() + PATIENCE
    while len(looks) < 2:
        lookout.last(look)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_scrape_needs_no_further_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device("CUDA0", "", Memory(1, 2))
    lookout = Lookout(seconds=0.0)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert lookout.last(lambda: Machine(None, (device,))) == ()
    deadline = time.monotonic() + PATIENCE
    while lookout.last(lambda: Machine(None, (device,))) != (device,):
        assert time.monotonic() < deadline
        time.sleep(0.01)
