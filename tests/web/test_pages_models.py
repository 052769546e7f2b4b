"""The pages of models and downloads, as a person without a script uses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamactl.config import Config
from tests.fakes.fake_hub import FakeHub, seeded_bytes
from tests.fakes.gguf_files import tiny_gguf, tiny_gguf_bytes
from tests.web.conftest import until
from tests.web.visitor import Element, Visitor

REPO = "bartowski/Llama-3.2-3B-Instruct-GGUF"
Q4 = "Llama-3.2-3B-Instruct-Q4_K_M.gguf"
REFERENCE = f"{REPO}:Q4_K_M"
SIZE = 200_000
SLOW = "slow/model-GGUF:Q4_K_M"


@pytest.fixture
def repo(hub: FakeHub) -> str:
    hub.add_repo(REPO, {Q4: seeded_bytes(SIZE, 1), "preset.ini": b"[default]\n"})
    return REFERENCE


@pytest.fixture
def slow(hub: FakeHub) -> str:
    """A reference whose download does not end while a test looks at it."""
    hub.add_repo("slow/model-GGUF", {"model-Q4_K_M.gguf": seeded_bytes(4_000_000, 3)})
    hub.throttle(20_000)
    return SLOW


def download(visitor: Visitor, reference: str) -> None:
    visitor.open("/models")
    visitor.press("Download Model")
    visitor.press("Start Download", repo=reference)


def job(page: Element) -> Element:
    return page.one("article")


def link(page: Element, text: str) -> str:
    (found,) = (each for each in page.all("a") if each.text == text)
    return found["href"]


def cached(visitor: Visitor, reference: str) -> Element:
    download(visitor, reference)
    return until(
        visitor,
        "/models",
        lambda page: "completed" in page.text and "Cached models 1 model" in page.text,
    )


def test_home_is_the_page_of_models(visitor: Visitor) -> None:
    page = visitor.open("/")
    assert visitor.path == "/models"
    tab = page.one("a", aria_current="page")
    assert tab.text == "Models"
    assert "No model is cached yet." in page.text


def test_the_form_opens_by_a_button_and_a_download_by_another(visitor: Visitor, repo: str) -> None:
    visitor.open("/models")
    assert "Start Download" not in visitor.buttons()
    visitor.press("Download Model")
    assert visitor.field("Model")["placeholder"].endswith(":Q4_K_M")
    visitor.press("Start Download", repo=f"  {repo} ")
    assert visitor.path == "/models"
    page = until(visitor, "/models", lambda page: "completed" in page.text)
    assert job(page)["aria-label"] == f"Download of {REFERENCE}"


def test_a_running_download_tells_bytes_speed_and_file(visitor: Visitor, slow: str) -> None:
    download(visitor, slow)
    page = until(visitor, "/models", lambda page: " kB of 4.0 MB" in page.text)
    shown = job(page)
    terms = {each.text: each.within("div").one("dd").text for each in shown.all("dt")}
    assert terms["Current File"] == "model-Q4_K_M.gguf"
    assert set(terms) == {"Downloaded Bytes", "Speed", "Time left", "Current File"}
    bar = shown.one("progress")
    assert 0 <= int(bar["value"]) < int(bar["max"]) == 1000
    assert bar["aria-label"] == f"Progress of {SLOW}"
    assert bar.text.endswith("%")


def test_while_something_moves_the_page_reloads_without_a_script_but_not_under_a_form(
    visitor: Visitor, slow: str
) -> None:
    assert not list(visitor.open("/models").all("meta", http_equiv="refresh"))
    download(visitor, slow)
    refresh = visitor.open("/models").one("meta", http_equiv="refresh")
    assert refresh.within("noscript") and refresh["content"].isdigit()
    assert not list(visitor.open("/models?form=download").all("meta", http_equiv="refresh"))


def test_a_download_is_paused_resumed_and_cancelled(visitor: Visitor, slow: str) -> None:
    download(visitor, slow)
    until(visitor, "/models", lambda page: " kB of 4.0 MB" in page.text)
    visitor.press(f"Pause {SLOW}")
    until(visitor, "/models", lambda page: "paused" in job(page).text)
    visitor.press(f"Resume {SLOW}")
    until(visitor, "/models", lambda page: "paused" not in job(page).text)
    visitor.press(f"Cancel {SLOW}")
    page = until(visitor, "/downloads", lambda page: "cancelled" in page.text)
    assert "Remove from the list" in job(page).text
    visitor.press(f"Remove from the list {SLOW}")
    assert "No downloads are listed." in visitor.page.text


def test_a_failed_download_says_why_and_is_retried(visitor: Visitor, hub: FakeHub) -> None:
    hub.add_repo(REPO, {Q4: seeded_bytes(SIZE, 1)}, gated=True)
    download(visitor, REFERENCE)
    page = until(visitor, "/models", lambda page: f"Retry {REFERENCE}" in visitor.buttons())
    assert "licence" in job(page).text
    hub.add_repo(REPO, {Q4: seeded_bytes(SIZE, 1)})
    visitor.press(f"Retry {REFERENCE}")
    until(visitor, "/models", lambda page: "completed" in job(page).text)


@pytest.mark.parametrize("address", ["/models", "/downloads"])
def test_what_has_ended_is_cleared_by_a_button(
    visitor: Visitor, repo: str, hub: FakeHub, address: str
) -> None:
    cached(visitor, repo)
    download(visitor, "nobody/nothing-GGUF")
    until(visitor, address, lambda page: "failed" in page.text)
    visitor.press("Clear Ended")
    assert visitor.path == address
    page = visitor.open(address)
    assert not any(page.all("article")) and "Clear Ended" not in visitor.buttons()
    assert "Q4_K_M" in visitor.open("/models").one(id="cached").text, "the model stays"


def test_many_downloads_are_shown_page_by_page(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamactl.web.pages.downloads.PER_PAGE", 2)
    monkeypatch.setattr("llamactl.web.pages.models.MOST_JOBS", 1)
    for number in range(3):
        download(visitor, f"nobody/nothing{number}")
    page = until(visitor, "/downloads", lambda page: page.text.count("does not exist") == 2)
    assert "nothing2" in page.text and "nothing0" not in page.text
    earlier = visitor.open(link(page, "Earlier (1)"))
    assert "nothing0" in earlier.text and "nothing2" not in earlier.text
    part = earlier.one(id="jobs")["hx-get"]
    assert visitor.client.get(part).status_code == 204, "the same page of them is asked for again"
    assert link(earlier, "Later") == "/downloads"
    beyond = visitor.open("/downloads?page=9")
    assert "No job is that old." in beyond.text
    for typed in ("0", "-1", "x", "\u0661", "9" * 50):
        assert "nothing2" in visitor.open(f"/downloads?page={typed}").text
    models = visitor.open("/models")
    assert len(list(models.all("article"))) == 1
    assert link(models, "2 more") == "/downloads"


@pytest.mark.parametrize(
    "typed", ["", "nonsense", "../../x", "a/b/c", "a b/c", "org/name:tag:tag", "x" * 10_000]
)
def test_a_reference_that_is_none_is_told_beside_its_field_and_stays_typed(
    visitor: Visitor, typed: str
) -> None:
    visitor.open("/models?form=download")
    page = visitor.press("Start Download", repo=typed)
    assert visitor.answer.status_code == 400
    field = visitor.field("Model")
    assert field["value"] == typed
    assert field["aria-invalid"] == "true"
    assert page.one(id="repo-wrong").text
    assert "repo-wrong" in field["aria-describedby"].split()


def test_a_cached_model_shows_size_files_and_full_paths(
    visitor: Visitor, repo: str, web_config: Config
) -> None:
    page = cached(visitor, repo)
    row = page.one("table").one("tbody").one("tr")
    flat = web_config.llama_cpp.cache_dir / f"{REPO.replace('/', '_')}_{Q4}"
    assert row.one(class_="name").text == REPO
    assert row.one(class_="tag").text == "Q4_K_M"
    assert str(flat) in [each.text for each in row.all("code")]
    assert str(flat) in [each["data-copy"] for each in row.all("button", class_="copy")]
    assert row.one("td", data_label="Size").text == "200 kB"
    assert row.one("td", data_label="Files").text == str(len(list(row.all("code"))))


def test_a_list_without_a_filter_does_not_ask_for_one(visitor: Visitor, repo: str) -> None:
    visitor.open("/models?form=download")
    visitor.press("Start Download", repo=repo)
    for path in ("/models", "/models?part=cached", "/models?form=download&q=llama"):
        page = visitor.open(path)
        assert not list(page.all(id="filter"))
        assert page.one(id="cached").get("hx-include") is None, path
    filtered = visitor.open("/models?q=llama")
    assert filtered.one(id="cached")["hx-include"] == "#filter" and filtered.one(id="filter")
    assert visitor.open("/models?part=cached&q=").one(id="cached")["hx-include"] == "#filter"


def test_many_cached_models_are_filtered_by_words_of_their_names(
    visitor: Visitor, repo: str, web_config: Config
) -> None:
    assert not any(cached(visitor, repo).all(name="q")), "few are found without"
    flat = web_config.llama_cpp.cache_dir
    for number in range(9):
        path = f"model{number}-Q8_0.gguf"
        (flat / f"lab_Model-{number}_{path}").write_bytes(b"GGUF")
        manifest = {"ggufFile": {"rfilename": path}}
        (flat / f"manifest=lab=Model-{number}=Q8_0.json").write_text(json.dumps(manifest))
    page = visitor.open("/models")
    assert "Cached models 10 models" in page.text
    page = visitor.press("Filter", q=" MODEL-7  q8")
    assert "Cached models 1 of 10 models" in page.text
    assert "lab/Model-7" in page.text and "lab/Model-6" not in page.text
    assert page.one(name="q")["value"] == " MODEL-7  q8"
    typed = visitor.client.get(page.one(name="q")["hx-get"] + "&q=nothing+such")
    assert "No cached model has these words in its name." in typed.text
    assert "Cached models 10 models" in visitor.open(link(page, "All")).text


def test_delete_asks_first_and_then_deletes(
    visitor: Visitor, repo: str, web_config: Config
) -> None:
    flat = web_config.llama_cpp.cache_dir / f"{REPO.replace('/', '_')}_{Q4}"
    cached(visitor, repo)
    page = visitor.press(f"Delete {REFERENCE}")
    assert page.one("h1").text == f"Delete {REPO} Q4_K_M ?"
    assert str(flat) in page.text
    assert flat.exists(), "asking deletes nothing"
    visitor.press("Delete model")
    assert visitor.path == "/models"
    assert not flat.exists()
    assert "No model is cached yet." in visitor.page.text


def test_a_deletion_says_before_what_goes_and_what_another_tag_needs(
    visitor: Visitor, hub: FakeHub
) -> None:
    projector = "mmproj-F16.gguf"
    contents = {Q4: seeded_bytes(SIZE, 1), "m-Q8_0.gguf": seeded_bytes(SIZE, 2)}
    hub.add_repo(REPO, {**contents, projector: seeded_bytes(50_000, 3)})
    for tag in ("Q4_K_M", "latest", "Q8_0"):
        download(visitor, f"{REPO}:{tag}")
        until(visitor, "/models", lambda page: "completed" in page.text)
        visitor.press(f"Remove from the list {REPO}:{tag}")

    def told(tag: str) -> str:
        return (
            visitor.open(f"/models/delete?repo={REPO}&tag={tag}").one("form", class_="panel").text
        )

    before, _, after = told("Q8_0").partition("Stays")
    assert "200 kB in 1 file will be removed" in before
    assert "m-Q8_0.gguf" in before and projector not in before
    assert projector in after
    assert "Only this name goes" in told("latest")
    visitor.press("Delete model")
    visitor.open(f"/models/delete?repo={REPO}&tag=Q8_0")
    visitor.press("Delete model")
    assert "250 kB in 2 files will be removed" in told("Q4_K_M")
    assert "Stays" not in told("Q4_K_M")


def test_a_model_in_use_stays_and_the_page_says_who_uses_it(
    visitor: Visitor, repo: str, hub: FakeHub, web_config: Config
) -> None:
    cached(visitor, repo)
    hub.throttle(20_000)
    hub.push(REPO, {Q4: seeded_bytes(4_000_000, 9)})
    visitor.press(f"Delete {REFERENCE}")
    asking = visitor.page
    download(visitor, repo)
    until(visitor, "/models", lambda page: "downloading" in page.text)
    visitor.page = asking
    page = visitor.press("Delete model")
    assert visitor.answer.status_code == 409
    assert "download" in page.one(id="alerts").text
    assert (web_config.llama_cpp.cache_dir / f"{REPO.replace('/', '_')}_{Q4}").exists()


def test_what_is_not_cached_cannot_be_deleted(visitor: Visitor) -> None:
    visitor.open("/models/delete?repo=no/body&tag=Q4_K_M")
    assert visitor.answer.status_code == 404


def test_the_page_of_a_job_shows_each_file(visitor: Visitor, repo: str) -> None:
    cached(visitor, repo)
    link = job(visitor.page).one("a", class_="name")
    page = visitor.open(link["href"])
    files = [each.text for each in page.one("table").one("tbody").all("th")]
    assert Q4 in files
    assert all("100 %" in row.text for row in page.one("tbody").all("tr"))


def test_a_job_that_does_not_exist_is_a_page_that_says_so(visitor: Visitor) -> None:
    page = visitor.open("/downloads/0123456789abcdef")
    assert visitor.answer.status_code == 404
    assert "job_not_found" in page.text


def test_add_instance_from_a_cached_model_fills_the_form(
    visitor: Visitor, repo: str, web_config: Config
) -> None:
    cached(visitor, repo)
    visitor.press(f"Run {REFERENCE}")
    flat: Path = web_config.llama_cpp.cache_dir / f"{REPO.replace('/', '_')}_{Q4}"
    assert visitor.field("Model")["value"] == str(flat)
    assert visitor.field("Name")["value"] == "llama-3.2-3b-instruct-q4_k_m"


def test_the_page_of_a_repository_shows_the_facts_of_what_is_cached(
    visitor: Visitor, hub: FakeHub
) -> None:
    hub.add_repo(REPO, {Q4: tiny_gguf_bytes(seed=1)})
    page = cached(visitor, REFERENCE)
    page = visitor.open(page.one("table").one("th", scope="row").one("a")["href"])
    facts = {each.text: each.within("div").one("dd").text for each in page.all("dt")}
    assert facts["Architecture"] == "llama"
    assert {"Parameters", "Context length", "Layers", "Tokenizer"} <= set(facts)
    assert page.one("a", aria_current="page").text == "Models"


def test_a_cached_file_that_is_no_gguf_is_said_to_be_none(visitor: Visitor, repo: str) -> None:
    cached(visitor, repo)
    page = visitor.open(f"/models/{REPO}")
    assert "not a GGUF" in page.one(class_="alert warn small").text


def test_a_model_with_a_missing_file_is_completed_by_a_button(
    visitor: Visitor, hub: FakeHub, web_config: Config, tmp_path: Path
) -> None:
    shards = tiny_gguf(tmp_path / "m-Q4_K_M.gguf", shards=2)
    hub.add_repo(REPO, {shard.name: shard.read_bytes() for shard in shards})
    cached(visitor, REFERENCE)
    lost = shards[1].name
    for path in [
        *web_config.llama_cpp.cache_dir.iterdir(),
        *web_config.llama_cpp.hub_dir.rglob("*"),
    ]:
        if path.name.endswith(lost):
            path.unlink()
    page = visitor.open(f"/models/{REPO}")
    assert "A file is missing" in page.text
    assert {"Memory", "Parameters"}.isdisjoint(each.text for each in page.all("dt"))
    visitor.press(f"Complete {REFERENCE}")
    until(visitor, "/models", lambda page: page.text.count("completed") == 2)
    page = visitor.open(f"/models/{REPO}")
    assert {"Memory", "Parameters"} <= {each.text for each in page.all("dt")}
    assert f"Complete {REFERENCE}" not in visitor.buttons()


def test_files_that_the_hub_lists_and_does_not_give_are_offered_with_the_reason(
    visitor: Visitor, repo: str, hub: FakeHub
) -> None:
    hub.routes.repos[REPO].gated = "manual"
    page = visitor.open(f"/models/{REPO}?offers=1")
    assert visitor.answer.status_code == 200
    assert "licence" in page.one(id="offers").one(class_="alert warn small").text
    assert f"Download {REFERENCE}" in visitor.buttons()


def test_the_hub_is_asked_for_its_offers_by_a_button(visitor: Visitor, repo: str) -> None:
    page = visitor.open(f"/models/{REPO}")
    assert "Nothing of it is cached." in page.text
    page = visitor.press("Ask the hub")
    row = page.one("table").one("tbody").one("tr")
    assert row.one("th").text == "Q4_K_M"
    visitor.press(f"Download {REFERENCE}")
    until(visitor, "/models", lambda page: "completed" in page.text)
    page = visitor.open(f"/models/{REPO}?offers=1")
    assert "cached" in page.one("table").text
    assert f"Update {REFERENCE}" not in visitor.buttons()


def test_a_repository_that_the_hub_does_not_have_is_told_on_its_page(visitor: Visitor) -> None:
    page = visitor.open("/models/no/body?offers=1")
    assert visitor.answer.status_code == 404
    assert page.one(id="alerts").text


@pytest.mark.parametrize("path", ["/models/a/..", "/models/%2e%2e/x", "/models/a/%3Cscript%3E"])
def test_what_is_no_repository_has_no_page(visitor: Visitor, path: str) -> None:
    visitor.open(path)
    assert visitor.answer.status_code in (400, 404)


def test_the_hub_is_searched(visitor: Visitor, repo: str) -> None:
    visitor.open("/models/search")
    page = visitor.press("Search", q="llama-3.2")
    link = page.one("table").one("tbody").one("a")
    assert link.text == REPO
    assert visitor.open(link["href"]).one("h1").text == REPO
    visitor.open("/models/search")
    assert "No repository" in visitor.press("Search", q="nothing-has-this-name").text


# With a script


def test_a_part_comes_alone_and_is_204_while_it_is_the_same(visitor: Visitor, repo: str) -> None:
    page = cached(visitor, repo)
    address = page.one(id="cached")["hx-get"]
    assert visitor.client.get(address).status_code == 204
    older = address.partition("&seen=")[0]
    answer = visitor.client.get(older)
    assert answer.status_code == 200
    assert answer.text.startswith('<div id="cached"') and "<html" not in answer.text


def test_a_button_pressed_by_htmx_answers_with_no_page(visitor: Visitor, slow: str) -> None:
    download(visitor, slow)
    form = visitor.button(f"Pause {SLOW}").within("form")
    token = form.one("input", name="csrf_token")["value"]
    answer = visitor.client.post(
        form["hx-post"], data={"csrf_token": token}, headers={"HX-Request": "true"}
    )
    assert (answer.status_code, answer.headers["HX-Trigger"]) == (204, "refresh")


def test_an_error_of_a_button_pressed_by_htmx_is_told_on_the_page(
    visitor: Visitor, repo: str
) -> None:
    cached(visitor, repo)
    form = visitor.button(f"Remove from the list {REFERENCE}").within("form")
    token = form.one("input", name="csrf_token")["value"]
    answer = visitor.client.post(
        form["hx-post"].replace("remove", "pause"),
        data={"csrf_token": token},
        headers={"HX-Request": "true"},
    )
    assert answer.status_code == 422
    assert answer.headers["HX-Retarget"] == "#alerts"
    assert "completed" in answer.text and "<html" not in answer.text


def test_the_address_of_a_refused_form_leads_back_to_the_form(visitor: Visitor) -> None:
    assert visitor.open("/models/download").one("input", name="repo")
