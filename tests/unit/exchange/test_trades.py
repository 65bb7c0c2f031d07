"""A trade is read as the exchange writes it, or not at all; whatever else REST gives is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.exchange.rest import MOST_DEALS, MOST_VALUES, RestRefusedError, deals_path, read_deals, version_of
from mexc_pipeline.exchange.trades import is_trade, trade_of, trades_in

WIRE = b'{"p":77525.9,"v":3,"T":2,"O":3,"M":1,"t":1788335242156,"i":"16005949540","cts":"1788335242156"}'
PAGE = b'{ "p": 7.7525900e4, "v": 3, "T": 2, "t": 1788335242156 }'


def answer(data: bytes) -> bytes:
    return b'{"success":true,"code":0,"data":%b}' % data


def test_what_stands_in_it_is_left_as_it_is_spelled() -> None:
    trade = trade_of(WIRE)
    assert (trade.number, trade.time_ms, trade.price, trade.volume, trade.side, trade.m) == (
        16005949540, 1788335242156, "77525.9", "3", "2", WIRE,
    )  # fmt: skip
    assert trade.key == b"16005949540"
    without = trade_of(PAGE)
    assert (without.number, without.key, without.m) == (None, None, PAGE)
    assert without.alike == trade.alike, "however a number is spelled"


@pytest.mark.parametrize(
    "i", ["null", '"x1"', "1.5", "-1", '"01"', '""', "1e3", '"' + "9" * 20 + '"', "[1]", '{"a":1}']
)
def test_what_is_no_id_is_none(i: str) -> None:
    assert trade_of(WIRE.replace(b'"16005949540"', i.encode())).number is None


@pytest.mark.parametrize(
    "piece",
    [
        b"{}",
        b"[]",
        b"7",
        b"",
        b"no JSON",
        b"[" * 100_000,
        b'{"p":1,"v":1}',
        b'{"p":1,"v":1,"t":1788335242}',
        b'{"p":1,"v":1,"t":0000000000000}',
        b'{"p":1,"v":1,"t":17883352421.6}',
        b'{"p":1,"v":1,"t":[1788335242156]}',
        b'{"p":"NaN","v":1,"t":1788335242156}',
        b'{"p":1,"v":"1e9999999999999999999999","t":1788335242156}',
        b'{"p":[1],"v":1,"t":1788335242156}',
        b'{"p":%b,"v":1,"t":1788335242156}' % (b"1" * 100),
        b'{"p":1,"v":1,"t":1788335242156,"version":9}',
        b'{"p":1,"v":1,"t":1788335242156,"version":null}',
        b'{"cts":1788335242156,"asks":[[1,2,3]],"bids":[],"version":9}',
    ],
)
def test_what_is_no_trade_is_none(piece: bytes) -> None:
    assert not is_trade(piece)
    with pytest.raises(ValueError, match=r"."):
        trade_of(piece)


@given(st.recursive(st.none() | st.integers() | st.text() | st.floats(allow_nan=False), lambda inner: st.lists(inner)))
def test_nothing_is_a_trade_and_a_change_of_the_book(value: object) -> None:
    piece = json.dumps({**json.loads(WIRE), "version": value}).encode()
    assert not is_trade(piece)
    with pytest.raises(ValueError, match=r"."):
        version_of(WIRE)


def test_a_frame_has_its_trades_in_the_order_of_the_wire() -> None:
    both = b'{"symbol":"X","data":[%b,{"p":1},%b],"channel":"push.deal"}' % (WIRE, PAGE)
    assert [trade.m for trade in trades_in(both)] == [WIRE, PAGE]
    assert [trade.m for trade in trades_in(b'{"data": %b}' % WIRE)] == [WIRE]
    for odd in (b"", b"{}", b"[]", b'{"data":null}', b'{"data":[', b'{"data":"x"}', b"\xff"):
        assert trades_in(odd) == []


def test_an_answer_is_read_in_its_order_and_what_is_no_trade_is_left_out() -> None:
    assert deals_path("BTC_USDT", 100) == "/api/v1/contract/deals/BTC_USDT?limit=100"
    found = read_deals(200, answer(b"[%b, null, %b]" % (WIRE, PAGE)))
    assert [trade.m for trade in found] == [WIRE, PAGE]
    assert read_deals(200, answer(b"[]")) == []


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (403, b"<html>", "HTTP 403"),
        (200, b"<html>", "not JSON"),
        (200, b'{"success":false,"code":510,"message":"Requests are too frequent"}', "510"),
        (200, answer(b"{}"), "cannot be read"),
        (200, answer(b"[7,8]"), "cannot be read"),
        (200, answer(b"[%b]" % b",".join([WIRE] * (10 * MOST_DEALS + 1))), "where 100 were asked for"),
        (200, answer(b"[%b]" % b",".join([b"0"] * (MOST_VALUES + 1))), "values"),
    ],
)
def test_any_other_answer_is_refused(status: int, body: bytes, why: str) -> None:
    with pytest.raises(RestRefusedError, match=why):
        read_deals(status, body)
