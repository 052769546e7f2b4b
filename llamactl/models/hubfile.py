"""What the Hub says of a repository's files: one file, and the manifest of a tag."""

from __future__ import annotations

import json
from dataclasses import dataclass

from llamactl.errors import BadMetadata
from llamactl.models.names import check_filename


@dataclass(frozen=True)
class HubFile:
    """One file at one commit.

    ``oid`` is the sha256 of its bytes (64 hexadecimal digits), or for a file that git itself
    stores its blob's sha1 (40 digits). ``size`` is in bytes.
    """

    filename: str
    size: int
    oid: str

    @property
    def sha256(self) -> str | None:
        return self.oid if len(self.oid) == 64 else None


@dataclass(frozen=True)
class Manifest:
    """The Hub's choice for a tag: ``raw`` as received, and the file names that it gives."""

    raw: bytes
    gguf: str | None
    mmproj: str | None

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """Read a manifest as the Hub sends it to llama.cpp.

        Raises ``BadMetadata`` when it is no JSON object or names a file unsafely.
        """
        try:
            content = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise BadMetadata("The manifest is not JSON") from error
        if not isinstance(content, dict):
            raise BadMetadata("The manifest is not a JSON object")
        return cls(raw, _file_name(content, "ggufFile"), _file_name(content, "mmprojFile"))


def _file_name(content: dict[str, object], key: str) -> str | None:
    entry = content.get(key)
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise BadMetadata(f"The manifest's {key} is not an object")
    return check_filename(entry.get("rfilename"))
