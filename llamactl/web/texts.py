"""Times and foreign text as people read them."""

from __future__ import annotations

import re
import time
from typing import Literal

from markupsafe import Markup, escape

from llamactl.errors import sentence_start

# What a terminal obeys: CSI sequences, OSC strings (links, titles) up to their end, other escapes.
_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]?")
_CODE = re.compile(r"`([^`\n]+)`")
# Control characters, and those that turn the direction of text or break its lines unseen.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)

MomentForm = Literal["minutes", "seconds", "short"]
_FORMS = {"minutes": "%Y-%m-%d %H:%M", "seconds": "%Y-%m-%d %H:%M:%S", "short": "%m-%d %H:%M:%S"}
_DAY = 86400
#: A span's largest unit and the one below it.
_SPANS = ((_DAY, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_AGO = ((365 * _DAY, "y"), (_DAY, "d"), (3600, "h"), (60, "min"))


def duration_text(seconds: float) -> str:
    """A span in its two largest units: ``45 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    size, unit, smaller_size, smaller_unit = next(span for span in _SPANS if whole >= span[0])
    rest = whole % size // smaller_size
    return f"{whole // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")


def ago_text(moment: float, now: float) -> str:
    """How long ago unix seconds ``moment`` was: ``just now``, ``5 min ago``, ``3 d ago``."""
    seconds = now - moment
    if seconds < 60:
        return "just now"
    size, unit = next(each for each in _AGO if seconds >= each[0])
    return f"{int(seconds // size)} {unit} ago"


def moment_text(moment: float, form: MomentForm = "minutes") -> str:
    """Unix seconds as a date and a time in UTC."""
    return time.strftime(f"{_FORMS[form]} UTC", time.gmtime(moment))


def moment_html(moment: float, form: MomentForm = "minutes") -> Markup:
    """The same, in an element whose text a script puts into the reader's own time zone."""
    element = Markup('<time datetime="{}" data-local="{}">{}</time>')
    return element.format(iso_text(moment), form, moment_text(moment, form))


def iso_text(moment: float) -> str:
    """Unix seconds for programs: ``2027-01-15T08:00:00Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def plain(text: str) -> str:
    """Foreign text without what a terminal would obey, and with what hides made visible.

    Escape sequences vanish; a carriage return, with which programs overwrite their line, ends one.
    Markup is our own and stays as it is.
    """
    if isinstance(text, Markup):
        return text
    text = _TERMINAL.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def prose(text: str) -> Markup:
    """A sentence as markup: what stands between backquotes is code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def whole_sentence(text: str) -> str:
    """The text with a capital at its beginning and a full stop, unless it ends otherwise."""
    text = sentence_start(text)
    return text if not text or text[-1] in ".!?:" else f"{text}."


def last_lines(raw: bytes, count: int) -> tuple[str, ...]:
    """The last ``count`` lines of a log, plain; a line is cut at 2,000 characters."""
    lines = plain(raw.decode("utf-8", "replace")).splitlines()
    return tuple(line[:2000] + ("…" if len(line) > 2000 else "") for line in lines[-count:])
