"""The limits of downloads, on the page of downloads."""

from __future__ import annotations

from typing import Any

import pytest

from llamactl.downloads.limits import Limits
from tests.web.visitor import Visitor


def test_limits_of_downloads_are_changed_at_once(visitor: Visitor, runtime: Any) -> None:
    visitor.open("/downloads?form=limits")
    visitor.press("Save", max_concurrent="3", bandwidth="20MB")
    assert "3 at a time, 20.0 MB/s together" in visitor.page.text
    assert runtime.downloads.limits == Limits(3, 20_000_000)
    visitor.open("/downloads?form=limits")
    assert "The configuration says: 2 at a time, no speed limit" in visitor.page.text
    visitor.press("Save", bandwidth="")
    assert runtime.downloads.limits == Limits(3, None)


def test_limits_of_downloads_return_to_the_configuration(visitor: Visitor, runtime: Any) -> None:
    page = visitor.open("/downloads?form=limits")
    assert "As Configured" not in page.text
    visitor.press("Save", max_concurrent="3")
    visitor.open("/downloads?form=limits")
    visitor.press("As Configured")
    assert "2 at a time, no speed limit" in visitor.page.text
    assert not runtime.downloads.limits_are_set


@pytest.mark.parametrize(
    ("field", "typed"),
    [("max_concurrent", "0"), ("max_concurrent", "many"), ("bandwidth", "-1"), ("bandwidth", "x")],
)
def test_a_wrong_limit_is_told_beside_its_field(
    visitor: Visitor, runtime: Any, field: str, typed: str
) -> None:
    visitor.open("/downloads?form=limits")
    page = visitor.press("Save", **{field: typed})
    assert visitor.answer.status_code == 400
    assert page.one(id=f"{field}-wrong").text.startswith("It must")
    assert page.one(id=field)["value"] == typed
    assert runtime.downloads.limits.max_concurrent == 2
