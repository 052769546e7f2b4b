from __future__ import annotations

import pytest

from llamactl.instances.router import RouterModel, read_models


def test_a_routers_models_are_read_with_their_states() -> None:
    body = b"""{"data": [
        {"id": "a", "status": {"value": "loaded"}},
        {"id": "b", "status": {"value": "unloaded", "failed": true}},
        {"id": "c"}, {"id": "\\ud800"}
    ]}"""
    assert read_models(body) == (
        RouterModel("a", "loaded", False),
        RouterModel("b", "unloaded", True),
        RouterModel("c", "", False),
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"[" * 100_000, b'{"data": 1}', b'{"data": [1, {}, {"id": 5}, {"id": ""}]}'],
)
def test_what_is_no_list_of_models_has_none(body: bytes) -> None:
    assert read_models(body) == ()
