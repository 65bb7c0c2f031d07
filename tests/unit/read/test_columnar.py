"""The fast way of decoding deals against the careful one: where both answer, they answer the same."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any
from unittest import mock

import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from mexc_pipeline.read import columnar, decode
from support.spools import DEAL

PREFIX, SUFFIX = '{"symbol":"BTC_USDT","data":', ',"channel":"push.deal","ts":1788335242156}'


def frame(data: str) -> str:
    return PREFIX + data + SUFFIX


numbers = st.one_of(
    st.decimals(min_value=0, max_value=9_000_000, places=7).map(str),
    st.integers(0, 10**13).map(str),
    st.sampled_from(["1e3", "7.548E+4", "5.000000000000000000000000000000", "1e-12", "0.0801", "-0", "-3.5"]),
)
strange = st.sampled_from(
    ["null", "true", '"3"', '"much"', '""', '" 3"', "1e400", "[1]", "{}", '"\\u0031"', "-1", "300", "1e-13", "2.5"]
)
keys = ("p", "v", "T", "O", "M", "t", "i", "cts")
usual: dict[str, st.SearchStrategy[str]] = {
    "p": numbers,
    "v": numbers,
    **{code: st.sampled_from(["1", "2", "3"]) for code in "TOM"},
    "t": st.integers(0, 2**53).map(str),
    "i": st.integers(0, 10**11).map(lambda n: f'"{n}"'),
    "cts": st.integers(0, 2**53).map(lambda n: f'"{n}"') | st.integers(0, 2**54).map(str),
}


@st.composite
def deals(draw: st.DrawFn, odd: bool) -> str:
    chosen = dict.fromkeys(keys, usual["p"]) | usual
    fields = [(key, draw(strategy)) for key, strategy in chosen.items()]
    if odd:
        place = draw(st.integers(0, len(fields) - 1))
        change = draw(st.sampled_from(["value", "missing", "twice", "extra"]))
        key, value = fields[place]
        if change == "value":
            fields[place] = (key, draw(strange))
        elif change == "missing":
            del fields[place]
        else:
            fields.append((key if change == "twice" else "more", draw(strange) if change == "extra" else value))
    return "{" + ",".join(f'"{key}":{value}' for key, value in draw(st.permutations(fields))) + "}"


@st.composite
def frames(draw: st.DrawFn) -> str:
    odd = draw(st.integers(0, 9)) == 0
    some = draw(st.lists(deals(odd), max_size=3))
    text = frame(f"[{','.join(some)}]")
    if odd:
        text = draw(
            st.sampled_from(
                [text, frame(some[0] if some else "7"), text[:-1], text + text, text + "}", "", frame("[null]")]
            )
        )
    return text


def table(texts: list[str]) -> Any:
    count = range(1, len(texts) + 1)
    return pa.table(
        {
            "ts": pa.array(count, pa.int64()).cast(pa.timestamp("ms", "UTC")),
            "m": pa.array(texts, pa.string()),
            "rx": pa.array(count, pa.int64()).cast(pa.timestamp("ns", "UTC")),
            "seq": pa.array(count, pa.uint64()),
        }
    )


def answer(texts: list[str], floats: bool) -> Any:
    skipped = decode.Skipped()
    try:
        return decode.trades(table(texts), skipped, floats=floats), skipped
    except ValueError as error:
        return str(error)


@example([frame('[{"p":10000000,"v":1,"t":1}]')], False)
@example([frame('[{"p":5,"v":1,"t":1,"i":"a:5.00000000000,"}]'), frame('[{"p":7.00000000000,"v":1,"t":1}]')], False)
@example([frame(f'[{{"p":-7.25{"0" * 30},"v":1e2,"t":1}}]'), frame(f'[{{"p":7.25{"0" * 30}1,"v":1,"t":1}}]')], False)
@example([frame('[{"p":1,"v":1000000000000,"t":1}]')], False)
@example([frame('[{"p":9999999.999999999999,"v":999999999999.999999,"t":1}]')], False)
@given(st.lists(frames(), min_size=1, max_size=8), st.booleans())
def test_both_ways_answer_the_same(texts: list[str], floats: bool) -> None:
    with mock.patch.object(columnar, "deals", return_value=None):
        careful = answer(texts, floats)
    assert answer(texts, floats) == careful


def test_frames_as_the_exchange_sends_them_take_the_fast_way() -> None:
    found = columnar.deals(pa.array([DEAL, frame("[]"), DEAL]), floats=False)
    assert found is not None
    counts, trades = found
    wire = json.loads(DEAL)["data"]
    assert counts.to_pylist() == [len(wire), 0, len(wire)]
    assert [t["i"] for t in trades.to_pylist()] == [d["i"] for d in wire] * 2


def test_tails_of_zeros_take_the_fast_way_too() -> None:
    tail = "0" * 30
    sent = [
        frame(f'[{{"p":76374.8{tail},"v":0.{tail},"t":1}},{{"p":-1.5,"v":3.0625{tail}, "t":2}}]'),
        frame(f'[{{"v":10.0{tail},"t":3,"i":":1.{tail},","p":2}}]'),
    ]
    found = columnar.deals(pa.array(sent), floats=False)
    assert found is not None
    assert [(t["p"], t["v"], t["i"]) for t in found[1].to_pylist()] == [
        (Decimal("76374.8"), Decimal(0), None),
        (Decimal("-1.5"), Decimal("3.0625"), None),
        (Decimal(2), Decimal(10), f":1.{tail},"),
    ]


def test_a_frame_that_is_no_whole_value_does_not_run_into_the_next() -> None:
    assert columnar.deals(pa.array([frame('[{"p":1'), frame("[]"), frame("[]") * 2]), floats=False) is None


def test_more_frames_than_one_call_takes_stay_in_order() -> None:
    texts = [DEAL, frame('[{"p":"5","v":1,"t":1}]'), frame("[]")] * 5
    with mock.patch.object(columnar, "AT_ONCE", 2):
        pieces = answer(texts, floats=False)
    whole, skipped = answer(texts, floats=False)
    assert pieces[0].combine_chunks() == whole.combine_chunks()
    assert pieces[1] == skipped
