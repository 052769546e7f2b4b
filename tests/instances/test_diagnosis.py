from __future__ import annotations

import pytest

from llamactl.instances.diagnosis import diagnose
from llamactl.instances.snapshot import sentences


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("error: invalid argument: --foo", "unknown_flag", "--foo"),
        (
            "E srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1",
            "port_taken",
            "port",
        ),
        ("ggml_backend_cuda: cudaMalloc failed: out of memory", "out_of_memory", "memory"),
        ("ggml_vulkan: ErrorOutOfDeviceMemory", "out_of_memory", "memory"),
        ("terminate called after throwing 'std::bad_alloc'", "out_of_memory", "memory"),
        (
            "E gguf_init_from_file: failed to open GGUF file '/x.gguf' (No such file or directory)",
            "no_such_file",
            "/x.gguf",
        ),
        ("invalid magic characters: 'root', expected 'GGUF'", "not_gguf", "GGUF"),
        (
            "error loading model: unknown model architecture: 'qwen9'",
            "unsupported_architecture",
            "qwen9",
        ),
        ("error loading model: unknown model architecture: ''", "damaged", "damaged"),
        (
            "tensor 'blk.0.attn_q.weight' data is not within the file bounds",
            "damaged",
            "damaged",
        ),
        (
            "llama_init_from_model: K cache type q8_0 with block size 32 does not divide",
            "bad_value",
            "q8_0",
        ),
        (
            "llama-server: error while loading shared libraries: libcudart.so.12: cannot open",
            "missing_library",
            "libcudart.so.12",
        ),
        ("llamactl: cannot run /x: Permission denied", "cannot_run", "/x: Permission denied"),
        ("llamactl-llama-server: it cannot take --hf-repo", "unsupported_flag", "--hf-repo"),
    ],
)
def test_what_llama_cpp_prints_is_told_in_plain_words(line: str, code: str, said: str) -> None:
    diagnosis = diagnose(1, ["first", line, "E srv: exiting due to model loading error"])
    assert diagnosis.code == code
    assert said in diagnosis.message
    assert diagnosis.hint or code == "unsupported_flag"


@pytest.mark.parametrize("code", [-11, -6, -9, -15, -4, -99])
def test_a_signal_is_named(code: int) -> None:
    assert diagnose(code, ["all was well"]).message.count("{") == 0


def test_a_kill_from_outside_suggests_the_memory() -> None:
    assert "memory" in diagnose(-9, []).message


@pytest.mark.parametrize(
    ("line", "permanent"),
    [("invalid argument: --foo", False), ("error: invalid argument: --foo", True)],
)
def test_only_what_a_new_start_cannot_mend_is_permanent(line: str, permanent: bool) -> None:
    assert diagnose(1, [line]).permanent is permanent
    assert not diagnose(1, ["out of memory"]).permanent


def test_without_a_known_reason_the_last_words_are_quoted() -> None:
    assert "exit code 3" in diagnose(3, ["one", "two  ", ""]).message
    assert diagnose(3, ["one", "two  ", ""]).message.endswith("two")
    assert diagnose(0, []).message == "it ended with exit code 0"


@pytest.mark.parametrize("fragment", ["I ", "0.00.016.7", "-----"])
def test_the_beginning_of_a_line_that_was_never_finished_is_not_its_last_words(
    fragment: str,
) -> None:
    assert diagnose(1, ["it could not start", fragment]).message.endswith("it could not start")


def test_a_reason_becomes_a_sentence_and_a_name_at_its_beginning_stays_a_name() -> None:
    assert sentences("it ended", "Look.") == "It ended. Look."
    assert sentences("org/name:Q8_0 is gone", "") == "org/name:Q8_0 is gone."


def test_a_load_without_progress_is_called_that() -> None:
    assert diagnose(None, ["loading"]).code == "stalled"
