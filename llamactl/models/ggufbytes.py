"""The bytes of a GGUF header, taken one bounded piece after the other."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from llamactl.errors import InvalidRequest
from llamactl.models.opening import open_regular

#: What is kept of a field: a text, a number, an array of whole numbers, of texts how many.
Value = str | int | float | tuple[int, ...] | None

_CHUNK = 1024 * 1024

#: No header of a real model comes near these.
_LONGEST_HEADER = 256 * 1024 * 1024
_LONGEST_TEXT = 1024 * 1024
_MOST_ELEMENTS = 2**24
_MOST_TEXTS = 2**21
_LONGEST_KEPT_ARRAY = 4096

_TEXT, _ARRAY = 8, 9
_FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


class NotGGUF(InvalidRequest):
    """The file is not a GGUF, or it is damaged."""

    code: ClassVar[str] = "not_gguf"


class HeaderBytes:
    """A place in the header that only moves on. Everything raises ``NotGGUF`` at the end."""

    def __init__(self, name: str, file: io.RawIOBase | io.BytesIO, size: int) -> None:
        self.name = name
        self._file = file
        self._size = min(size, _LONGEST_HEADER)
        self._start = 0
        self._at = 0
        self._buffer = b""
        self._texts = 0

    @classmethod
    def of(cls, path: Path) -> HeaderBytes:
        """Open a file for reading. Raises ``NotGGUF`` when it is no file that can be read."""
        try:
            file = io.FileIO(open_regular(path))
            return cls(str(path), file, os.fstat(file.fileno()).st_size)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise NotGGUF(f"{path} cannot be read: {reason}") from error

    @classmethod
    def of_bytes(cls, name: str, content: bytes) -> HeaderBytes:
        """The beginning of a file that lies elsewhere; ``name`` is for its errors."""
        return cls(name, io.BytesIO(content), len(content))

    def __enter__(self) -> HeaderBytes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if self._at + count > len(self._buffer):
            self._fill(count)
        end = self._at + count
        taken = self._buffer[self._at : end]
        self._at = end
        return taken

    def skip(self, count: int) -> None:
        self._at += count
        if self._start + self._at > self._size:
            raise self._damaged()

    def number(self, format_: str) -> int:
        """One whole number, unsigned and little-endian."""
        return int(struct.unpack(f"<{format_}", self.take(_size_of(format_)))[0])

    def count(self, format_: str, most: int) -> int:
        """A number of things that follow. More than ``most`` means that the file is damaged."""
        number = self.number(format_)
        if number > most:
            raise self._damaged()
        return number

    def text(self, most: int = _LONGEST_TEXT) -> str:
        return self.take(self.count("Q", most)).decode("utf-8", "replace")

    def pass_text(self) -> None:
        self.skip(self.count("Q", _LONGEST_TEXT))

    def value(self) -> Value:
        """The value of a field, as far as it is kept."""
        type_ = self.number("I")
        if type_ == _TEXT:
            return self.text()
        if type_ == _ARRAY:
            return self._array(keep=True)
        return self._scalar(type_)

    def pass_value(self) -> None:
        type_ = self.number("I")
        if type_ == _TEXT:
            self.pass_text()
        elif type_ == _ARRAY:
            self._array(keep=False)
        else:
            self.skip(_size_of(self._format(type_)))

    def _scalar(self, type_: int) -> int | float:
        format_ = self._format(type_)
        value = struct.unpack(f"<{format_}", self.take(_size_of(format_)))[0]
        return float(value) if isinstance(value, float) else int(value)

    def _array(self, *, keep: bool) -> tuple[int, ...] | int | None:
        """Move behind an array: a few whole numbers, or how many texts."""
        type_ = self.number("I")
        if type_ == _TEXT:
            length = self.count("Q", _MOST_TEXTS)
            self._pass_texts(length)
            return length
        format_ = self._format(type_)
        length = self.count("Q", _MOST_ELEMENTS)
        size = _size_of(format_)
        if not keep or format_ in "fd" or not 0 < length <= _LONGEST_KEPT_ARRAY:
            self.skip(length * size)
            return None
        return tuple(map(int, struct.unpack(f"<{length}{format_}", self.take(length * size))))

    def _pass_texts(self, count: int) -> None:
        """Move behind many texts, such as a tokenizer's: a quarter of a million is usual."""
        self._texts += count
        if self._texts > _MOST_TEXTS:
            raise self._damaged()
        length_at = struct.Struct("<Q").unpack_from
        buffer, at = self._buffer, self._at
        for _ in range(count):
            if at + 8 > len(buffer):
                self._at = at
                self._fill(8)
                buffer, at = self._buffer, self._at
            length = length_at(buffer, at)[0]
            if length > _LONGEST_TEXT:
                raise self._damaged()
            at += 8 + length
        self._at = at
        self.skip(0)

    def _fill(self, count: int) -> None:
        """Read on from here, ``count`` bytes at the least."""
        self._start += self._at
        self._at = 0
        if self._start + count > self._size:
            raise self._damaged()
        try:
            self._file.seek(self._start)
            self._buffer = self._file.read(max(count, _CHUNK)) or b""
        except OSError as error:
            raise NotGGUF(f"{self.name} cannot be read: {error.strerror}") from error
        if len(self._buffer) < count:
            raise self._damaged()

    def _format(self, type_: int) -> str:
        # An array of arrays has no place in a model's header, so nothing here calls itself.
        if type_ not in _FORMATS:
            raise self._damaged()
        return _FORMATS[type_]

    def _damaged(self) -> NotGGUF:
        return NotGGUF(f"{self.name} is damaged: its GGUF header is not whole")


def _size_of(format_: str) -> int:
    return struct.calcsize(f"<{format_}")
