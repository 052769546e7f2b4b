"""What the hub has newer than the cache."""

from __future__ import annotations

import os

import pytest

from llamactl.downloads.updates import Update, find_updates, update_json
from llamactl.errors import HubOffline, NetworkError, RepoNotFound
from llamactl.hub.client import HubClient
from llamactl.models.reference import ModelRef
from tests.downloads.conftest import FILE, PAYLOAD, REPO, Site
from tests.fakes.fake_hub import FakeHub, seeded_bytes


def updates(site: Site, repo_id: str | None = None) -> list[Update]:
    client = HubClient(site.hub.endpoint, lambda: None, False, backoff=0.01)
    return find_updates(client, site.cache, repo_id)


def test_nothing_is_new_after_a_download(site: Site) -> None:
    site.download()
    assert updates(site) == []
    site.hub.push(REPO, {"README.md": b"other words"})
    assert updates(site, REPO) == [], "a commit without other bytes is no update"


def test_a_repository_that_did_not_move_costs_one_request(hub: FakeHub, site: Site) -> None:
    hub.push(REPO, {"preset.ini": b"[a]\n", "m-Q8_0.gguf": seeded_bytes(1000, 8)})
    site.download()
    site.download(ModelRef(REPO, "Q8_0"))
    hub.clear_log()
    assert updates(site) == []
    assert [request.path for request in hub.log] == [f"/api/models/{REPO}/refs"]


def test_newer_bytes_are_named_with_both_commits(hub: FakeHub, site: Site) -> None:
    hub.push(REPO, {"preset.ini": b"[a]\n", "m-Q8_0.gguf": seeded_bytes(1000, 8)})
    site.download()
    site.download(ModelRef(REPO, "Q8_0"))
    before = hub.routes.repos[REPO].main
    newer = hub.push(REPO, {FILE: seeded_bytes(len(PAYLOAD), "newer"), "preset.ini": b"[b]\n"})
    by_tag = {update.tag: update for update in updates(site, REPO)}
    assert by_tag["Q4_K_M"] == Update(REPO, "Q4_K_M", before, newer, (FILE, "preset.ini"))
    assert by_tag["Q8_0"].changed == ("preset.ini",)
    assert update_json(by_tag["Q8_0"]) == {
        "repo": REPO,
        "tag": "Q8_0",
        "cached_commit": before,
        "hub_commit": newer,
        "changed": ["preset.ini"],
    }


def test_a_missing_shard_is_no_update(hub: FakeHub, site: Site) -> None:
    shards = [f"F16/m-F16-0000{number}-of-00002.gguf" for number in (1, 2)]
    hub.push(REPO, {name: seeded_bytes(1000, name) for name in shards})
    site.download(ModelRef(REPO, "F16"))
    site.cache.flat.path(REPO, shards[1]).unlink()
    snapshot = site.cache.hub.snapshot(REPO, hub.routes.repos[REPO].main)
    (snapshot / shards[1]).unlink()
    assert [model.complete for model in site.cache.list()] == [False]
    assert updates(site) == []
    hub.push(REPO, {shards[0]: seeded_bytes(1000, "newer")})
    assert [update.changed for update in updates(site)] == [(shards[0],)]


def test_a_small_file_that_cannot_be_read_is_to_be_fetched(hub: FakeHub, site: Site) -> None:
    hub.push(REPO, {"preset.ini": b"[a]\n"})
    site.download()
    hub.push(REPO, {"README.md": b"other words"})
    preset = site.cache.flat.path(REPO, "preset.ini")
    preset.unlink()
    os.mkfifo(preset)
    assert [update.changed for update in updates(site)] == [("preset.ini",)]


def test_a_repository_that_is_gone_is_left_out_unless_it_was_asked_for(
    hub: FakeHub, site: Site
) -> None:
    site.download()
    hub.add_repo("org/other", {FILE: PAYLOAD})
    site.download(ModelRef("org/other", "Q4_K_M"))
    del hub.routes.repos[REPO]
    hub.push("org/other", {FILE: seeded_bytes(10, "newer")})
    assert [update.repo_id for update in updates(site)] == ["org/other"]
    with pytest.raises(RepoNotFound):
        updates(site, REPO)


def test_a_hub_that_does_not_answer_is_no_word_that_all_is_new(site: Site) -> None:
    site.download()
    silent = HubClient("http://127.0.0.1:9", lambda: None, False, backoff=0.01)
    with pytest.raises(NetworkError):
        find_updates(silent, site.cache)
    with pytest.raises(HubOffline):
        find_updates(HubClient(site.hub.endpoint, lambda: None, True), site.cache)
