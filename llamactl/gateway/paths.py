"""What of llama-server an inference key may reach: a list of what is allowed, never of what is not.

Pure. llama-server offers much more beside inference (other people's prompts in /slots, downloads,
adapters, tools that run commands), and each version adds some: what is not here does not exist.
"""

from __future__ import annotations

#: POST below /v1 whose body names the model.
OPENAI_POSTS = frozenset(
    {
        "chat/completions",
        "chat/completions/input_tokens",
        "completions",
        "embeddings",
        "rerank",
        "reranking",
        "responses",
        "responses/input_tokens",
        "messages",
        "messages/count_tokens",
        "audio/transcriptions",
        "audio/translations",
        "audio/speech",
        "images/generations",
        "images/edits",
        "images/variations",
    }
)

#: POST below /llama-cpp/NAME in llama-server's own names.
NATIVE_POSTS = frozenset(
    {
        "apply-template",
        "audio/transcriptions",
        "chat/completions",
        "completion",
        "completions",
        "detokenize",
        "embedding",
        "embeddings",
        "infill",
        "rerank",
        "reranking",
        "responses",
        "tokenize",
    }
)

#: GET below /llama-cpp/NAME; these never start an instance.
NATIVE_GETS = frozenset({"health", "props", "v1/health", "v1/models"})

#: What is left of /props: paths, slots and settings of the machine are not for inference keys.
SHOWN_PROPS = (
    "default_generation_settings",
    "total_slots",
    "model_alias",
    "modalities",
    "chat_template",
    "chat_template_caps",
    "bos_token",
    "eos_token",
    "build_info",
)


def openai_target(method: str, rest: str) -> str | None:
    """The instance's path for a request below /v1; None if there is no such route."""
    return f"/v1/{rest}" if method == "POST" and rest in OPENAI_POSTS else None


def native_target(method: str, rest: str) -> str | None:
    """The instance's path for a request below /llama-cpp/NAME; None if it is not allowed."""
    if method == "GET" and rest in NATIVE_GETS:
        return f"/{rest}"
    if method == "POST" and (rest in NATIVE_POSTS or openai_target(method, rest[3:]) == f"/{rest}"):
        return f"/{rest}"
    return None
