"""What a repository offers, and which of it fits a machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from llamactl.downloads.offered import offers_json
from llamactl.downloads.offers import Offers, RepositoryOffers
from llamactl.errors import RepoNotFound
from llamactl.hub.client import HubClient
from llamactl.models.fit import Load, Machine, Memory, estimate
from llamactl.models.gguf import read_header
from llamactl.models.reference import ModelRef
from tests.downloads.conftest import Site
from tests.fakes.fake_hub import FakeHub, seeded_bytes
from tests.fakes.gguf_files import fake_mmproj, tiny_gguf

REPO = "org/tiny-GGUF"
LARGE = Machine(Memory(2**36, 2**37))
LOAD = Load(4096)


@pytest.fixture
def contents(tmp_path: Path, hub: FakeHub) -> dict[str, bytes]:
    """A model in two quants and as a set of shards, with a projector; and another model."""
    [one] = tiny_gguf(tmp_path / "tiny.gguf")
    shards = tiny_gguf(tmp_path / "s.gguf", shards=2)
    contents = {
        "tiny-Q4_K_M.gguf": one.read_bytes(),
        "tiny-Q8_0.gguf": one.read_bytes() + bytes(100_000),
        "BF16/tiny-BF16-00001-of-00002.gguf": shards[0].read_bytes(),
        "BF16/tiny-BF16-00002-of-00002.gguf": shards[1].read_bytes(),
        "mmproj-F16.gguf": fake_mmproj(),
        "README.md": b"words",
    }
    hub.add_repo(REPO, contents, lfs_threshold=100)
    return contents


def offers(site: Site, machine: Machine = LARGE) -> tuple[Offers, RepositoryOffers]:
    site.start()
    finder = Offers(HubClient(site.hub.endpoint, lambda: None, False, backoff=0.01), site.cache)
    return finder, finder.of(REPO, LOAD, machine)


def byte_requests(hub: FakeHub) -> int:
    return sum(1 for request in hub.log if "/resolve/" in request.path)


def test_every_quant_is_offered_with_its_files_and_the_memory_that_it_takes(
    site: Site, contents: dict[str, bytes], tmp_path: Path
) -> None:
    _finder, found = offers(site)
    by_tag = {offer.variant.tag: offer for offer in found.offers}
    assert set(by_tag) == {"Q4_K_M", "Q8_0", "BF16"}
    size, projector = len(contents["tiny-Q4_K_M.gguf"]), len(contents["mmproj-F16.gguf"])
    told = read_header(tmp_path / "tiny.gguf").dimensions
    assert told is not None
    expected = estimate(told, size, LOAD, projector=projector)
    assert by_tag["Q4_K_M"].need.cache == expected.cache
    assert by_tag["Q4_K_M"].need.weights == size
    assert by_tag["Q4_K_M"].need.projector == 2 * projector
    assert len(by_tag["BF16"].variant.files) == 2
    assert all(offer.verdict.fits for offer in found.offers)
    assert not any(offer.cached for offer in found.offers)


def test_one_header_is_read_for_all_quants_of_a_model_and_only_once(
    site: Site, hub: FakeHub, contents: dict[str, bytes]
) -> None:
    hub.push(REPO, {"other-Q4_0.gguf": contents["tiny-Q4_K_M.gguf"][:500]})
    finder, found = offers(site)
    assert byte_requests(hub) == 2, "one a model"
    finder.of(REPO, Load(8192), LARGE)
    assert byte_requests(hub) == 2
    unknown = next(o for o in found.offers if o.variant.files[0].filename.startswith("other"))
    assert (unknown.need.cache, unknown.verdict.fits) == (None, None)


def test_the_header_of_a_cached_model_comes_from_the_disk(
    site: Site, hub: FakeHub, contents: dict[str, bytes]
) -> None:
    site.download(ModelRef(REPO, "Q8_0"))
    before = byte_requests(hub)
    finder = Offers(HubClient(hub.endpoint, lambda: None, False), site.cache)
    found = finder.of(REPO, LOAD, LARGE)
    assert byte_requests(hub) == before
    cached = {offer.variant.tag: offer.cached for offer in found.offers}
    assert cached == {"Q4_K_M": False, "Q8_0": True, "BF16": False}
    assert all(offer.need.whole for offer in found.offers)


def test_files_that_may_not_be_read_are_offered_without_a_promise(
    site: Site, hub: FakeHub, contents: dict[str, bytes]
) -> None:
    hub.routes.repos[REPO].gated = True
    _finder, found = offers(site)
    assert {offer.verdict.fits for offer in found.offers} == {None}
    _finder, found = offers(site, Machine(Memory(0, 2**37)))
    assert {offer.verdict.fits for offer in found.offers} == {False}, "the weights alone do not"
    refused = offers_json(found)["refused"]
    assert refused is not None and "licence" in refused


def test_what_is_no_gguf_is_offered_without_a_promise(site: Site, hub: FakeHub) -> None:
    hub.add_repo(REPO, {"m-Q4_K_M.gguf": seeded_bytes(400_000, 1)})
    _finder, found = offers(site)
    assert [offer.need.cache for offer in found.offers] == [None]


def test_a_repository_that_does_not_exist_is_an_error(site: Site) -> None:
    with pytest.raises(RepoNotFound):
        offers(site)


def test_the_json_has_every_field_of_the_contract(site: Site, contents: dict[str, bytes]) -> None:
    shown = offers_json(offers(site)[1])
    assert shown["repo"] == REPO
    first = shown["variants"][0]
    assert {"tag", "files", "size", "mmproj", "cached", "fits"} <= set(first)
    assert [set(file) for file in first["files"]] == [{"name", "size"}] * 2
    assert first["mmproj"] == "mmproj-F16.gguf"
    memory: dict[str, int] = dict(first["memory"])  # type: ignore[arg-type]  # all are known
    assert memory.pop("total") == sum(memory.values())
    bare = dataclasses.replace(offers(site)[1], machine=Machine(None), offers=())
    assert offers_json(bare)["machine"] == {"ram": None, "devices": []}
