"""The name that a person gives a model: ``org/name`` or ``org/name:tag``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llamactl.errors import InvalidRequest
from llamactl.models.names import is_filename, is_repo_id

LATEST = "latest"

#: Room for the longest repository name and a file's path as the tag.
_LONGEST_TEXT = 400
_LONGEST_TAG = 200

#: A tag becomes part of a file's name in the flat cache (with ``/`` as ``=``) and of a URL.
_FORBIDDEN_IN_TAG = re.compile(r"""[=<>"|?*%#]|^[-.~/]""")

#: How other programs and a browser's address bar begin the name.
_ADDRESS = re.compile(r"(https?://[^/]*/|hf\.co/|huggingface\.co/|hf://)", re.IGNORECASE)

_FORM = "The form is org/name or org/name:tag, such as bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M."


def is_tag(text: str) -> bool:
    """Whether ``text`` can be a tag: a quant, a part of a file's name, or a whole file's path."""
    return (
        len(text) <= _LONGEST_TAG
        and is_filename(text)
        and _FORBIDDEN_IN_TAG.search(text) is None
        and " " not in text
    )


@dataclass(frozen=True)
class ModelRef:
    """A repository and which of its models is meant.

    ``tag`` is a quant (``Q4_K_M``, in any case), ``latest``, or the path of a GGUF file in the
    repository. Two references mean the same model when their ``key`` is the same.
    """

    repo_id: str
    tag: str = LATEST

    @classmethod
    def parse(cls, text: object) -> ModelRef:
        """The reference that ``text`` writes; no tag means ``latest``.

        Raises ``InvalidRequest`` with field ``repo`` for whatever is not of that form.
        """
        if not isinstance(text, str):
            raise InvalidRequest("A model's name must be a text", hint=_FORM, field="repo")
        if len(text) > _LONGEST_TEXT:
            raise InvalidRequest("The model's name is too long", hint=_FORM, field="repo")
        repo_id, colon, tag = text.partition(":")
        if not is_repo_id(repo_id):
            address = _ADDRESS.match(text)
            raise InvalidRequest(
                f"{text!a} does not name a model: "
                + (f"leave out {address[0]}" if address else f"{repo_id!a} is no repository"),
                hint=_FORM,
                field="repo",
            )
        if colon and not is_tag(tag):
            raise InvalidRequest(
                f"{text!a} does not name a model: {tag!a} is no tag",
                hint=_FORM,
                field="repo",
            )
        return cls(repo_id, LATEST if tag.lower() in {"", LATEST} else tag)

    @property
    def key(self) -> tuple[str, str]:
        """What makes two references equal: tags compare without case."""
        return self.repo_id, self.tag.casefold()

    def __str__(self) -> str:
        return f"{self.repo_id}:{self.tag}"
