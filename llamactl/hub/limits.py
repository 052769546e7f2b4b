"""How long to wait before a request is sent again (no network here)."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping

#: Statuses that may pass by themselves.
RETRIED = frozenset({408, 429, 500, 502, 503, 504})

#: The hub counts requests in windows of five minutes, so nothing asks for more in earnest.
LONGEST = 301.0
#: Seconds to wait where the hub refuses for a while and names no time.
UNNAMED_WAIT = 30.0
#: How often the hub's client asks by itself before it gives an error.
ATTEMPTS = 4

_RATE_LIMIT = re.compile(r";\s*r\s*=\s*(\d{1,12})\s*;\s*t\s*=\s*(\d{1,12})")


def asked_wait(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that an answer asks to wait, from 0 to ``LONGEST``; None where it asks nothing.

    ``headers`` must not distinguish case. The hub sends its ``RateLimit`` header with every answer,
    so it counts only where nothing remains (``r=0``); ``Retry-After`` is in seconds or a date.
    """
    spent = _RATE_LIMIT.search(headers.get("RateLimit", ""))
    if spent is not None and int(spent[1]) == 0:
        return min(float(spent[2]) + 1.0, LONGEST)
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,12}", text):
        return min(float(text), LONGEST)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return min(max(0.0, when.timestamp() - now), LONGEST)


def backoff(attempt: int, base: float) -> float:
    """The seconds to wait after the failed attempt number ``attempt``, counted from 0."""
    return float(base * 2**attempt)
