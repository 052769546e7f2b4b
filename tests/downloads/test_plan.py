"""What a job will fetch, made of what the hub says and kept over a restart."""

from __future__ import annotations

import threading

import pytest

from llamactl.downloads.plan import Plan, make_plan
from llamactl.errors import NoSuchTag, RepoNotFound
from llamactl.hub.client import HubClient
from llamactl.models.reference import ModelRef
from tests.downloads.conftest import FILE, REF, REPO
from tests.fakes.fake_hub import FakeHub, seeded_bytes


def plan(hub: FakeHub, ref: ModelRef = REF) -> Plan:
    client = HubClient(hub.endpoint, lambda: None, False, backoff=0.01)
    return make_plan(client, ref, threading.Event())


def test_a_plan_comes_back_from_its_json_as_it_was(hub: FakeHub) -> None:
    hub.push(REPO, {"mmproj-F16.gguf": seeded_bytes(100), "preset.ini": b"[x]\n"})
    made = plan(hub).with_done("preset.ini")
    assert made.manifest is not None
    assert made.selection.mmproj is not None and made.selection.preset is not None
    assert Plan.from_json(made.to_json()) == made


def test_a_plan_is_of_one_commit_and_knows_the_whole_listing(hub: FakeHub) -> None:
    made = plan(hub)
    assert made.commit == hub.routes.repos[REPO].main
    assert {file.filename for file in made.listing} == {FILE, "README.md"}
    assert [file.filename for file in made.selection.files] == [FILE]


def test_a_hub_without_manifests_is_asked_for_its_listing_alone(hub: FakeHub) -> None:
    hub.routes.manifests = False
    made = plan(hub)
    assert made.manifest is None
    assert Plan.from_json(made.to_json()) == made


def test_a_tag_that_the_manifest_does_not_know_may_be_in_the_listing(hub: FakeHub) -> None:
    hub.fault("hub", "/manifests/", kind="status", status=400, body=b"no such tag")
    assert [file.filename for file in plan(hub).selection.ggufs] == [FILE]


def test_what_does_not_exist_is_said(hub: FakeHub) -> None:
    with pytest.raises(NoSuchTag, match="Q4_K_M"):
        plan(hub, ModelRef(REPO, "Q2_K"))
    with pytest.raises(RepoNotFound):
        plan(hub, ModelRef("org/none"))
