"""The page of the interface for programs."""

from __future__ import annotations

from flask import Flask

from llamactl.web.api.openapi import document
from llamactl.web.docs_view import SAME, docs_view
from tests.web.visitor import Visitor


def test_every_described_operation_is_on_the_page(visitor: Visitor, app: Flask) -> None:
    visitor.open("/docs")
    text = visitor.answer.text
    described = document(app)["paths"]
    assert isinstance(described, dict)
    anchors = {
        operation["operationId"]
        for path, methods in described.items()
        for operation in methods.values()
        if not path.startswith(SAME)
    }
    assert len(anchors) > 60
    for anchor in anchors:
        assert f'id="{anchor}"' in text
    assert "<strong>POST</strong> /api/v1/models/download</code>" in text
    assert "/openapi.json" in text


def test_values_of_a_body_are_named_with_their_type(app: Flask) -> None:
    operations = [each for room in docs_view(document(app)).rooms for each in room.operations]
    download = next(each for each in operations if each.path == "/api/v1/models/download")
    assert [(value.name, value.place, value.kind) for value in download.values] == [
        ("repo", "body", "string")
    ]
    accepted = next(answer for answer in download.answers if answer.status == "202")
    assert (accepted.kind, accepted.link) == ("Submitted", "Submitted")


def test_every_link_to_what_an_answer_is_made_of_leads_to_it(visitor: Visitor) -> None:
    page = visitor.open("/docs")
    links = {each["href"] for each in page.all("a") if each["href"].startswith("#schema-")}
    assert {"#schema-Job", "#schema-Instance", "#schema-Audit"} <= links
    for link in links:
        page.one(id=link.removeprefix("#"))
    job = page.one(id="schema-Job").text
    assert "status queued or downloading or paused" in job
    assert "progress Progress" in job
