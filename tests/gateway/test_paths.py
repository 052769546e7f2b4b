"""What an inference key sees of an instance's own words."""

from __future__ import annotations

from typing import Any

import pytest

from llamactl.gateway.paths import is_shown_in_part, shown_part

#: As a router of b11434 tells it.
ROUTER: dict[str, Any] = {
    "object": "list",
    "data": [
        {
            "id": "m-Q4_K_M",
            "aliases": ["m"],
            "object": "model",
            "status": {
                "value": "unloaded",
                "args": ["/opt/llama-server", "--model", "/home/someone/m.gguf", "--tools", "all"],
                "preset": "[m-Q4_K_M]\nmodel = /home/someone/m.gguf\n",
            },
            "architecture": {"input_modalities": ["text"]},
            "source": "models_dir",
            "path": "/home/someone/m.gguf",
        }
    ],
}


def test_a_routers_models_are_shown_without_their_command_lines() -> None:
    assert shown_part("/v1/models", ROUTER) == {
        "object": "list",
        "data": [
            {
                "id": "m-Q4_K_M",
                "aliases": ["m"],
                "object": "model",
                "architecture": {"input_modalities": ["text"]},
                "status": {"value": "unloaded"},
            }
        ],
    }


def test_what_tells_of_the_model_alone_stays() -> None:
    answer = {
        "models": [{"name": "m", "model": "m", "capabilities": ["completion"], "details": {}}],
        "object": "list",
        "data": [{"id": "m", "object": "model", "created": 1, "meta": {"n_ctx_train": 512}}],
    }
    assert shown_part("/v1/models", answer) == answer
    assert shown_part("/v1/models", {"data": []}) == {"object": "list", "data": []}


@pytest.mark.parametrize("answer", [None, [], 1, {"data": 1}, {"data": [1]}, {"models": None}])
def test_an_answer_of_another_form_is_not_shown_at_all(answer: Any) -> None:
    with pytest.raises(TypeError):
        shown_part("/v1/models", answer)


def test_health_is_shown_whole() -> None:
    assert not is_shown_in_part("/health")
    assert is_shown_in_part("/props")
    assert is_shown_in_part("/v1/models")
