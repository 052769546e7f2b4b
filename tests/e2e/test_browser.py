"""The pages in a real browser over a real server, with a script and without."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

from tests.e2e.conftest import Make
from tests.e2e.processes import PATIENCE, LlamactlProcess, wait_for
from tests.fakes.fake_hub import FakeHub, seeded_bytes
from tests.fakes.gguf_files import tiny_gguf_bytes
from tests.requirements import require, require_module

REPO = "acme/Tiny-Chat-GGUF"
REFERENCE = f"{REPO}:Q4_K_M"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
MILLISECONDS = PATIENCE * 1000
#: Bytes per second on each connection, few enough to be looked at for a while on a busy machine.
SLOW = 20_000


@dataclass
class Visit:
    """One browser window on one server, and all that its console said."""

    page: Page
    server: LlamactlProcess
    said: list[str] = field(default_factory=list)
    clicks: int = 0

    def open(self, path: str) -> None:
        self.page.goto(self.server.url + path)

    def press(self, name: str) -> None:
        self.clicks += 1
        self.page.get_by_role("button", name=name, exact=True).click()

    def log_in(self) -> None:
        self.open("/login")
        self.page.get_by_label("Management key").fill(self.server.key)
        self.press("Log in")
        expect(self.page.get_by_role("heading", name="Models", exact=True)).to_be_visible()

    def start_download(self, reference: str) -> None:
        self.open("/models")
        self.press("Download Model")
        self.page.get_by_label("Model", exact=True).fill(reference)
        self.press("Start Download")

    def progress(self) -> int:
        """Thousandths of the one download."""
        bar = self.page.locator("progress")
        return int(bar.get_attribute("value") or 0) if bar.count() else 0


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    # It would leave its reports of crashes in the home of whoever runs the tests.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    environment: dict[str, str | float | bool] = {
        **kept,
        "HOME": str(tmp_path_factory.mktemp("browser")),
    }
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=require("chromium"), args=ARGUMENTS, env=environment
        )
        yield running
        running.close()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.add_repo(REPO, {"Tiny-Chat-Q4_K_M.gguf": tiny_gguf_bytes(seed=1)})
        hub.add_repo("acme/Large-GGUF", {"Large-Q8_0.gguf": seeded_bytes(20_000_000, 7)})
        yield hub


@pytest.fixture
def server(make_server: Make, hub: FakeHub) -> LlamactlProcess:
    return make_server(environment={"HF_ENDPOINT": hub.endpoint}).start()


@pytest.fixture
def visit(browser: Browser, server: LlamactlProcess) -> Iterator[Callable[..., Visit]]:
    """``visit(script=False, width=360)``: a window; its console must have stayed silent."""
    opened: list[tuple[BrowserContext, Visit]] = []

    def make(*, script: bool = True, width: int = 1280, zone: str | None = None) -> Visit:
        context = browser.new_context(
            java_script_enabled=script,
            viewport={"width": width, "height": 800},
            timezone_id=zone,
        )
        context.set_default_timeout(MILLISECONDS)
        made = Visit(context.new_page(), server)
        made.page.on("console", lambda message: made.said.append(_shown(message)))
        made.page.on("pageerror", lambda error: made.said.append(str(error)))
        opened.append((context, made))
        return made

    expect.set_options(timeout=MILLISECONDS)
    yield make
    for context, made in opened:
        context.close()
        assert made.said == []


def _shown(message: ConsoleMessage) -> str:
    return f"{message.type}: {message.text}"


@pytest.mark.parametrize("script", [True, False], ids=["with a script", "without a script"])
def test_the_whole_way_from_a_name_to_a_running_instance(
    visit: Callable[..., Visit], hub: FakeHub, server: LlamactlProcess, script: bool
) -> None:
    require_module("xllamacpp")
    browser = visit(script=script)
    page = browser.page
    browser.open("/models")
    assert page.url.startswith(f"{server.url}/login"), "every page asks for the key first"
    browser.log_in()
    expect(page.get_by_role("link", name="Models", exact=True)).to_have_attribute(
        "aria-current", "page"
    )

    hub.throttle(SLOW)
    browser.start_download(REFERENCE)
    first = wait_for("progress", browser.progress)
    wait_for("progress that moves by itself", lambda: browser.progress() > first)
    expect(page.get_by_text("Tiny-Chat-Q4_K_M.gguf", exact=True).first).to_be_visible()
    hub.throttle(None)
    expect(page.get_by_text("completed", exact=True)).to_be_visible()
    flat = server.flat / "acme_Tiny-Chat-GGUF_Tiny-Chat-Q4_K_M.gguf"
    cached = page.locator("table").get_by_text(str(flat), exact=True)
    expect(cached).to_be_visible()

    browser.press(f"Run {REFERENCE}")
    expect(page.get_by_label("Model", exact=True)).to_have_value(str(flat))
    expect(page.get_by_label("Backend type")).to_have_text("llama.cpp")
    page.get_by_label("Name", exact=True).fill("tiny")
    page.get_by_label("Context size").fill("512")
    browser.press("Create Instance")
    expect(page.get_by_role("heading", name="tiny", exact=True)).to_be_visible()
    browser.press("Start tiny")
    expect(page.locator(".status.good")).to_have_text("running")
    expect(page.locator(".log")).to_contain_text(re.compile(r"\w"))

    browser.press("Stop tiny")
    expect(page.locator("#status .status")).to_have_text("stopped")
    browser.press("Delete tiny")
    browser.press("Delete instance")
    expect(page.get_by_text("No instance yet.")).to_be_visible()
    browser.open("/models")
    browser.press(f"Delete {REFERENCE}")
    assert flat.exists()
    browser.press("Delete model")
    expect(page.get_by_text("No model is cached yet.")).to_be_visible()
    assert not flat.exists()


def cached(browser: Visit) -> None:
    """Someone who is logged in and has one model."""
    browser.log_in()
    browser.start_download(REFERENCE)
    expect(browser.page.get_by_text("completed", exact=True)).to_be_visible()


@pytest.mark.parametrize("script", [True, False], ids=["with a script", "without a script"])
def test_a_cached_model_runs_after_two_clicks(visit: Callable[..., Visit], script: bool) -> None:
    require_module("xllamacpp")
    browser = visit(script=script)
    cached(browser)
    browser.clicks = 0
    browser.press(f"Run {REFERENCE}")
    browser.press("Create and start")
    expect(browser.page.locator("#status .status")).to_have_text("running")
    assert browser.clicks == 2
    browser.press("Stop tiny-chat-q4_k_m")
    expect(browser.page.locator("#status .status")).to_have_text("stopped")


def test_the_estimate_and_the_line_follow_the_slider_and_the_fields(
    visit: Callable[..., Visit],
) -> None:
    browser = visit()
    page = browser.page
    cached(browser)
    browser.press(f"Run {REFERENCE}")
    estimate, line = page.locator("#estimate"), page.locator("#line")
    expect(estimate).to_contain_text("Context (8,192 tokens)")
    expect(line).to_contain_text("--ctx-size 8192")
    page.get_by_label("Context size").fill("4096")
    expect(estimate).to_contain_text("Context (4,096 tokens)")
    slider = page.locator("[data-slides=ctx_size]")
    slider.evaluate(
        "it => { it.value = it.max; it.dispatchEvent(new Event('input', {bubbles: true})) }"
    )
    expect(page.get_by_label("Context size")).to_have_value("262144")
    expect(estimate).to_contain_text("Context (262,144 tokens)")
    page.get_by_label("Type of cached keys").select_option("q8_0")
    expect(line).to_contain_text("--cache-type-k q8_0")
    page.get_by_label("Parallel").fill("many")
    expect(estimate).to_contain_text("must be a number")
    page.get_by_label("Parallel").fill("")
    expect(estimate).to_contain_text("Total")
    expect(page.get_by_role("button", name="Estimate")).to_have_count(0)


def test_a_log_goes_on_while_it_is_looked_at(visit: Callable[..., Visit]) -> None:
    require_module("xllamacpp")
    browser = visit()
    cached(browser)
    browser.press(f"Run {REFERENCE}")
    browser.press("Create Instance")
    log = browser.page.locator(".log")
    expect(browser.page.get_by_text("Nothing was written yet.")).to_be_visible()
    browser.page.evaluate("window.same = true")
    browser.press("Start tiny-chat-q4_k_m")
    expect(log).to_contain_text("llamactl starts")
    expect(browser.page.get_by_text("Nothing was written yet.")).to_have_count(0)
    expect(browser.page.locator("#status .status")).to_have_text("running")
    expect(browser.page.locator("#status")).to_contain_text(re.compile(r"Memory\s*[0-9.]+ [MG]B"))
    assert browser.page.evaluate("window.same"), "the page was never loaded again"
    browser.press("Stop tiny-chat-q4_k_m")
    expect(browser.page.locator("#status .status")).to_have_text("stopped")


def test_every_action_on_an_instance_works_without_a_script(
    visit: Callable[..., Visit], tmp_path: Path
) -> None:
    browser = visit(script=False)
    page = browser.page
    cached(browser)
    browser.press(f"Run {REFERENCE}")
    page.get_by_label("Context size").fill("4096")
    browser.press("Estimate")
    expect(page.locator("#estimate")).to_contain_text("Context (4,096 tokens)")
    page.get_by_text("Paste a llama-server line").click()
    model = page.get_by_label("Model", exact=True).input_value()
    page.get_by_label("Line", exact=True).fill(f"llama-server -m {model} -c 2048 --port 1")
    browser.press("Fill the fields")
    expect(page.get_by_label("Context size")).to_have_value("2048")
    browser.press("Create Instance")
    browser.press("Duplicate tiny-chat-q4_k_m")
    page.get_by_label("Name", exact=True).fill("twin")
    browser.press("Create Instance")
    browser.press("Edit twin")
    page.get_by_label("Threads").fill("1")
    browser.press("Save")
    expect(page.get_by_role("heading", name="twin", exact=True)).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Export twin").click()
    exported = tmp_path / "again.json"
    download.value.save_as(exported)
    browser.open("/instances")
    browser.press("Import")
    page.get_by_label("File").set_input_files(exported)
    browser.press("Import")
    expect(page.get_by_role("heading", name="again", exact=True)).to_be_visible()
    expect(page.get_by_text('"threads": 1')).to_be_visible()
    browser.press("Delete again")
    browser.press("Delete instance")
    expect(page.get_by_role("link", name="twin", exact=True)).to_be_visible()


PAGES = [
    "/models",
    "/models?form=download",
    "/models/search",
    "/models/acme/Tiny-Chat-GGUF?offers=1",
    "/models/updates",
    "/downloads",
    "/downloads?form=limits",
    "/instances",
    "/instances/new",
    "/instances/new/import",
    "/keys",
    "/activity",
    "/system",
    "/system/audit",
    "/docs",
]


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_scrolls_sideways_or_breaks_its_own_policy(
    visit: Callable[..., Visit], width: int
) -> None:
    browser = visit(width=width)
    browser.log_in()
    for path in PAGES:
        browser.open(path)
        browser.page.wait_for_load_state("load")
        sideways = browser.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert sideways == 0, path
        hidden = browser.page.locator(".top nav").evaluate(
            "nav => nav.scrollWidth - nav.clientWidth"
        )
        assert hidden == 0, path


def test_what_the_hub_offers_comes_by_itself_where_a_script_runs(
    visit: Callable[..., Visit],
) -> None:
    browser = visit()
    browser.log_in()
    browser.open(f"/models/{REPO}?ctx_size=4096")
    expect(browser.page.get_by_role("button", name=f"Download {REFERENCE}")).to_be_visible()
    expect(browser.page.get_by_role("button", name="Ask the hub")).to_be_hidden()
    plain = visit(script=False)
    plain.log_in()
    plain.open(f"/models/{REPO}")
    plain.press("Ask the hub")
    expect(plain.page.get_by_role("button", name=f"Download {REFERENCE}")).to_be_visible()


def test_what_is_typed_keeps_its_focus_while_a_download_moves(
    visit: Callable[..., Visit], hub: FakeHub
) -> None:
    hub.throttle(SLOW)
    browser = visit()
    browser.log_in()
    browser.start_download("acme/Large-GGUF:Q8_0")
    browser.press("Download Model")
    typed = browser.page.get_by_label("Model", exact=True)
    typed.press_sequentially("acme/half-a-na")
    first = wait_for("progress", browser.progress)
    wait_for("progress that moves by itself", lambda: browser.progress() > first)
    expect(typed).to_be_focused()
    expect(typed).to_have_value("acme/half-a-na")


def test_cached_models_are_filtered_while_a_person_types(visit: Callable[..., Visit]) -> None:
    window = visit()
    page = window.page
    for number in range(12):
        name = f"model{number}-Q8_0.gguf"
        flat = window.server.flat / f"lab_Model-{number}_{name}"
        flat.parent.mkdir(exist_ok=True)
        flat.write_bytes(b"GGUF")
        manifest = {"ggufFile": {"rfilename": name}}
        described = flat.with_name(f"manifest=lab=Model-{number}=Q8_0.json")
        described.write_text(json.dumps(manifest))
    window.log_in()
    cached = page.locator("#cached")
    expect(cached).to_contain_text("12 models")
    typed = page.get_by_label("Filter the cached models")
    typed.press_sequentially("model-11")
    expect(cached).to_contain_text("1 of 12 models", timeout=MILLISECONDS)
    expect(cached).not_to_contain_text("lab/Model-3")
    expect(typed).to_be_focused()
    # What the page asks for by itself keeps to what is typed: the deletion is seen, filtered.
    (window.server.flat / "lab_Model-3_model3-Q8_0.gguf").unlink()
    expect(cached).to_contain_text("1 of 11 models", timeout=MILLISECONDS)
    typed.fill("")
    expect(cached).to_contain_text("lab/Model-5", timeout=MILLISECONDS)


def test_a_button_acts_in_place_and_keeps_the_focus(
    visit: Callable[..., Visit], hub: FakeHub
) -> None:
    hub.throttle(SLOW)
    browser = visit()
    page = browser.page
    browser.log_in()
    browser.start_download("acme/Large-GGUF:Q8_0")
    first = wait_for("progress", browser.progress)
    page.evaluate("window.same = true")
    cancel = page.get_by_role("button", name="Cancel acme/Large-GGUF:Q8_0")
    cancel.focus()
    wait_for("progress that moves by itself", lambda: browser.progress() > first)
    expect(cancel).to_be_focused()
    page.get_by_role("button", name="Pause acme/Large-GGUF:Q8_0").press("Enter")
    expect(page.get_by_text("paused", exact=True)).to_be_visible()
    resume = page.get_by_role("button", name="Resume acme/Large-GGUF:Q8_0")
    expect(resume).to_be_focused()
    resume.press("Enter")
    wait_for("progress that goes on", lambda: browser.progress() > first)
    cancel.click()
    expect(page.get_by_text("cancelled", exact=True)).to_be_visible()
    assert page.evaluate("window.same"), "the page was never loaded again"


def test_a_form_that_is_on_its_way_is_not_sent_again(visit: Callable[..., Visit]) -> None:
    browser = visit()
    browser.log_in()
    browser.open("/instances/new")
    # Events of a script's own making send nothing, but tell what would become of a real one.
    stopped = browser.page.locator("#instance-form").evaluate(
        """form => [1, 2].map(() => {
            const submit = new Event("submit", { bubbles: true, cancelable: true });
            form.dispatchEvent(submit);
            return submit.defaultPrevented;
        })"""
    )
    assert stopped == [False, True]


def test_a_button_that_is_refused_says_why_and_a_later_one_takes_that_back(
    visit: Callable[..., Visit],
) -> None:
    browser = visit(width=360)
    page = browser.page
    browser.log_in()
    browser.open("/instances/new")
    page.get_by_label("Name", exact=True).fill("one")
    browser.press("Create Instance")
    tokens = page.locator("#status input[name=csrf_token]")
    token = tokens.first.input_value()
    alerts = page.locator("#alerts")
    start = page.get_by_role("button", name="Start one")
    tokens.evaluate_all("all => all.forEach(each => { each.value = 'of another login' })")
    start.click()
    expect(alerts).to_contain_text("This form is out of date, and nothing was changed.")
    expect(alerts).to_be_in_viewport()
    tokens.evaluate_all("(all, token) => all.forEach(each => { each.value = token })", token)
    start.click()
    expect(alerts).to_be_empty()
    # That the server refused is the one thing that may be said.
    browser.said[:] = [each for each in browser.said if "403" not in each]


@pytest.mark.parametrize("script", [True, False], ids=["with a script", "without a script"])
def test_what_is_wrong_in_a_form_has_the_focus(visit: Callable[..., Visit], script: bool) -> None:
    browser = visit(script=script)
    page = browser.page
    browser.log_in()
    browser.open("/instances/new")
    page.get_by_label("Name", exact=True).fill("one")
    page.get_by_text("More options").click()
    page.get_by_label("Extra arguments").fill("--host 0.0.0.0")
    browser.press("Create Instance")
    expect(page.get_by_label("Extra arguments")).to_be_focused()
    expect(page.locator("#extra_args-wrong")).to_contain_text("--host cannot be set")
    browser.said[:] = [each for each in browser.said if "400" not in each]


def test_a_window_says_when_the_server_is_gone_and_when_it_is_back(
    visit: Callable[..., Visit], server: LlamactlProcess
) -> None:
    browser = visit()
    browser.log_in()
    absent = browser.page.get_by_text("The server does not answer.")
    expect(absent).to_be_hidden()
    browser.page.context.set_offline(True)
    expect(absent).to_be_visible()
    browser.page.context.set_offline(False)
    expect(absent).to_be_hidden()
    # The word about the requests that failed is the one thing that may be said.
    expected = re.compile("ERR_INTERNET_DISCONNECTED|htmx:(sendError|afterRequest)")
    browser.said[:] = [each for each in browser.said if not expected.search(each)]


def test_times_are_told_in_the_readers_own_zone_and_without_a_script_in_utc(
    visit: Callable[..., Visit],
) -> None:
    told = {}
    for script in (True, False):
        browser = visit(script=script, zone="Asia/Kolkata")
        browser.log_in()
        browser.open("/system/audit")
        when = browser.page.locator("tbody time").first
        utc = datetime.fromisoformat((when.get_attribute("datetime") or "").replace("Z", "+00:00"))
        told[script] = (when.inner_text(), utc)
    text, utc = told[True]
    assert text == f"{utc + timedelta(hours=5, minutes=30):%Y-%m-%d %H:%M:%S}"
    text, utc = told[False]
    assert text == f"{utc:%Y-%m-%d %H:%M:%S} UTC"


def test_a_time_that_was_told_locally_stays_so_when_its_page_moves(
    visit: Callable[..., Visit], hub: FakeHub
) -> None:
    hub.throttle(SLOW)
    browser = visit(zone="Asia/Kolkata")
    browser.log_in()
    browser.start_download("acme/Large-GGUF:Q8_0")
    browser.page.get_by_role("link", name="acme/Large-GGUF").click()
    asked = browser.page.locator("time").first
    first = wait_for("progress", browser.progress)
    before = asked.inner_text()
    assert "UTC" not in before
    wait_for("progress that moves by itself", lambda: browser.progress() > first)
    assert asked.inner_text() == before


def test_a_path_is_copied_by_its_button(
    visit: Callable[..., Visit], server: LlamactlProcess, tmp_path: Path
) -> None:
    browser = visit()
    browser.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    browser.log_in()
    browser.open("/system")
    row = browser.page.get_by_role("row").filter(has_text=str(server.flat)).first
    row.get_by_role("button", name="Copy the path").click()
    expect(row.get_by_text("Copied", exact=True)).to_be_visible()
    assert browser.page.evaluate("navigator.clipboard.readText()") == str(server.flat)
