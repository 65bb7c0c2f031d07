"""Waiting for a condition with a deadline, where there is no event to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(probe: Callable[[], T | None], timeout_s: float = 40.0, what: str = "the condition") -> T:
    """The first true value of ``probe``; AssertionError naming ``what`` when none came in time."""
    end = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come within {timeout_s:g} s (last: {value!r})")
        time.sleep(0.01)
