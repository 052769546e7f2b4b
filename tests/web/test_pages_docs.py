"""The page of the interface for programs."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient

from llamactl.web.api.openapi import document
from llamactl.web.docs_view import docs_view
from tests.web.visitor import Visitor


@pytest.fixture
def visitor(anonymous: FlaskClient, management_key: str) -> Visitor:
    visitor = Visitor(anonymous)
    visitor.log_in(management_key)
    return visitor


def test_every_described_operation_is_on_the_page(visitor: Visitor, app: Flask) -> None:
    visitor.open("/docs")
    text = visitor.answer.text
    for room in docs_view(document(app)):
        for operation in room.operations:
            assert f'id="{operation.anchor}"' in text
    assert "<code>POST /api/v1/models/download</code>" in text
    assert "/openapi.json" in text


def test_values_of_a_body_are_named_with_their_type(app: Flask) -> None:
    operations = [each for room in docs_view(document(app)) for each in room.operations]
    download = next(each for each in operations if each.path == "/api/v1/models/download")
    assert [(value.name, value.place, value.kind) for value in download.values] == [
        ("repo", "body", "string")
    ]
    assert "202" in dict(download.answers)
