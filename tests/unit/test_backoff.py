"""Pauses grow to the most, within their bounds, and begin again."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.backoff import Backoff


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_pauses_grow_to_the_most_and_begin_again(seed: int, tries: int) -> None:
    backoff = Backoff(random.Random(seed))
    pauses = [backoff.next_s() for _ in range(tries)]
    for n, pause in enumerate(pauses):
        whole = min(30.0, 0.5 * 2.0**n)
        assert whole / 2 <= pause <= whole
    backoff.reset()
    assert backoff.next_s() <= 0.5
