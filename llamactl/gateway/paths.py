"""What of llama-server an inference key may reach: a list of what is allowed, never of what is not.

Pure. llama-server offers much more beside inference (other people's prompts in /slots, downloads,
adapters, tools that run commands), and each version adds some: what is not here does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

_PROPS = "/props"
_MODELS = "/v1/models"

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

#: What is left of a model in /v1/models: a router tells the command line of each one as well.
SHOWN_OF_MODEL = (
    "id",
    "name",
    "model",
    "aliases",
    "tags",
    "object",
    "created",
    "owned_by",
    "type",
    "description",
    "capabilities",
    "architecture",
    "details",
    "meta",
)
#: OpenAI's name for the list, and Ollama's.
_LISTS = ("data", "models")
_SHOWN_OF_STATUS = ("value", "failed", "progress")

Json = Mapping[str, Any]


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


def is_shown_in_part(target: str) -> bool:
    """Whether the answer holds more than an inference key may see; ``shown_part`` is the rest."""
    return target in {_PROPS, _MODELS}


def shown_part(target: str, answer: Json) -> Json:
    """What an inference key may see of an answer. Raises ``TypeError`` for another form of it."""
    if target == _PROPS:
        return _only(answer, SHOWN_PROPS)
    lists = _only(answer, _LISTS)
    shown = {name: [_shown_model(each) for each in models] for name, models in lists.items()}
    return {"object": "list", **shown}


def _shown_model(model: Json) -> Json:
    shown = _only(model, (*SHOWN_OF_MODEL, "status"))
    if "status" in shown:
        shown["status"] = _only(shown["status"], _SHOWN_OF_STATUS)
    return shown


def _only(whole: Json, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(whole, dict):
        raise TypeError("an object was expected")
    return {name: whole[name] for name in names if name in whole}
