"""The page of one repository: what fits, verification, repair, and word of updates."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from llamactl.config import Config
from llamactl.instances import memory
from llamactl.models.fit import Memory
from llamactl.runtime import Runtime
from tests.fakes.fake_hub import FakeHub
from tests.fakes.gguf_files import tiny_gguf_bytes
from tests.web.conftest import Q4, Q8, REPO, until
from tests.web.visitor import Element, Visitor

REFERENCE = f"{REPO}:Q4_K_M"
PAGE = f"/models/{REPO}"


@pytest.fixture
def visitor(anonymous: FlaskClient, management_key: str, hub: FakeHub) -> Visitor:
    """Someone who has cached one of a repository's two real models."""
    hub.add_repo(REPO, {Q4: tiny_gguf_bytes(seed=1), Q8: tiny_gguf_bytes(seed=2)})
    visitor = Visitor(anonymous)
    visitor.log_in(management_key)
    visitor.open("/models?form=download")
    visitor.press("Start Download", repo=REFERENCE)
    until(visitor, "/models", lambda page: "completed" in page.text)
    return visitor


@pytest.fixture
def gguf(web_config: Config) -> Path:
    return web_config.llama_cpp.cache_dir / f"{REPO.replace('/', '_')}_{Q4}"


def memory_of(page: Element) -> str:
    [term] = [each for each in page.all("dt") if each.text == "Memory"]
    return term.within("div").one("dd").text


def row_of(page: Element, tag: str) -> Element:
    [row] = [each for each in page.all("tr") if tag in each.text]
    return row


def test_the_memory_that_a_cached_model_takes_follows_the_chosen_context(visitor: Visitor) -> None:
    page = visitor.open(PAGE)
    assert visitor.field("Context that is to fit").text
    assert "594 kB weights + 4.2 MB cache" in memory_of(page)
    assert "of this machine's memory are free" in page.text
    page = visitor.press("Show", ctx_size="65536")
    assert "594 kB weights + 33.6 MB cache" in memory_of(page)
    chosen = [each.text for each in page.all("option") if each.get("selected") is not None]
    assert chosen == ["65,536 tokens"]
    page = visitor.press("Ask the hub")
    assert "33.6 MB cache" in row_of(page, "Q8_0").text, "the choice stays"
    assert "4.2 MB cache" in row_of(visitor.press("Show", ctx_size="8192"), "Q8_0").text


def test_what_is_being_downloaded_is_not_offered_once_more(visitor: Visitor, hub: FakeHub) -> None:
    large = "slow/model-GGUF"
    hub.add_repo(large, {"model-Q4_K_M.gguf": bytes(4_000_000), "model-Q8_0.gguf": bytes(2_000)})
    hub.throttle(20_000)
    visitor.open("/models?form=download")
    visitor.press("Start Download", repo=f"{large}:q4_k_m")
    page = visitor.open(f"/models/{large}?offers=1")
    assert f"Download {large}:Q4_K_M" not in visitor.buttons()
    assert f"Download {large}:Q8_0" in visitor.buttons()
    [job] = [each["href"] for each in row_of(page, "Q4_K_M").all("a")]
    visitor.open(job)
    assert any(each.startswith(f"Pause {large}") for each in visitor.buttons())


def test_a_hub_that_refused_is_not_asked_again_by_itself(visitor: Visitor) -> None:
    offers = visitor.open("/models/nobody/nothing").one(id="offers")
    assert offers.get("hx-get"), "a script asks for what was not asked yet"
    page = visitor.open("/models/nobody/nothing?offers=1")
    assert visitor.answer.status_code == 404 and "does not exist" in page.text
    assert page.one(id="offers").get("hx-get") is None


def test_without_a_model_nothing_is_said_to_be_as_the_hub_has_it(
    visitor: Visitor, runtime: Runtime
) -> None:
    assert "Every cached model is as the hub has it." in visitor.open("/models/updates").text
    runtime.cache.delete(REPO, "Q4_K_M")
    assert "No model is cached yet." in visitor.open("/models/updates").text


def test_a_model_that_is_not_whole_is_completed_from_the_list(
    visitor: Visitor, web_config: Config
) -> None:
    snapshot = web_config.llama_cpp.hub_dir / "models--org--name" / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "m-Q4_K_M-00001-of-00002.gguf").write_bytes(b"GGUF")
    visitor.open("/models")
    visitor.press("Complete org/name:Q4_K_M")
    job = visitor.page.one("article", aria_label="Download of org/name:Q4_K_M")
    assert job.one(class_="name").text == "org/name"


@pytest.mark.parametrize("typed", ["-1", "many", "1e3", "9" * 40, "²"])
def test_a_context_that_is_none_is_refused(visitor: Visitor, typed: str) -> None:
    visitor.open(f"{PAGE}?ctx_size={typed}")
    assert visitor.answer.status_code == 400


def test_each_quant_says_whether_it_fits(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    for ram, said in (
        (Memory(2**33, 2**34), "fits"),
        (Memory(0, 2**34), "not now"),
        (Memory(0, 2**20), "too large"),
        (None, "not known"),
    ):
        monkeypatch.setattr(memory, "read_ram", lambda root, ram=ram: ram)
        page = visitor.open(f"{PAGE}?offers=1")
        assert said in row_of(page, "Q8_0").text
        assert said in memory_of(page)


def test_a_sound_model_is_verified_by_a_button(visitor: Visitor) -> None:
    visitor.open(PAGE)
    visitor.press(f"Verify {REFERENCE}")
    page = until(visitor, visitor.path, lambda page: "completed" in page.one("article").text)
    assert "Verification" in page.text
    assert row_of(page, Q4).one("td", data_label="Status").text == "completed"
    assert f"Repair {REFERENCE}" not in visitor.buttons()


def test_a_damaged_file_is_named_and_mended_by_a_button(
    visitor: Visitor, hub: FakeHub, gguf: Path
) -> None:
    whole = gguf.read_bytes()
    with gguf.open("r+b") as file:
        file.seek(len(whole) // 2)
        file.write(b"\0damaged")
    visitor.open(PAGE)
    visitor.press(f"Verify {REFERENCE}")
    page = until(visitor, visitor.path, lambda page: "failed" in page.one("article").text)
    assert f"Damaged: {Q4}" in page.one("article").text
    assert row_of(page, Q4).one("td", data_label="Status").text == "damaged"
    visitor.press(f"Repair {REFERENCE}")
    until(visitor, visitor.path, lambda page: "completed" in page.one("article").text)
    assert gguf.read_bytes() == whole


def test_what_is_not_cached_cannot_be_verified(visitor: Visitor, anonymous: FlaskClient) -> None:
    visitor.open(PAGE)
    token = next(visitor.page.all("input", name="csrf_token"))["value"]
    for repo, status in (("org/none", 404), ("../../x", 400), ("", 400)):
        form = {"csrf_token": token, "repo": repo, "tag": "Q4_K_M"}
        assert anonymous.post("/models/verify", data=form).status_code == status


def test_newer_files_on_the_hub_are_told_and_fetched_by_a_button(
    visitor: Visitor, hub: FakeHub, gguf: Path
) -> None:
    visitor.open("/models")
    assert "Every cached model is as the hub has it." in visitor.press("Check for Updates").text
    newer = tiny_gguf_bytes(seed=3)
    hub.push(REPO, {Q4: newer})
    assert "newer on the hub" in row_of(visitor.open(f"{PAGE}?offers=1"), "Q4_K_M").text
    page = visitor.open("/models/updates")
    assert Q4 in row_of(page, REPO).text
    visitor.press(f"Update {REFERENCE}")
    until(visitor, "/models", lambda page: page.text.count("completed") == 2)
    assert gguf.read_bytes() == newer


def test_without_a_hub_the_page_of_updates_says_so(visitor: Visitor, runtime: Runtime) -> None:
    runtime.hub._offline = True
    page = visitor.open("/models/updates")
    assert visitor.answer.status_code == 503
    assert "HF_HUB_OFFLINE" in page.one(id="alerts").text


def test_without_a_hub_the_search_says_so_and_keeps_what_was_typed(
    visitor: Visitor, runtime: Runtime
) -> None:
    runtime.hub._offline = True
    page = visitor.open("/models/search?q=tiny")
    assert visitor.answer.status_code == 503
    assert "HF_HUB_OFFLINE" in page.one(id="alerts").text
    assert page.one(id="q")["value"] == "tiny"
