"""The words of a command line as people paste it: from a shell, from Windows, from a page. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamactl.errors import InvalidRequest

_WINDOWS = re.compile(r"""(^|[\s"'=])(\w+\.exe\b|[A-Za-z]:\\|\.{0,2}\\\w)""", re.IGNORECASE)
#: A line that goes on: for a shell, for cmd.exe, for PowerShell.
_CONTINUED = re.compile(r"[\\^`][ \t]*(\r\n|\r|\n)")
#: The kernel takes no longer word than 128 KiB, and nobody types a line like that.
_LONGEST = 100_000


def split_words(command: str) -> list[str]:
    """The words of one command: quotes, escapes and comments are the shell's.

    A backslash in a line with a path of Windows is a backslash. A line that ends without a sign of
    going on goes on, too. Raises ``InvalidRequest`` for a quote that does not end and for a line
    that no system would run.
    """
    if len(command) > _LONGEST:
        raise InvalidRequest(
            f"The command has more than {_LONGEST:,} characters",
            hint="Paste the llama-server line alone.",
            field="command",
        )
    escapes = _WINDOWS.search(command) is None
    return list(_words(command, escapes))


def _words(text: str, escapes: bool) -> Iterator[str]:
    word: list[str] = []
    # Two quotes with nothing between them are a word, too.
    begun = False
    position = 0
    while position < len(text):
        continued = _CONTINUED.match(text, position)
        character = "\n" if continued else text[position]
        position = continued.end() if continued else position + 1
        if character.isspace():
            if begun:
                yield "".join(word)
            word, begun = [], False
            continue
        if character == "#" and not begun:
            position = _end_of_line(text, position)
            continue
        begun = True
        if character in "'\"":
            quoted, position = _quoted(text, position, character, escapes)
            word.append(quoted)
        elif character == "\\" and escapes and position < len(text):
            word.append(text[position])
            position += 1
        else:
            word.append(character)
    if begun:
        yield "".join(word)


def _end_of_line(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _quoted(text: str, position: int, quote: str, escapes: bool) -> tuple[str, int]:
    """What stands before the closing quote, and where the text goes on."""
    found: list[str] = []
    while position < len(text):
        character = text[position]
        position += 1
        if character == quote:
            return "".join(found), position
        escaped = text[position : position + 1]
        if character == "\\" and escapes and quote == '"' and escaped and escaped in '"\\$`':
            found.append(escaped)
            position += 1
        else:
            found.append(character)
    raise InvalidRequest(
        f"The command cannot be read: a quote {quote} does not end", field="command"
    )
