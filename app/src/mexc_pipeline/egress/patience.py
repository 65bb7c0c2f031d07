"""The patience that an HTTP answer asks for (RFC 9110, section 10.2.3). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

PATIENCE_MOST_S = 600.0
"""Longest patience that an exchange can ask for."""
ASKED_MOST_S = 1e12
"""A wish for more patience than that is not told from one for so much."""


def retry_after_s(headers: Mapping[str, str], wall: float) -> float | None:
    """Seconds of patience that are asked for (RFC 9110, section 10.2.3), None for none or nonsense."""
    text = headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return min(float(text), ASKED_MOST_S)
    try:
        until = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    try:  # two dates of one clock: ours may be wrong
        wall = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        return max(0.0, round(until - wall, 3))
    return max(0.0, until - wall)
