"""The preset.ini that came with a model."""

from __future__ import annotations

import pytest

from llamactl.instances.presetfile import read_preset

PRESET = """
version = 1
temp = 0.6 ; the author's choice
[default]
ctx-size = 4096
[Q8_0]
c = 16384
--top-k = 20
jinja = true
LLAMA_ARG_N_PARALLEL = 2
LLAMA_ARG_PARALLEL = 2
"""


def test_a_preset_has_what_holds_for_all_and_the_section_of_its_tag() -> None:
    assert read_preset(PRESET, "q8_0").options == {
        "temp": 0.6,
        "ctx_size": 16384,
        "top_k": 20,
        "jinja": True,
        "parallel": 2,
    }


@pytest.mark.parametrize("tag", ["latest", "Q4_K_M"])
def test_a_tag_without_a_section_has_the_one_of_default(tag: str) -> None:
    assert read_preset(PRESET, tag).options == {"temp": 0.6, "ctx_size": 4096}


@pytest.mark.parametrize(
    "line",
    [
        "tools = all",
        "LLAMA_ARG_TOOLS = all",
        "--log-file = /etc/passwd",
        "api-key = x",
        "port = 80",
        "chat-template-file = /etc/passwd.jinja",
        "lora = /tmp/x.gguf",
        "model = /tmp/x.gguf",
        "hf-repo = org/other",
        "model-url = http://example.org/x.gguf",
        "LD_PRELOAD = /tmp/x.so",
        "ctx-size = many",
        "no-such-flag = 1",
    ],
)
def test_what_is_unsafe_or_unknown_is_named_and_left_out(line: str) -> None:
    preset = read_preset(f"[*]\n{line}\ntop-k = 3", "Q4_K_M")
    assert preset.options == {"top_k": 3}
    key = line.partition(" =")[0]
    assert list(preset.left_out) == [key] and preset.left_out[key]


@pytest.mark.parametrize("text", ["", "\0", "[", "=", "[a]b=c", "no sign", "; c = 1", "x" * 99999])
def test_nonsense_is_an_empty_preset(text: str) -> None:
    assert read_preset(text, "latest").options == {}


@pytest.mark.parametrize(
    "line", ["[" + " " * 60_000 + "x", "[" + "a " * 30_000, " " * 60_000 + "="]
)
def test_no_line_of_an_author_makes_the_reading_slow(line: str) -> None:
    # Reckoned by trying every split of the blanks, this would take days.
    assert read_preset(f"{line}\n[ Q4_K_M ]\ntop-k = 3", "Q4_K_M").options == {"top_k": 3}
