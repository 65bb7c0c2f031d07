"""Waiting for a condition with a deadline, where there is no event to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(probe: Callable[[], T | None], timeout_s: float = 40.0, what: str = "the condition") -> T:
    """The first true value of ``probe``; AssertionError naming ``what`` when none came in time.

    Most of the time is left to what is waited for: a probe that takes long is made less often.
    """
    end = time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        value = probe()
        if value:
            return value
        now = time.monotonic()
        if now > end:
            raise AssertionError(f"{what} did not come within {timeout_s:g} s (last: {value!r})")
        time.sleep(min(max(0.01, 4 * (now - began)), 0.2))
