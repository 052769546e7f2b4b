"""What pages owe those who do not see them: names, labels, one heading, no dangling reference."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.fakes.fake_hub import FakeHub
from tests.fakes.gguf_files import tiny_gguf_bytes
from tests.web.conftest import PATIENCE
from tests.web.visitor import Element, Visitor

REPO = "org/name-GGUF"
PAGES = [
    "/login",
    "/models",
    "/models?form=download",
    "/models/search?q=name",
    "/models/updates",
    f"/models/{REPO}?offers=1",
    f"/models/delete?repo={REPO}&tag=Q4_K_M",
    "/downloads",
    "/downloads?form=limits",
    "/instances",
    "/instances/new",
    "/instances/new/import",
    "/instances/one",
    "/instances/one/edit",
    "/instances/one/duplicate",
    "/instances/one/delete",
    "/activity",
    "/keys",
    "/keys/1/revoke",
    "/system",
    "/nowhere",
]


@pytest.fixture
def visitor(
    anonymous: FlaskClient, management_key: str, inference_key: str, hub: FakeHub, tmp_path: Path
) -> Visitor:
    """Someone who has one of everything."""
    assert inference_key
    hub.add_repo(REPO, {"name-Q4_K_M.gguf": tiny_gguf_bytes(), "preset.ini": b"[default]\n"})
    visitor = Visitor(anonymous)
    visitor.log_in(management_key)
    visitor.press("Download Model")
    visitor.press("Start Download", repo=f"{REPO}:Q4_K_M")
    deadline = time.monotonic() + PATIENCE
    while "completed" not in visitor.open("/models").text:
        assert time.monotonic() < deadline, visitor.page.text
        time.sleep(0.02)
    visitor.press(f"Run {REPO}:Q4_K_M")
    visitor.press("Create Instance", name="one")
    return visitor


def test_every_page_can_be_read_by_name(visitor: Visitor) -> None:
    for path in PAGES:
        page = visitor.open(path)
        assert page.one("html")["lang"] == "en", path
        assert len(list(page.all("h1"))) == 1, path
        assert page.one("title").text.endswith("llamactl"), path
        assert unnamed(page) == [], path
        assert dangling(page) == [], path
        assert [each for each, count in ids(page).items() if count > 1] == [], path
        for table in page.all("table"):
            assert all(cell.get("scope") for cell in table.all("th")), path


def unnamed(page: Element) -> list[str]:
    """Buttons, links and fields that nobody could call by a name."""
    labelled = {each.get("for") for each in page.all("label")}
    found = [
        str(each.attributes)
        for tag in ("button", "a")
        for each in page.all(tag)
        if not (each.get("aria-label") or each.text)
    ]
    for tag in ("input", "select", "textarea"):
        for field in page.all(tag):
            hidden = field.get("type") == "hidden" or field.get("hidden") is not None
            inside = _ancestor(field, "label")
            if not (hidden or inside or field.get("id") in labelled or field.get("aria-label")):
                found.append(str(field.attributes))
    return found + [str(each.attributes) for each in page.all("img") if each.get("alt") is None]


def dangling(page: Element) -> list[str]:
    """References to an id that is not on the page."""
    known = ids(page)
    return [
        f"{name}={reference}"
        for element in page.all()
        for name in ("for", "aria-labelledby", "aria-describedby", "list")
        for reference in (element.get(name) or "").split()
        if reference not in known
    ]


def ids(page: Element) -> Counter[str]:
    return Counter(each["id"] for each in page.all() if each.get("id"))


def _ancestor(element: Element, tag: str) -> bool:
    above = element.parent
    while above is not None and above.tag != tag:
        above = above.parent
    return above is not None
