"""Every instant lies in exactly one period, whose name leads back to it; other lengths and names are refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.periods import HOUR_NS, SECOND_NS, Period, parse_name

LENGTHS = st.sampled_from([2, 5, 10, 60, 900, 3600, 7200, 86400]).map(lambda s: s * SECOND_NS)
INSTANTS = st.integers(0, 4_000_000_000 * SECOND_NS)


@given(LENGTHS, INSTANTS)
def test_every_instant_lies_in_its_period_and_the_name_leads_back(length: int, instant: int) -> None:
    period = Period(length)
    start = period.start(instant)
    assert start <= instant < period.end(start) == start + length
    assert start % length == 0
    name = period.name(start)
    assert parse_name(name) == start
    at = datetime.fromtimestamp(start // SECOND_NS, UTC)
    assert name == at.strftime("%Y%m%d%H" if length >= HOUR_NS else "%Y%m%d%H%M%S")


@pytest.mark.parametrize("length", [0, 1, SECOND_NS, 7 * SECOND_NS, 2 * SECOND_NS + 1, 48 * HOUR_NS, 5 * HOUR_NS])
def test_a_length_that_does_not_divide_a_day_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="divides a day"):
        Period(length)


@pytest.mark.parametrize("name", ["", "2026112", "2026112125", "20261131200000", "２０２６１１２１２０", "2026-11-21"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"period|data|range|day"):
        parse_name(name)
