"""What each answer tells the browser, and which other sites may read answers."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from llamactl import assets
from llamactl.web.security import CONTENT_POLICY
from tests.web.visitor import Visitor

FRIEND = "https://chat.example"


@pytest.fixture
def settings() -> dict[str, object]:
    return {"server.allowed_origins": [FRIEND]}


# Headers


@pytest.mark.parametrize(
    "path",
    ["/models", "/login", "/nowhere", "/static/llamactl.css", "/api/v1/instances", "/v1/models"],
)
def test_every_answer_binds_the_browser(visitor: Visitor, path: str) -> None:
    headers = visitor.client.get(path, buffered=True).headers
    assert headers["Content-Security-Policy"] == CONTENT_POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_pages_are_kept_by_no_cache_and_versioned_files_for_a_year(visitor: Visitor) -> None:
    page = visitor.open("/models")
    assert visitor.answer.headers["Cache-Control"] == "no-store"
    addresses = [each["href"] for each in page.all("link")] + [
        each["src"] for each in page.all("script")
    ]
    assert len(addresses) >= 4
    for each in addresses:
        answer = visitor.client.get(each, buffered=True)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
    bare = visitor.client.get("/static/llamactl.css", buffered=True)
    assert bare.headers["ETag"] and "immutable" not in bare.headers["Cache-Control"]


def test_no_template_has_anything_inline_or_unescaped() -> None:
    files = sorted(assets.templates_dir().rglob("*.html"))
    assert len(files) > 15
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), file
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), file
        assert not re.search(r"\|\s*safe|autoescape|Markup", text), file


# Other origins


def test_an_allowed_origin_may_call_v1_and_nothing_else(
    anonymous: FlaskClient, inference_key: str
) -> None:
    asked = {
        "Origin": FRIEND,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    preflight = anonymous.options("/v1/chat/completions", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == FRIEND
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
    answer = anonymous.get(
        "/v1/models", headers={"Origin": FRIEND, "Authorization": f"Bearer {inference_key}"}
    )
    assert answer.headers["Access-Control-Allow-Origin"] == FRIEND
    assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    for path in ("/api/v1/instances", "/models", "/login", "/v1x"):
        other = anonymous.options(path, headers=asked)
        assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://chat.example.evil.example"]
)
def test_no_other_origin_is_told_anything(anonymous: FlaskClient, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for answer in (
        anonymous.options("/v1/chat/completions", headers=asked),
        anonymous.get("/v1/models", headers={"Origin": origin}),
    ):
        assert "Access-Control-Allow-Origin" not in answer.headers
