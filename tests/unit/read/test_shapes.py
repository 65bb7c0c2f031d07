"""What changes shape is read right, or said: frames with one or two places changed to anything at all.

Judged by Python's own JSON with decimals: what a reader gives is what the frame holds, or the frame is among those it
says it left out. Nothing else may come out of a reader than the error it documents.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mexc_pipeline.exchange.depth import Deals, FullDepth, span
from mexc_pipeline.exchange.holes import unfinished
from mexc_pipeline.exchange.legible import JUDGED, illegible, lacking, wrong_with
from mexc_pipeline.read import decode, moment
from mexc_pipeline.read.rebuild import GapError, History, Stored
from mexc_pipeline.rows import Mt
from support.spools import BOOK, CONTRACT, DEAL, DETAIL, FUNDING, INDEX, KLINE, TICKER

INCREMENTAL = (
    '{"symbol":"BTC_USDT","data":{"cts":1789498405531,"asks":[[0.080100,2868,1],[0.08039,64,1]],"bids":[[0.07969,0,0]],'
    '"end":13,"begin":12,"version":13},"channel":"push.depth","ts":1789498405534}'
)


class Number(str):
    """A JSON number as it is spelled."""

    __slots__ = ()


def spelled(value: Any) -> str:
    """JSON text with numbers as they were spelled."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(k)}:{spelled(v)}" for k, v in value.items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(spelled, value)) + "]"
    return json.dumps(value)


class Pairs:
    """An object whose keys may come twice."""

    def __init__(self, items: list[tuple[str, Any]]) -> None:
        self.items = list(items)


def parsed(text: str) -> Any:
    return json.loads(text, parse_int=Number, parse_float=Number, object_pairs_hook=Pairs)


def places(value: Any) -> Iterator[tuple[Any, int]]:
    """Every place in a frame that can be changed, as its holder and index."""
    held = value.items if isinstance(value, Pairs) else value if isinstance(value, list) else []
    for n, item in enumerate(held):
        yield value, n
        yield from places(item[1] if isinstance(value, Pairs) else item)


DIGITS = st.integers(1, 400).flatmap(lambda n: st.sampled_from(["9" * n, "1" + "0" * (n - 1), ("1234567890" * 40)[:n]]))
NUMBERS = st.builds(
    lambda sign, whole, behind, exponent: Number(f"{sign}{whole}{behind}{exponent}"),
    st.sampled_from(["", "-"]),
    st.one_of(st.just("0"), DIGITS, st.integers(1, 99999).map(str)),
    st.one_of(st.just(""), DIGITS.map(lambda d: f".{d}"), st.integers(1, 80).map(lambda n: "." + "0" * n)),
    st.one_of(st.just(""), st.integers(-400, 400).map(lambda n: f"e{n}"), st.sampled_from(["E+4", "e99999999999"])),
)
ANY = st.one_of(
    NUMBERS,
    NUMBERS.map(str),
    st.sampled_from([None, True, False, "", "x", "null", [], Pairs([]), [[]], [None], [Pairs([("p", Number("1"))])]]),
    st.integers(-2, 2**70).map(lambda n: Number(str(n))),
    st.text(max_size=5),
    st.sampled_from([200, 2000]).map(lambda n: json.loads("[" * n + "]" * n) if n < 900 else "[" * n),
)
KEYS = st.sampled_from(
    ["p", "v", "t", "i", "T", "asks", "bids", "version", "begin", "end", "data", "lastPrice", "more"]
)


@st.composite
def frames(draw: st.DrawFn, of: str) -> str:
    frame = parsed(of)
    for _ in range(draw(st.integers(0, 2))):
        holder, at = draw(st.sampled_from(list(places(frame))))
        if at >= len(holder.items if isinstance(holder, Pairs) else holder):
            continue  # a change before it took the place away
        change = draw(st.sampled_from(["value", "value", "value", "drop", "rename", "twice", "append"]))
        new = copy.deepcopy(draw(ANY))
        if isinstance(holder, Pairs):
            key, old = holder.items[at]
            match change:
                case "value":
                    holder.items[at] = (key, new)
                case "drop":
                    del holder.items[at]
                case "rename":
                    holder.items[at] = (draw(KEYS), old)
                case "twice":
                    holder.items.append((key, new))
                case _:
                    holder.items.append((draw(KEYS), new))
        elif change == "drop":
            del holder[at]
        elif change == "append":
            holder.append(new)
        else:
            holder[at] = new
    return spelled(frame)


def table(texts: list[str]) -> Any:
    count = range(1, len(texts) + 1)
    return pa.table(
        {
            "ts": pa.array(count, pa.int64()).cast(pa.timestamp("ms", "UTC")),
            "mt": pa.array(["x"] * len(texts), pa.string()),
            "m": pa.array(texts, pa.string()),
            "rx": pa.array(count, pa.int64()).cast(pa.timestamp("ns", "UTC")),
            "seq": pa.array(count, pa.uint64()),
        }
    )


def truth(text: str) -> Any:
    """The frame with numbers exact; the last of two equal keys counts."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def number(value: Any) -> Decimal | None:
    """A number or its text as a number; None for null and what is not there."""
    return None if value is None else Decimal(value)


def shown(read: pa.Table) -> list[dict[str, Any]]:
    """The rows, but for times: Python has none after the year 9999, and the exchange may name one."""
    timeless = read.drop_columns([f.name for f in read.schema if pa.types.is_timestamp(f.type)])
    rows: list[dict[str, Any]] = timeless.to_pylist()
    return rows


READERS: dict[str, tuple[Any, str, tuple[tuple[str, str], ...]]] = {
    "f": (decode.funding, FUNDING, (("rate", "rate"),)),
    "i": (decode.prices, INDEX, (("price", "price"),)),
    "k": (decode.klines, KLINE, (("open", "o"), ("close", "c"), ("volume", "q"), ("amount", "a"), ("ro", "ro"))),
    "c": (decode.contracts, CONTRACT, (("contract_size", "contractSize"), ("taker_fee", "takerFeeRate"))),
}
KIND = st.shared(st.sampled_from(sorted(READERS)), key="kind")
SIMPLE = (KIND, KIND.flatmap(lambda kind: frames(READERS[kind][1])))

FAST = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


LEGIBLE = {
    Mt.TICKER: (TICKER, decode.tickers),
    Mt.DEAL: (DEAL, decode.trades),
    Mt.DEPTH: (BOOK, decode.book),
    Mt.FUNDING: (FUNDING, decode.funding),
    Mt.INDEX_PRICE: (INDEX, decode.prices),
    Mt.FAIR_PRICE: (INDEX, decode.prices),
    Mt.KLINE: (KLINE, decode.klines),
    Mt.CONTRACT: (CONTRACT, decode.contracts),
}
JUDGED_KIND = st.shared(st.sampled_from(sorted(LEGIBLE)), key="judged")


@FAST
@given(JUDGED_KIND, JUDGED_KIND.flatmap(lambda mt: frames(LEGIBLE[mt][0])))
def test_a_recording_calls_nothing_unreadable_that_readers_read(mt: Mt, text: str) -> None:
    assert LEGIBLE.keys() == JUDGED
    if illegible(mt, text.encode()) is not None:
        skipped = decode.Skipped()
        LEGIBLE[mt][1](table([text]), skipped)
        assert skipped.seqs == [1]


@pytest.mark.parametrize("mt", sorted(LEGIBLE.keys() - {Mt.CONTRACT}))
def test_what_a_change_of_shape_makes_unreadable_is_said_by_the_recording_too(mt: Mt) -> None:
    """Each field renamed, dropped, or no number."""
    of, read = LEGIBLE[mt]
    assert illegible(mt, of.encode()) is None
    unread = missed = 0
    for n in range(len(list(places(parsed(of))))):
        for change in ("rename", "drop", "word"):
            frame = parsed(of)
            holder, at = list(places(frame))[n]
            if isinstance(holder, Pairs):
                key, old = holder.items[at]
                new = {"rename": [(f"{key}2", old)], "drop": [], "word": [(key, "x")]}[change]
                holder.items[at : at + 1] = new
            elif change == "word":
                holder[at] = "x"
            text = spelled(frame)
            skipped = decode.Skipped()
            read(table([text]), skipped)
            unread += bool(skipped.seqs)
            missed += bool(skipped.seqs) and illegible(mt, text.encode()) is None
    assert unread
    assert missed <= unread / 2, "fields that few need"


@pytest.mark.parametrize("mt", sorted(LEGIBLE))
@pytest.mark.parametrize("change", ["rename", "drop", "null"])
def test_a_field_that_was_always_there_and_is_not_any_more_is_said(mt: Mt, change: str) -> None:
    """Whatever readers call missing, of each channel; of the sides of a book it is both together."""
    of, read = (DETAIL if mt == Mt.CONTRACT else LEGIBLE[mt][0]), LEGIBLE[mt][1]
    assert wrong_with(mt, of.encode()) is None
    said = set()
    for n in range(len(list(places(parsed(of))))):
        frame = parsed(of)
        holder, at = list(places(frame))[n]
        if not isinstance(holder, Pairs):
            continue
        key, old = holder.items[at]
        holder.items[at : at + 1] = {"rename": [(f"{key}2", old)], "drop": [], "null": [(key, None)]}[change]
        text = spelled(frame)
        skipped = decode.Skipped()
        read(table([text]), skipped)
        why = wrong_with(mt, text.encode())
        if why is not None:
            said.add(key)
        if skipped.seqs or (skipped.missing and key not in ("asks", "bids")):
            assert why is not None, key
            assert why.startswith("cannot be read: " if skipped.seqs else f"have no {key}"), (key, why)
    assert said >= ALWAYS[mt]


@pytest.mark.parametrize("code", ["0", "3", '"3"'])
def test_trades_of_no_known_side_are_said(code: str) -> None:
    text = DEAL.replace('"T":1', f'"T":{code}').replace('"T":2', f'"T":{code}')
    skipped = decode.Skipped()
    assert decode.trades(table([text]), skipped).column("side").null_count == skipped.missing["T"] == 2
    assert (wrong_with(Mt.DEAL, text.encode()) or "").startswith("have no T of 1 or 2")


ALWAYS = {
    Mt.TICKER: {"lastPrice", "bid1", "fairPrice", "fundingRate", "holdVol", "volume24", "timestamp"},
    Mt.DEAL: {"p", "v", "T", "t", "O", "M"},
    Mt.DEPTH: {"version"},
    Mt.FUNDING: {"rate", "nextSettleTime"},
    Mt.INDEX_PRICE: {"price"},
    Mt.FAIR_PRICE: {"price"},
    Mt.KLINE: {"interval", "t", "o", "h", "l", "c", "q", "a"},
    Mt.CONTRACT: {"contractSize", "priceScale", "state"},
}


@pytest.mark.parametrize("of", [BOOK, INCREMENTAL])
def test_a_book_may_lack_a_side_but_not_both(of: str) -> None:
    assert lacking(Mt.DEPTH, of.encode()) == []
    assert lacking(Mt.DEPTH, of.replace('"asks"', '"sells"').encode()) == []
    both = of.replace('"asks"', '"sells"').replace('"bids"', '"buys"')
    assert lacking(Mt.DEPTH, both.encode()) == ["asks", "bids"]


def test_what_stands_in_another_place_is_not_missing() -> None:
    assert wrong_with(Mt.FUNDING, FUNDING.replace('"rate"', '"fundingRate"').encode()) is None
    part = '{"channel":"push.contract","data":{"symbol":"BTC_USDT","takerFeeRate":0.0002},"ts":1}'
    assert wrong_with(Mt.CONTRACT, part.encode()) is None


@FAST
@example(DEAL.replace("77526,", "9" * 140 + ","))
@example(DEAL.replace("77526,", "-" + "9" * 140 + ","))
@example(DEAL.replace("77526,", "1e30,"))
@given(frames(DEAL))
def test_trades(text: str) -> None:
    skipped = decode.Skipped()
    read = decode.trades(table([DEAL, text]), skipped)
    times = read.column("time").cast(pa.int64()).to_pylist()
    found = [row | {"time": ms} for row, ms in zip(read.to_pylist(), times, strict=True)]
    of_frame = [row for row in found if row["seq"] == 2]
    assert skipped.seqs in ([], [2])
    assert len(found) - len(of_frame) == 2, "the other frame is read all the same"
    if skipped.seqs:
        assert not of_frame
        assert skipped.why
        return
    data = truth(text)["data"]
    deals = data if isinstance(data, list) else [data]
    assert len(of_frame) == len(deals)
    for row, deal in zip(of_frame, deals, strict=True):
        assert row["price"] == number(deal["p"])
        assert row["volume"] == number(deal["v"])
        assert row["side"] == {Decimal(1): "buy", Decimal(2): "sell"}.get(number(deal.get("T")) or Decimal(0))
        time = number(deal["t"])
        assert row["time"] == (time if time is not None and 10**12 <= time < 10**13 else None)


@FAST
@example(TICKER.replace("76376.1,", "9" * 140 + ","))
@given(frames(TICKER))
def test_tickers(text: str) -> None:
    skipped = decode.Skipped()
    found = shown(decode.tickers(table([TICKER, text]), skipped))
    assert skipped.seqs in ([], [2])
    assert len(found) == 2 - len(skipped.seqs)
    if not skipped.seqs:
        data = truth(text)["data"]
        for name, key in (("last", "lastPrice"), ("bid", "bid1"), ("index", "indexPrice"), ("volume24", "volume24")):
            assert found[1][name] == number(data.get(key))
            assert (skipped.missing[name] > 0) == (data.get(key) is None)


@FAST
@example("f", FUNDING.replace("0.000081", "9" * 140))
@example("k", KLINE.replace('"Min1"', '"\\ud83d\\ude00"'))
@example("c", CONTRACT.replace('{"symbol"', '[{"symbol"').replace("000}", "000},[]]"))
@given(*SIMPLE)
def test_funding_prices_candles_and_contracts(kind: str, text: str) -> None:
    build, of, names = READERS[kind]
    skipped = decode.Skipped()
    found = shown(build(table([of, text]), skipped))
    assert skipped.seqs in ([], [2])
    assert [row["seq"] for row in found].count(1) == 1, "the other frame is read all the same"
    of_frame = [row for row in found if row["seq"] == 2]
    if skipped.seqs:
        assert not of_frame
        assert skipped.why
        return
    value = truth(text)
    data = value["data"] if kind != "c" else value.get("data", value)
    held = data if isinstance(data, list) else [data]
    assert len(of_frame) == len(held)
    for row, one in zip(of_frame, held, strict=True):
        for name, key in names:
            assert row[name] == number(one.get(key, one.get("fundingRate") if key == "rate" else None))


def best_first(data: Any, side: str, sign: int) -> list[Any]:
    """Levels with a volume, the best first, of one price the last; those without a price last."""
    levels = data.get(f"{side}s") or []
    last = {number(level[0]): n for n, level in enumerate(levels)}
    levels = [level for n, level in enumerate(levels) if number(level[0]) is None or last[number(level[0])] == n]
    levels = [level for level in levels if number(level[1]) != 0]
    return sorted(levels, key=lambda level: (number(level[0]) is None, sign * (number(level[0]) or 0)))


def numbers_of(levels: list[tuple[str, Any]], side: str) -> range:
    return range(1, 1 + sum(of == side for of, _ in levels))


@FAST
@example(BOOK.replace("[[77526,46,1],[77525.90,489,2]]", "[[1,1,1],[3,1,1],[2,0,0],[3,2,1],[4,1,1],[4,0,0]]"))
@example(BOOK.replace('"asks":[[77526.10,48,1],[77526.2,347,1]]', '"asks":null'))
@example(BOOK.replace("[77526,46,1]", "[null,46,1]"))
@example(BOOK.replace("77526.10,", "9" * 140 + ","))
@example(BOOK.replace("77526.10,", "10000000,"))
@example(BOOK.replace('"data":{', '"data":{"cts":999999999999999,'))
@given(frames(BOOK))
def test_books_of_full_depth(text: str) -> None:
    skipped = decode.Skipped()
    found = shown(decode.book(table([BOOK, text]), skipped))
    of_frame = [row for row in found if row["seq"] == 2]
    assert len(found) - len(of_frame) == 4
    assert (len(skipped.seqs), skipped.other) in ((0, 0), (1, 0), (0, 1))
    if skipped.seqs or skipped.other:
        assert not of_frame
        return
    data = truth(text)["data"]
    levels = [(side, level) for side, sign in (("ask", 1), ("bid", -1)) for level in best_first(data, side, sign)]
    assert [r["level"] for r in of_frame] == [n for side in ("ask", "bid") for n in numbers_of(levels, side)]
    assert [(r["side"], r["price"], r["volume"]) for r in of_frame] == [
        (side, number(level[0]), number(level[1])) for side, level in levels
    ]
    assert [r["orders"] for r in of_frame] == [number(level[2]) if len(level) > 2 else None for _, level in levels]


SNAPSHOT = (
    b'{"event":"snapshot","channel":"push.depth","version":11,"book":{"asks":[[9,1,1]],"bids":null,"version":11}}'
)


@FAST
@example(INCREMENTAL.replace('"asks":[[0.080100,2868,1],[0.08039,64,1]],', ""), "dp")
@example(INCREMENTAL.replace("0.080100", "9" * 140), "dp")
@example(BOOK.replace("77526.10,", "9" * 140 + ","), "dp")
@example(BOOK.replace("48,", "9" * 140 + ","), "dp")
@given(frames(INCREMENTAL) | frames(BOOK), st.sampled_from(["dp", "r", "ev"]))
def test_the_book_of_an_instant(text: str, mt: str) -> None:
    rows = [Stored(1, 1, 1, "ev", SNAPSHOT, "x"), Stored(2, 2, 2, mt, text.encode(), "x")]
    try:
        book = History(2).add(rows).book()
        assert book is not None
        built = moment.table(book)
    except GapError:  # names what it cannot read: test_rebuild
        return
    if mt != "dp" or book.row.seq != 2:
        assert set(book.asks) == {9}
        return
    data = truth(text)["data"]
    assert book.version == number(data.get("end") or data["version"])
    for side, held in (("asks", book.asks), ("bids", book.bids)):
        for level in data.get(side) or []:
            price = number(level[0])
            assert price is not None
            last = [number(other[1]) for other in data[side] if number(other[0]) == price][-1]
            assert held.get(price, (0, None))[0] == last
    assert sorted(built.column("price").to_pylist()) == sorted([*book.asks, *book.bids])


@FAST
@given(frames(INCREMENTAL) | frames(BOOK) | frames(DEAL))
def test_what_looks_at_frames_as_they_arrive_takes_anything(text: str) -> None:
    m = text.encode()
    span(m)
    FullDepth().frame(m)
    seen = Deals()
    seen.frame(m)
    seen.connected()
    seen.frame(m)
    unfinished("push.depth", [m], [])


@pytest.mark.parametrize("data", ["null", "7", '"x"', "true", "[[]]", "[null]", "[7]"])
def test_data_of_another_type_is_left_out_and_said(data: str) -> None:
    readers = [(of, build) for build, of, _ in READERS.values()]
    for of, read in ((DEAL, decode.trades), (TICKER, decode.tickers), (BOOK, decode.book), *readers):
        frame = parsed(of)
        at = [key for key, _ in frame.items].index("data")
        frame.items[at] = ("data", parsed(data))
        skipped = decode.Skipped()
        read(table([spelled(frame), of]), skipped)
        assert skipped.seqs == [1]
        assert "data" in skipped.why


def test_no_deals_are_no_rows_and_nothing_is_left_out() -> None:
    skipped = decode.Skipped()
    assert len(decode.trades(table(['{"data":[],"channel":"push.deal"}']), skipped)) == 0
    assert not skipped.seqs


@pytest.mark.parametrize("floats", [False, True])
def test_the_best_levels_are_the_best_whatever_their_order_on_the_wire(floats: bool) -> None:
    mixed = BOOK.replace("[[77526,46,1],[77525.90,489,2]]", "[[77524,7,1],[77526,0,0],[77525,8,1]]")
    assert mixed != BOOK
    read = decode.book(table([BOOK, mixed, BOOK]), decode.Skipped(), levels=1, floats=floats).to_pylist()
    assert [(row["seq"], row["side"], row["level"]) for row in read] == [
        (seq, side, 1) for seq in (1, 2, 3) for side in ("ask", "bid")
    ]
    assert [float(row["price"]) for row in read if row["side"] == "bid"] == [77526.0, 77525.0, 77526.0]
