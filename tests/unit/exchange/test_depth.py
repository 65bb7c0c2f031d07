"""Continuity of depth and deals: what a frame covers, what is missing before it, what was there already."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.exchange.depth import (
    STALE_FRAMES,
    Deals,
    FullDepth,
    Incremental,
    LowerVersion,
    MissingVersions,
    Span,
    span,
)

MERGED = (
    b'{"symbol":"DOGE_USDT","data":{"cts":1789498405531,"asks":[[0.080100,2868,1],[0.08039,64,1]],"bids":[[0.07969,0,0]],'
    b'"end":8752808003,"begin":8752807948,"version":8752808003},"channel":"push.depth","ts":1789498405534}'
)
EACH = (
    b'{"symbol":"ETH_USDT","data":{"cts":1789498321765,"asks":[[2384.59,42,1]],"bids":[],"version":37723308980},'
    b'"channel":"push.depth","ts":1789498321801}'
)
FULL = (
    '{"symbol":"RIF_USDT","data":{"cts":1789498322165,"asks":[[0.080550,48,1]],"bids":[[0.080490,46,1]],"version":%d},'
    '"channel":"push.depth.full","ts":1789498322169}'
)


def frame(**data: Any) -> bytes:
    return json.dumps({"symbol": "X_USDT", "data": {"asks": [], "bids": [], **data}, "channel": "push.depth"}).encode()


def test_frames_of_the_wire() -> None:
    assert span(MERGED) == (8752807948, 8752808003)
    assert span(EACH) == (37723308980, 37723308980)


@pytest.mark.parametrize(
    ("data", "covered"),
    [
        ({"version": 9, "begin": 5, "end": 9}, Span(5, 9)),
        ({"version": 9, "begin": None, "end": None}, Span(9, 9)),
        ({"version": 9, "begin": 0, "end": 0}, Span(9, 9)),
        ({"version": 9, "begin": 7}, Span(7, 9)),
        ({"version": 9, "end": 9}, Span(9, 9)),
        ({"begin": 5, "end": 9}, Span(5, 9)),
        ({"end": 9}, Span(9, 9)),
        ({"version": "9", "begin": "5"}, Span(5, 9)),
        ({"version": 9, "begin": 12}, Span(9, 9)),
        ({}, None),
        ({"version": 0}, None),
        ({"version": -3}, None),
        ({"version": 9, "begin": -2}, None),
        ({"version": True}, None),
        ({"version": 9.5}, None),
        ({"version": [9]}, None),
    ],
)
def test_what_a_frame_covers(data: dict[str, Any], covered: Span | None) -> None:
    assert span(frame(**data)) == covered


@pytest.mark.parametrize("bad", [b"", b"{}", b'{"data":7}', b'{"data":null}', b"\xff", b'{"data":' + b"[" * 100_000])
def test_what_says_nothing_is_nothing(bad: bytes) -> None:
    assert span(bad) is None
    assert FullDepth().frame(bad) is None
    assert Deals().frame(bad) is None


def test_the_rule_of_continuity() -> None:
    book = Incremental()
    assert book.frame(Span(100, 110)) is None, "nothing is missing before the first"
    assert book.frame(Span(111, 120)) is None
    assert book.frame(Span(115, 125)) is None, "an overlap is safe: sizes are absolute"
    assert book.frame(Span(100, 125)) is None, "stale"
    assert book.frame(Span(128, 130)) == MissingVersions(126, 127)
    assert book.last == 130
    assert book.frame(Span(131, 131)) is None


def test_an_exchange_that_counts_anew_is_noticed_once() -> None:
    book = Incremental()
    book.frame(Span(1, 5000))
    found = [book.frame(Span(n, n)) for n in range(10, 10 + 2 * STALE_FRAMES)]
    assert [f for f in found if f] == [LowerVersion(5000, 10 + STALE_FRAMES - 1, is_reset=True)]
    assert book.last == 10 + 2 * STALE_FRAMES - 1


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=60), st.integers(1, 10**11))
def test_missing_versions_are_exactly_those_of_frames_not_seen(frames: list[tuple[int, bool]], start: int) -> None:
    book = Incremental()
    at, missing, expected, seen = start, set[int](), set[int](), False
    for size, arrives in frames:
        covered = Span(at, at + size - 1)
        if arrives:
            gap = book.frame(covered)
            assert not isinstance(gap, LowerVersion)
            if gap:
                missing |= set(range(gap.first, gap.last + 1))
            seen = True
        elif seen:
            expected |= set(range(covered.first, covered.last + 1))
        at += size
    assert missing == {v for v in expected if v <= book.last}


def test_full_depth_may_repeat_a_version_but_not_go_back() -> None:
    book = FullDepth()
    assert [book.frame((FULL % v).encode()) for v in (5, 7, 7, 9)] == [None] * 4
    assert book.frame((FULL % 8).encode()) == LowerVersion(9, 8)
    assert book.frame((FULL % 9).encode()) is None, "told once"
    other_order = b'{"data":{"version":4,"asks":[]},"channel":"push.depth.full"}'
    assert book.frame(other_order) == LowerVersion(9, 4)
    assert book.frame(b'{"data":{"asks":[]},"channel":"push.depth.full"}') is None


VERSIONS: list[Any] = [5, "5", 0, "0", -5, True, None, 5.0, 10**18, 10**19, 2**63, [5], {}]


@pytest.mark.parametrize(
    "data",
    [
        *({"asks": [], "version": version} for version in VERSIONS),
        {"version": 5, "more": {"version": 7}},
        {"more": {"version": 7}},
        {"asks": [{"version": 7}]},
        [{"asks": [], "version": 5}],
        [[{"version": 5}]],
        '{"version":5}',
        7,
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("last", [False, True], ids=["data before the channel", "data at the end"])
def test_full_depth_has_the_version_that_readers_find(data: Any, last: bool) -> None:
    frame: dict[str, Any] = {"symbol": "X_USDT", "data": data, "channel": "push.depth.full", "ts": 1789498322169}
    if last:
        frame["data"] = frame.pop("data")
    m = json.dumps(frame, separators=(",", ":")).encode()
    book, covered = FullDepth(), span(m)
    book.frame((FULL % (10**18 - 1)).encode())
    found = book.frame(m)
    assert book.read == (covered is not None)
    assert (found.got if found else None) == (covered.last if covered and covered.last < 10**18 - 1 else None)


def deals(*ids: object) -> bytes:
    items = [{"p": 1.5, "v": 3, "T": 1, **({} if i is None else {"i": i}), "cts": "1788335242156"} for i in ids]
    return json.dumps({"symbol": "X_USDT", "data": items, "channel": "push.deal"}, separators=(",", ":")).encode()


def test_deal_ids_of_every_form() -> None:
    seen = Deals()
    assert seen.frame(deals("11", "12")) is None
    assert seen.frame(deals("13", "12", "14", "11")) == ["12", "11"]
    assert seen.frame(deals(13)) == ["13"], "a number is the same as its text"
    assert seen.frame(deals(None, None)) is None
    assert seen.frame(b'{"data":[{"p":1,"i":"14"},{"i": 15 }]}') == ["14"], "the last key of its deal"
    assert seen.frame(b'{"data":{"p":1,"i":15},"channel":"push.deal"}') == ["15"], "one object instead of a list"
    assert seen.frame(b'{"data":[{"i":null},{"i":null}]}') is None


def test_memory_of_deals_is_bounded_and_long_enough() -> None:
    seen = Deals(remembered=100)
    for n in range(1000):
        assert seen.frame(deals(str(n))) is None
        assert len(seen._new) + len(seen._old) <= 200
        if n >= 100:
            assert seen.frame(deals(str(n - 99))) == [str(n - 99)]


def test_a_connection_that_begins_lower_counts_anew_at_once() -> None:
    book = Incremental()
    book.frame(Span(1, 5000))
    assert book.frame(Span(10, 12), first_of_connection=True) == LowerVersion(5000, 12, is_reset=True)
    assert book.frame(Span(13, 14)) is None
    assert book.frame(Span(17, 18)) == MissingVersions(15, 16), "continuity goes on in the new count"
    assert book.frame(Span(15, 18), first_of_connection=True) is None, "the same again is only stale"
    after_restart = Incremental(700)
    assert after_restart.frame(Span(3, 3), first_of_connection=True) == LowerVersion(700, 3, is_reset=True)


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=40), st.integers(1, 50), st.data())
def test_a_new_count_neither_hides_nor_makes_up_what_is_missing(
    frames: list[tuple[int, bool]], start: int, data: st.DataObject
) -> None:
    """Whatever the count begins with, what is missing after it is exactly what did not arrive."""
    book = Incremental()
    book.frame(Span(10_000, 20_000))
    at, missing, expected, first = start, set[int](), set[int](), True
    for size, arrives in frames:
        covered = Span(at, at + size - 1)
        at += size
        if not arrives:
            expected |= set() if first else set(range(covered.first, covered.last + 1))
            continue
        found = book.frame(covered, first_of_connection=first)
        assert isinstance(found, LowerVersion) == first
        if isinstance(found, MissingVersions):
            missing |= set(range(found.first, found.last + 1))
        first = False
    assert missing == {v for v in expected if v <= book.last}


@pytest.mark.parametrize("version", [b"9" * 400, b"9" * 5000, b"9223372036854775808", b"-5", b'"x"', b"1e400", b"[]"])
def test_a_version_that_is_none_says_nothing(version: bytes) -> None:
    m = b'{"data":{"version":%s},"channel":"push.depth.full"}' % version
    assert span(m) is None
    full = FullDepth()
    full.frame((FULL % 9).encode())
    assert full.frame(m) is None


def test_full_depth_that_begins_low_after_a_connection_is_a_new_count() -> None:
    book = FullDepth()
    book.frame((FULL % 9).encode())
    assert book.frame((FULL % 3).encode(), first_of_connection=True) == LowerVersion(9, 3, is_reset=True)


def test_deals_sent_again_after_a_connection_or_a_restart_are_known() -> None:
    seen = Deals()
    assert [seen.frame(m) for m in (deals("1", "2"), deals("3"))] == [None, None]
    seen.connected()
    assert seen.frame(deals("4", "2")) == ["2"], "known from before"
    trade = b'{"data":[{"p":%d,"v":1,"T":1,"t":%d}],"channel":"push.deal"}'
    seen = Deals()
    assert [seen.frame(trade % of) for of in ((5, 1), (5, 1), (6, 2))] == [None] * 3
    seen.connected()
    assert seen.frame(trade % (6, 2)) == [""], "without an id: by what it says"
    assert seen.frame(trade % (6, 3)) is None
    assert seen.frame(trade % (6, 3)) is None, "within a connection two deals may agree"
    assert seen.frame(b'{"data":{"p":6,"v":1,"T":1,"t":2,"i":null}}') == [""], "a null is no id; one object, no list"
    seen.connected()
    assert seen.frame(trade % (6, 3)) == [""]


def test_ids_of_any_kind_and_length() -> None:
    seen = Deals(remembered=4)
    long = "7" * 1_000_000
    assert seen.frame(deals("a-1", long)) is None
    repeated = seen.frame(deals(long, "a-1"))
    assert repeated is not None
    assert repeated[1] == "a-1"
    assert len(repeated[0]) == 64, "not the megabyte itself"
    assert max(map(len, seen._new | seen._old)) <= 65


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 5))
def test_deals_read_anything(frames: list[bytes], remembered: int) -> None:
    seen = Deals(remembered=remembered)
    for m in frames:
        seen.frame(m)
        seen.frame(b'{"data":[{"i":"%s"},{"p":%s}]}' % (m, m))
        seen.connected()


def trades(*said: tuple[object, int, object]) -> bytes:
    items = [{"p": price, "v": 3, "T": 1, "t": 1788335242000 + t, "i": i, "cts": "1"} for i, t, price in said]
    return json.dumps({"symbol": "X_USDT", "data": items, "channel": "push.deal"}, separators=(",", ":")).encode()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("i", ["0", 0, ""])
def test_an_id_that_other_deals_have_as_well_makes_none_a_repeat(i: object, last: bool) -> None:
    seen = Deals()
    frames = [trades((i, n, 1.5)) for n in range(5)]
    if last:
        frames = [m.replace(b',"cts":"1"', b"") for m in frames]
    assert [seen.frame(m) for m in frames] == [None] * 5
    assert not seen.unique
    seen.connected()
    assert seen.frame(frames[3]) == [""], "by what it says"
    assert seen.frame(trades((i, 9, 1.5))) is None


def test_the_same_deal_in_another_spelling_is_a_repeat() -> None:
    seen = Deals()
    assert seen.frame(trades(("7", 1, 1.5))) is None
    assert seen.frame(b'{"data":[{"i":7,"T":1,"v":3.0,"p":1.50,"t":1788335242001}]}') == ["7"]
    assert seen.unique


def test_ids_are_believed_again_once_those_that_were_shared_are_forgotten() -> None:
    seen = Deals(remembered=10)
    seen.frame(trades(("1", 1, 1.5), ("1", 2, 1.5)))
    believed = [seen.unique]
    for n in range(30):
        seen.frame(trades((str(100 + n), n, 1.5)))
        believed.append(seen.unique)
    assert believed == sorted(believed)
    assert believed.count(False) >= 10
    assert believed[-1]
    assert seen.frame(trades(("129", 29, 1.5))) == ["129"]


def test_a_fetched_trade_of_another_numbering_is_no_repeat() -> None:
    seen = Deals()
    seen.fetch(b"7", b'{"p":9,"v":3,"T":1,"t":1788335242001,"i":"7"}')
    assert seen.frame(trades(("7", 1, 1.5))) is None
    assert seen.unique


@pytest.mark.parametrize(("i", "named"), [(b"[1]", "[1]"), (b"[1,2]", "[1,2]"), (b' {"a":[1]}', '{"a":[1]}')])
def test_an_id_that_is_no_number_nor_text_is_named_whole(i: bytes, named: str) -> None:
    seen = Deals()
    m = b'{"data":[{"p":1,"i":%s,"cts":"1"}],"channel":"push.deal"}' % i
    assert seen.frame(m) is None
    assert seen.frame(m) == [named]
    assert seen.frame(b'{"data":[{"i": null},{"i" : null}]}') is None
