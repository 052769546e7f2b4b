"""Addresses that llama.cpp would fetch are found, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from llamactl.gateway.media import remote_addresses

HERE = "http://169.254.169.254/secret"


def chat(part: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    "body",
    [
        chat({"type": "image_url", "image_url": {"url": HERE}}),
        chat({"type": "image_url", "image_url": HERE}),
        chat({"type": "image_url", "image_url": {"url": "HTTPS://x/"}}),
        chat({"type": "image_url", "image_url": {"url": "  http://x/"}}),
        chat({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}),
        chat({"type": "video_url", "video_url": {"url": HERE}}),
        chat({"type": "input_audio", "input_audio": {"data": HERE}}),
        chat({"type": "input_audio", "input_audio": {"url": HERE}}),
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": HERE}]}]},
        {"messages": [{"content": [{"type": "image", "source": {"type": "url", "url": HERE}}]}]},
        {
            "messages": [
                {
                    "content": [
                        {
                            "type": "tool_result",
                            "content": [{"type": "image", "source": {"url": HERE}}],
                        }
                    ]
                }
            ]
        },
        {"image_url": HERE},
        {"type": "tool_use", "input": [{"content": [{"image_url": HERE}]}]},
    ],
)
def test_a_remote_address_is_found(body: dict[str, Any]) -> None:
    assert len(list(remote_addresses(body))) == 1


@pytest.mark.parametrize(
    "body",
    [
        chat({"type": "text", "text": HERE}),
        chat({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
        chat({"type": "image_url", "image_url": {"url": "iVBORw0KGgo="}}),
        chat({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}),
        chat({"type": "tool_use", "input": {"image_url": HERE, "url": HERE, "source": HERE}}),
        {"messages": [{"role": "user", "content": HERE}]},
        {"messages": [{"tool_calls": [{"function": {"arguments": '{"image_url": "http://x"}'}}]}]},
        {"tools": [{"function": {"parameters": {"image_url": {"default": HERE}}}}]},
        {"response_format": {"json_schema": {"source": HERE}}},
        {"prompt": HERE, "metadata": {"source": HERE}},
        {},
    ],
)
def test_words_about_addresses_are_left_alone(body: dict[str, Any]) -> None:
    assert list(remote_addresses(body)) == []


def test_a_body_may_be_nested_deeper_than_calls_can_be() -> None:
    deep: Any = {"image_url": HERE}
    for _ in range(50_000):
        deep = {"a": [deep]}
    assert list(remote_addresses(deep)) == [HERE]
