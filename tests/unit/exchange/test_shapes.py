"""The table of what is expected: it fits every real frame there is, and walking finds every value."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.exchange.shapes import PUSHES, SpelledNumber, extent, parse, walk
from mexc_pipeline.probe.judge import missing, new_fields, wrong_kinds
from mexc_pipeline.probe.observe import Fields
from mexc_pipeline.simulator.samples import frames

PUSHED = [frame for frame in frames() if json.loads(frame)["channel"] in PUSHES]
KNOWN = {
    b"PENGU_USDT": ["data is object in 1 of 1; expected is list"],  # a deal as it was before 2025-08-21
}


@pytest.mark.parametrize("frame", PUSHED, ids=lambda frame: frame[:60].decode())
def test_real_frames_are_as_expected(frame: bytes) -> None:
    value = parse(frame)
    fields, shape = Fields(), PUSHES[value["channel"]]
    fields.add(value)
    found = [*missing(fields, shape), *wrong_kinds(fields, shape), *new_fields(fields, shape)]
    assert found == KNOWN.get(value["symbol"].encode(), [])


def test_every_channel_that_is_recorded_is_in_the_table_and_in_the_samples() -> None:
    seen = {json.loads(frame)["channel"] for frame in PUSHED}
    assert {"push.ticker", "push.deal", "push.depth", "push.depth.full"} <= seen
    assert seen <= set(PUSHES)


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4)
)


@given(documents)
def test_walking_finds_every_value_once(document: Any) -> None:
    def count(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + sum(map(count, inner))

    assert len(list(walk(parse(json.dumps(document))))) == count(document)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_numbers_keep_their_spelling(number: Decimal) -> None:
    spelled = str(number).lower()
    value = parse(f'{{"n":{spelled}}}')["n"]
    assert isinstance(value, SpelledNumber)
    assert value == spelled


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal("-1e50"), max_value=Decimal("1e50")))
def test_the_extent_is_that_of_the_plain_spelling(number: Decimal) -> None:
    whole, _, behind = f"{number.copy_abs():f}".partition(".")
    assert extent(str(number)) == max(len(whole.lstrip("0")), len(behind.rstrip("0")), 1)


@pytest.mark.parametrize(
    ("spelled", "digits"),
    [
        ("77210", 5),
        ("0.080100", 4),
        ("7.548E+4", 5),
        ("25329." + "0" * 30, 5),
        ("1E-40", 40),
        ("9" * 140, 140),
        ("0", 1),
    ],
)
def test_extents(spelled: str, digits: int) -> None:
    assert extent(spelled) == digits


def test_an_exponent_without_end_is_not_calculated() -> None:
    assert extent("1E+999999999999999999999") > 38
    assert extent("1E-99999999") > 38


@pytest.mark.parametrize("wrong", [b"", b"{", b"NaN", b'{"a":Infinity}', b"\xff"])
def test_what_is_not_json_is_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own errors and Unicode's are ValueErrors
        parse(wrong)
