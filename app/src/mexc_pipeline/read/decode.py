"""Frames decoded into columns: trades, tickers, books, funding, prices, candles and contracts as Arrow tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import UNSET, Raw, UnsetType

from mexc_pipeline.exchange.channels import FULL_DEPTH
from mexc_pipeline.exchange.protocol import content
from mexc_pipeline.read import columnar
from mexc_pipeline.read.numbers import NULL, PRICE, VOLUME, WIDE, NotNumbers, column, times, unified
from mexc_pipeline.rows import is_utf8

_F = TypeVar("_F")
_AT_ONCE = 2048
_SIDES = pa.array([None, "buy", "sell"], pa.string())
"""By the exchange's code; anything but 1 and 2 is no side."""

_MOST_WHOLE = 2**63 - 1
_MOST_CODE = 127
_FIRST_S, _END_S = 10**9, 10**10
"""A time of ten digits is one in seconds."""
_TRUTH = {b"true": True, b"false": False}


@dataclass(slots=True)
class Skipped:
    """Frames that were left out: ``seqs`` of those that could not be decoded, ``why`` for the first of them, ``other``
    counts those of another channel of the same type. ``missing``: how many frames (of deals: how many deals) lack a
    field that the exchange has always sent, or have null for it, by its name; ``untimed``: how many of them hold in a
    field a time that is not in milliseconds."""

    seqs: list[int | None] = field(default_factory=list)
    other: int = 0
    why: str = ""
    missing: Counter[str] = field(default_factory=Counter)
    untimed: Counter[str] = field(default_factory=Counter)

    def add(self, later: Skipped) -> None:
        """Count in what was left out of frames that come later."""
        self.seqs += later.seqs
        self.other += later.other
        self.why = self.why or later.why
        self.missing += later.missing
        self.untimed += later.untimed

    def times(self, name: str, values: Any) -> Any:
        """Whole numbers of the field ``name`` as times: null where the unit is not known, and counted."""
        found, odd = times(values)
        if odd:
            self.untimed[name] += odd
        return found

    def seconds(self, name: str, values: Any) -> Any:
        """Whole numbers of the field ``name`` as times in Unix seconds: null where they are none, and counted."""
        told = pc.and_(pc.greater_equal(values, _FIRST_S), pc.less(values, _END_S))
        if odd := len(values) - values.null_count - (pc.sum(told).as_py() or 0):
            self.untimed[name] += odd
        ms = pc.multiply(pc.if_else(told, values, pa.scalar(None, pa.int64())), 1000)
        return ms.cast(pa.timestamp("ms", "UTC"))


class _Deal(msgspec.Struct, gc=False):
    """Numbers are left as they are spelled: reading them is exact, whatever their form, or refused."""

    p: Raw
    v: Raw
    t: Raw
    T: Raw = NULL
    O: Raw = NULL  # noqa: E741 -- the exchange's name
    M: Raw = NULL
    i: int | str | None = None
    cts: Raw = NULL


class _DealFrame(msgspec.Struct, gc=False):
    data: list[_Deal] | _Deal


class _Ticker(msgspec.Struct, rename="camel", gc=False):
    last_price: Raw = NULL
    bid1: Raw = NULL
    ask1: Raw = NULL
    fair_price: Raw = NULL
    index_price: Raw = NULL
    high24_price: Raw = msgspec.field(default=NULL, name="high24Price")
    lower24_price: Raw = msgspec.field(default=NULL, name="lower24Price")
    max_bid_price: Raw = NULL
    min_ask_price: Raw = NULL
    volume24: Raw = NULL
    amount24: Raw = NULL
    hold_vol: Raw = NULL
    funding_rate: Raw = NULL
    rise_fall_rate: Raw = NULL
    rise_fall_value: Raw = NULL
    timestamp: Raw = NULL


class _TickerFrame(msgspec.Struct, gc=False):
    data: _Ticker


class _Funding(msgspec.Struct, rename="camel", gc=False):
    rate: Raw = NULL
    funding_rate: Raw = NULL
    next_settle_time: Raw = NULL


class _FundingFrame(msgspec.Struct, gc=False):
    data: _Funding


class _Price(msgspec.Struct, gc=False):
    price: Raw = NULL


class _PriceFrame(msgspec.Struct, gc=False):
    data: _Price


class _Kline(msgspec.Struct, gc=False):
    interval: Raw = NULL
    t: Raw = NULL
    o: Raw = NULL
    h: Raw = NULL
    l: Raw = NULL  # noqa: E741 -- the exchange's name
    c: Raw = NULL
    q: Raw = NULL
    a: Raw = NULL
    ro: Raw = NULL
    rh: Raw = NULL
    rl: Raw = NULL
    rc: Raw = NULL


class _KlineFrame(msgspec.Struct, gc=False):
    data: _Kline


class _Contract(msgspec.Struct, rename="camel", gc=False):
    symbol: Raw = NULL
    base_coin: Raw = NULL
    quote_coin: Raw = NULL
    settle_coin: Raw = NULL
    contract_size: Raw = NULL
    price_scale: Raw = NULL
    price_unit: Raw = NULL
    vol_scale: Raw = NULL
    vol_unit: Raw = NULL
    min_vol: Raw = NULL
    max_vol: Raw = NULL
    min_leverage: Raw = NULL
    max_leverage: Raw = NULL
    maker_fee_rate: Raw = NULL
    taker_fee_rate: Raw = NULL
    maintenance_margin_rate: Raw = NULL
    initial_margin_rate: Raw = NULL
    state: Raw = NULL
    is_hidden: Raw = NULL
    api_allowed: Raw = NULL
    opening_time: Raw = NULL


class _ContractFrame(_Contract, rename="camel", gc=False):
    """A push or an answer with one or several in its ``data``, or one as REST has it among others."""

    data: list[_Contract] | _Contract | UnsetType = UNSET


class _Book(msgspec.Struct, gc=False):
    """A side that is null, or not there at all, has no levels."""

    version: Raw
    asks: list[list[Raw]] | UnsetType | None = UNSET
    bids: list[list[Raw]] | UnsetType | None = UNSET
    cts: Raw = NULL


class _BookFrame(msgspec.Struct, gc=False):
    channel: str
    data: _Book


class _Channel(msgspec.Struct, gc=False):
    channel: str


class _Decoder(Generic[_F]):
    """Decodes frames in one call; where one of them does not fit, one by one."""

    def __init__(self, kind: type[_F]) -> None:
        self._one = msgspec.json.Decoder(kind)
        self._many: msgspec.json.Decoder[list[_F]] = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]

    def all(self, frames: Sequence[bytes]) -> tuple[list[_F | None], str]:
        """The frames decoded, None where one could not be, and why the first of those could not."""
        try:
            decoded = self._many.decode(b"[" + b",".join(frames) + b"]")
        except (msgspec.MsgspecError, ValueError, RecursionError):
            decoded = []
        if len(decoded) == len(frames):
            return [*decoded], ""
        one_by_one: list[_F | None] = []
        why = ""
        for frame in frames:
            try:
                one_by_one.append(self._one.decode(frame))
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # counted and reported as skipped
                one_by_one.append(None)
                why = why or (str(error) if isinstance(error, msgspec.MsgspecError) else "nested too deep")
        return one_by_one, why


_DEALS = _Decoder(_DealFrame)
_TICKERS = _Decoder(_TickerFrame)
_BOOKS = _Decoder(_BookFrame)
_FUNDING = _Decoder(_FundingFrame)
_PRICES = _Decoder(_PriceFrame)
_KLINES = _Decoder(_KlineFrame)
_CONTRACTS = _Decoder(_ContractFrame)
_CHANNELS = _Decoder(_Channel)

_TICKER_COLUMNS: tuple[tuple[str, str, Any], ...] = (
    ("last", "last_price", PRICE),
    ("bid", "bid1", PRICE),
    ("ask", "ask1", PRICE),
    ("fair", "fair_price", PRICE),
    ("index", "index_price", PRICE),
    ("high24", "high24_price", PRICE),
    ("low24", "lower24_price", PRICE),
    ("max_bid", "max_bid_price", PRICE),
    ("min_ask", "min_ask_price", PRICE),
    ("volume24", "volume24", WIDE),
    ("amount24", "amount24", WIDE),
    ("open_interest", "hold_vol", WIDE),
    ("funding_rate", "funding_rate", WIDE),
    ("change_rate24", "rise_fall_rate", WIDE),
    ("change24", "rise_fall_value", WIDE),
)
_KLINE_COLUMNS: tuple[tuple[str, str, Any], ...] = (
    ("open", "o", PRICE),
    ("high", "h", PRICE),
    ("low", "l", PRICE),
    ("close", "c", PRICE),
    ("volume", "q", VOLUME),
    ("amount", "a", WIDE),
)
_KLINE_FURTHER: tuple[tuple[str, str, Any], ...] = tuple((name, name, PRICE) for name in ("ro", "rh", "rl", "rc"))
"""On the wire since 2022, in no documentation."""
_CONTRACT_COLUMNS: tuple[tuple[str, str, Any], ...] = (
    ("contract_size", "contract_size", WIDE),
    ("price_scale", "price_scale", pa.int64()),
    ("price_unit", "price_unit", PRICE),
    ("volume_scale", "vol_scale", pa.int64()),
    ("volume_unit", "vol_unit", VOLUME),
    ("min_volume", "min_vol", VOLUME),
    ("max_volume", "max_vol", VOLUME),
    ("min_leverage", "min_leverage", pa.int64()),
    ("max_leverage", "max_leverage", pa.int64()),
    ("maker_fee", "maker_fee_rate", WIDE),
    ("taker_fee", "taker_fee_rate", WIDE),
    ("maintenance_margin", "maintenance_margin_rate", WIDE),
    ("initial_margin", "initial_margin_rate", WIDE),
)
_ALWAYS = ("contract_size", "price_scale", "state")
"""What every description of a contract has had."""


def trades(table: Any, skipped: Skipped, *, floats: bool = False) -> Any:
    """Deal frames, and trades of their own (``filled``), as one row per trade, in the order of the wire."""
    table = _with_fetched(table)

    def one_by_one(rows: Any, frames: Sequence[_DealFrame]) -> Any:
        return _trades(rows, frames, skipped, floats)

    def build(piece: Any) -> Any:
        found = columnar.deals(piece.column("m").combine_chunks(), floats=floats)
        if found is None:
            return _without_undecodable(piece, skipped, _DEALS, one_by_one)
        return _trades_of(piece, *found, skipped)

    built = [build(piece) for piece in _pieces(table, columnar.AT_ONCE)]
    sides = sum(one.column("side").null_count for one in built)
    if sides:
        skipped.missing["T"] += sides
    return pa.concat_tables(unified(built))


def _with_fetched(table: Any) -> Any:
    """The rows unpacked, trades that were fetched over REST as frames of one trade, and which those are."""
    table = _unpacked(table)
    if "mt" not in table.column_names:
        return table.append_column("filled", pa.array(np.zeros(len(table), dtype=bool)))
    fetched = pc.equal(table.column("mt"), "r").combine_chunks()
    if pc.any(fetched).as_py():
        m = table.column("m").combine_chunks()
        framed = pc.binary_join_element_wise('{"data":[', m.filter(fetched), "]}", "")
        at = table.schema.get_field_index("m")
        table = table.set_column(at, table.schema.field(at), pc.replace_with_mask(m, fetched, framed))
    return table.append_column("filled", fetched)


def tickers(table: Any, skipped: Skipped, *, floats: bool = False) -> Any:
    """Ticker frames as one row each."""
    return _without_undecodable(
        _unpacked(table), skipped, _TICKERS, lambda rows, frames: _tickers(rows, frames, skipped, floats)
    )


def funding(table: Any, skipped: Skipped, *, floats: bool = False) -> Any:
    """Funding frames as one row each."""
    return _without_undecodable(
        _unpacked(table), skipped, _FUNDING, lambda rows, frames: _funding(rows, frames, skipped, floats)
    )


def prices(table: Any, skipped: Skipped, *, floats: bool = False) -> Any:
    """Frames of the index or the fair price as one row each."""
    return _without_undecodable(
        _unpacked(table), skipped, _PRICES, lambda rows, frames: _prices(rows, frames, skipped, floats)
    )


def klines(table: Any, skipped: Skipped, *, floats: bool = False) -> Any:
    """Kline frames as one row each."""
    return _without_undecodable(
        _unpacked(table), skipped, _KLINES, lambda rows, frames: _klines(rows, frames, skipped, floats)
    )


def contracts(table: Any, skipped: Skipped, *, floats: bool = False) -> Any:
    """Descriptions of contracts as one row each, in the order of the wire."""
    return _without_undecodable(
        _unpacked(table), skipped, _CONTRACTS, lambda rows, frames: _contracts(rows, frames, skipped, floats)
    )


def book(table: Any, skipped: Skipped, *, levels: int | None = None, floats: bool = False) -> Any:
    """Full-depth frames as one row per side and level. Incremental ones are counted in ``skipped.other``."""
    table = _unpacked(table)
    likely = pc.match_substring(table.column("m"), FULL_DEPTH)
    full = table.filter(likely)
    others = table.filter(pc.invert(likely))
    for piece in _pieces(others):
        found, why = _CHANNELS.all(_frames(piece))
        skipped.why = skipped.why or why
        for seq, frame in zip(piece.column("seq").to_pylist(), found, strict=True):
            if frame is None:
                skipped.seqs.append(seq)
            else:
                skipped.other += 1

    def build(rows: Any, frames: Sequence[_BookFrame]) -> Any:
        return _book(rows, frames, levels, skipped, floats)

    return _without_undecodable(full, skipped, _BOOKS, build)


def _frames(table: Any) -> list[bytes]:
    frames: list[bytes] = table.column("m").cast(pa.binary()).to_pylist()
    return frames


def _unpacked(table: Any) -> Any:
    """The rows with the text of frames that came compressed in the place of what came. What is no text stays."""
    packed = pc.starts_with(table.column("m"), '{"base64":"')
    if not pc.any(packed).as_py():
        return table
    texts = [
        text if is_utf8(text) else m for m in table.column("m").cast(pa.binary()).to_pylist() for text in (content(m),)
    ]
    at = table.schema.get_field_index("m")
    return table.set_column(at, table.schema.field(at), pa.array(texts, pa.binary()).cast(pa.string()))


def _pieces(table: Any, rows: int = _AT_ONCE) -> list[Any]:
    """Few enough frames at a time that neither memory nor the garbage collector feels their decoded objects."""
    return [table.slice(start, rows) for start in range(0, max(len(table), 1), rows)]


def _without_undecodable(
    table: Any, skipped: Skipped, decoder: _Decoder[_F], build: Callable[[Any, Sequence[_F]], Any]
) -> Any:
    """Decode, leave out what does not decode (here, or when its numbers turn out to be none), build the columns."""
    return pa.concat_tables(unified([_piece(piece, skipped, decoder, build) for piece in _pieces(table)]))


def _piece(table: Any, skipped: Skipped, decoder: _Decoder[_F], build: Callable[[Any, Sequence[_F]], Any]) -> Any:
    decoded, why = decoder.all(_frames(table))
    while True:
        skipped.why = skipped.why or why
        wrong = [n for n, frame in enumerate(decoded) if frame is None]
        if wrong:
            good = [n for n, frame in enumerate(decoded) if frame is not None]
            skipped.seqs += table.column("seq").take(pa.array(wrong, pa.int64())).to_pylist()
            table = table.take(pa.array(good, pa.int64()))
        frames = [frame for frame in decoded if frame is not None]
        try:
            return build(table, frames)
        except NotNumbers as error:
            left_out, why = set(error.positions), error.why
            decoded = [None if n in left_out else frame for n, frame in enumerate(frames)]


def _spread(rows: Any, counts: Any) -> tuple[Any, dict[str, Any]]:
    """Position of the frame of every value, and rx, ts and seq repeated likewise."""
    which = np.repeat(np.arange(len(counts)), counts)
    index = pa.array(which)
    return which, {name: rows.column(name).combine_chunks().take(index) for name in ("rx", "ts", "seq")}


def _number(which: Any, name: str, raws: Sequence[Raw], kind: Any, floats: bool) -> Any:
    try:
        return column(raws, kind, floats=floats)
    except NotNumbers as error:
        raise NotNumbers([int(which[n]) for n in error.positions], f"{name}: {error.why}") from None


def _whole(which: Any, name: str, raws: Sequence[Raw], most: int) -> Any:
    """Whole numbers from 0 to ``most``."""
    found = _number(which, name, raws, pa.int64(), False)
    outside = pc.indices_nonzero(pc.or_(pc.less(found, 0), pc.greater(found, most))).to_pylist()
    if outside:
        raise NotNumbers([int(which[n]) for n in outside], f"{name}: {found[outside[0]]} is not from 0 to {most}")
    return found


def _trades(rows: Any, frames: Sequence[_DealFrame], skipped: Skipped, floats: bool) -> Any:
    lists = [f.data if isinstance(f.data, list) else [f.data] for f in frames]
    counts = [len(deals) for deals in lists]
    which = np.repeat(np.arange(len(counts)), counts)
    deals = list(chain.from_iterable(lists))
    columns = {
        "p": _number(which, "p", [d.p for d in deals], PRICE, floats),
        "v": _number(which, "v", [d.v for d in deals], VOLUME, floats),
        "t": _whole(which, "t", [d.t for d in deals], _MOST_WHOLE),
        "T": _whole(which, "T", [d.T for d in deals], _MOST_CODE).cast(pa.int8()),
        "O": _whole(which, "O", [d.O for d in deals], _MOST_CODE).cast(pa.int8()),
        "M": _whole(which, "M", [d.M for d in deals], _MOST_CODE).cast(pa.int8()),
        "i": pa.array([d.i if d.i is None or isinstance(d.i, str) else str(d.i) for d in deals], pa.string()),
        "cts": _whole(which, "cts", [d.cts for d in deals], _MOST_WHOLE),
    }
    return _trades_of(rows, counts, pa.StructArray.from_arrays(list(columns.values()), list(columns)), skipped)


def _trades_of(rows: Any, counts: Any, deals: Any, skipped: Skipped) -> Any:
    """The table of trades: ``counts`` of them for each row, ``deals`` under the exchange's names."""
    counts = np.asarray(counts, dtype=np.int64)
    which, head = _spread(rows, counts)
    field = {name: deals.field(name) for name in ("p", "v", "t", "T", "O", "M", "i", "cts")}
    return pa.table(
        {
            **head,
            "n": pa.array(np.arange(len(deals)) - np.repeat(np.cumsum(counts) - counts, counts), pa.int32()),
            "time": skipped.times("t", field["t"]),
            "price": field["p"],
            "volume": field["v"],
            "side": _SIDES.take(pc.if_else(pc.is_in(field["T"], pa.array([1, 2], pa.int8())), field["T"], 0)),
            "open_type": field["O"],
            "self_trade": pc.equal(field["M"], 1),
            "id": field["i"],
            "cts": skipped.times("cts", field["cts"]),
            "filled": rows.column("filled").combine_chunks().take(pa.array(which)),
        }
    )


def _tickers(rows: Any, frames: Sequence[_TickerFrame], skipped: Skipped, floats: bool) -> Any:
    data = [f.data for f in frames]
    which, head = _spread(rows, [1] * len(data))
    time = _whole(which, "timestamp", [d.timestamp for d in data], _MOST_WHOLE)
    numbers = _fields(which, data, _TICKER_COLUMNS, floats)
    built = pa.table({**head, "time": skipped.times("timestamp", time), **numbers})
    _lacking(skipped, numbers)
    return built


def _fields(which: Any, data: Sequence[Any], columns: Sequence[tuple[str, str, Any]], floats: bool) -> dict[str, Any]:
    return {
        name: _number(which, name, [getattr(d, field) for d in data], kind, floats) for name, field, kind in columns
    }


def _lacking(skipped: Skipped, columns: Mapping[str, Any]) -> None:
    """Count by the column's name who leaves a field out, or has null for it."""
    for name, values in columns.items():
        if values.null_count:
            skipped.missing[name] += values.null_count


def _strings(raws: Sequence[Raw]) -> Any:
    """Text, null for what is none."""
    return pa.array([_string(raw) for raw in raws], pa.string())


def _string(raw: Raw) -> str | None:
    try:
        return msgspec.json.decode(raw, type=str)
    except msgspec.MsgspecError:  # of another type
        return None


def _funding(rows: Any, frames: Sequence[_FundingFrame], skipped: Skipped, floats: bool) -> Any:
    data = [f.data for f in frames]
    which, head = _spread(rows, [1] * len(data))
    raws = [d.funding_rate if d.rate is NULL else d.rate for d in data]
    rate = _number(which, "rate", raws, WIDE, floats)
    settles = _whole(which, "nextSettleTime", [d.next_settle_time for d in data], _MOST_WHOLE)
    built = pa.table({**head, "rate": rate, "next_settle": skipped.times("nextSettleTime", settles)})
    _lacking(skipped, {"rate": rate, "next_settle": settles})
    return built


def _prices(rows: Any, frames: Sequence[_PriceFrame], skipped: Skipped, floats: bool) -> Any:
    data = [f.data for f in frames]
    which, head = _spread(rows, [1] * len(data))
    price = _number(which, "price", [d.price for d in data], PRICE, floats)
    _lacking(skipped, {"price": price})
    return pa.table({**head, "price": price})


def _klines(rows: Any, frames: Sequence[_KlineFrame], skipped: Skipped, floats: bool) -> Any:
    data = [f.data for f in frames]
    which, head = _spread(rows, [1] * len(data))
    numbers = _fields(which, data, [*_KLINE_COLUMNS, *_KLINE_FURTHER], floats)
    start = _whole(which, "t", [d.t for d in data], _MOST_WHOLE)
    interval = _strings([d.interval for d in data])
    built = pa.table({**head, "interval": interval, "start": skipped.seconds("t", start), **numbers})
    always = {name: numbers[name] for name, _, _ in _KLINE_COLUMNS}
    _lacking(skipped, {"interval": interval, "start": start, **always})
    return built


def _contracts(rows: Any, frames: Sequence[_ContractFrame], skipped: Skipped, floats: bool) -> Any:
    held: list[list[_Contract]] = []
    names: list[Raw] = []
    for frame in frames:
        inner = frame.data
        held.append([frame] if isinstance(inner, UnsetType) else inner if isinstance(inner, list) else [inner])
        names += [frame.symbol if one.symbol is NULL else one.symbol for one in held[-1]]
    data = list(chain.from_iterable(held))
    which, head = _spread(rows, [len(inner) for inner in held])
    numbers = _fields(which, data, _CONTRACT_COLUMNS, floats)
    state = _whole(which, "state", [d.state for d in data], _MOST_CODE).cast(pa.int8())
    opens = [NULL if bytes(d.opening_time) == b"0" else d.opening_time for d in data]
    opening = _whole(which, "openingTime", opens, _MOST_WHOLE)
    built = pa.table(
        {
            **head,
            "symbol": _strings(names),
            "base": _strings([d.base_coin for d in data]),
            "quote": _strings([d.quote_coin for d in data]),
            "settle": _strings([d.settle_coin for d in data]),
            **numbers,
            "state": state,
            "hidden": pa.array([_TRUTH.get(bytes(d.is_hidden)) for d in data], pa.bool_()),
            "api_allowed": pa.array([_TRUTH.get(bytes(d.api_allowed)) for d in data], pa.bool_()),
            "opening": skipped.times("openingTime", opening),
        }
    )
    _lacking(skipped, {name: built.column(name) for name in _ALWAYS})
    return built


def _book(rows: Any, frames: Sequence[_BookFrame], levels: int | None, skipped: Skipped, floats: bool) -> Any:
    sides = [side or [] for f in frames for side in (f.data.asks, f.data.bids)]
    short = [n // 2 for n, side in enumerate(sides) if any(len(level) < 2 for level in side)]
    other = [n for n, f in enumerate(frames) if f.channel != FULL_DEPTH]
    if short or other:
        raise NotNumbers([*short, *other], "a level without price and volume" if short else "another channel")
    counts = np.array([len(side) for side in sides], dtype=np.int64)
    which, head = _spread(rows, (counts[0::2] + counts[1::2]).tolist())
    flat = list(chain.from_iterable(sides))
    index = pa.array(which)
    each = range(len(frames))
    versions = _whole(each, "version", [f.data.version for f in frames], _MOST_WHOLE)
    if versions.null_count:
        raise NotNumbers(pc.indices_nonzero(pc.is_null(versions)).to_pylist(), "version: null")
    stamps = _whole(each, "cts", [f.data.cts for f in frames], _MOST_WHOLE)
    cts, untimed = times(stamps)
    side_of = pa.array(np.repeat(np.tile(np.array([0, 1], dtype=np.int8), len(frames)), counts))
    built = pa.table(
        {
            **head,
            "version": versions.take(index),
            "cts": cts.take(index),
            "side": pa.array(["ask", "bid"]).take(side_of),
            "level": pa.array(np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts) + 1, pa.int32()),
            "price": _number(which, "price", [level[0] for level in flat], PRICE, floats),
            "volume": _number(which, "volume", [level[1] for level in flat], VOLUME, floats),
            "orders": _number(which, "orders", [lev[2] if len(lev) > 2 else NULL for lev in flat], pa.int64(), floats),
        }
    )
    if untimed:
        skipped.untimed["cts"] += untimed
    for name in ("asks", "bids"):
        if absent := sum(getattr(f.data, name) is UNSET for f in frames):
            skipped.missing[name] += absent
    return _best_first(built, levels)


def _best_first(built: Any, levels: int | None) -> Any:
    """Books with the best level of each side as its first, whatever their order on the wire, and as a book of an
    instant has them: of several with one price the last, none without volume. Then at most so many a side."""
    price, volume = built.column("price"), built.column("volume")
    ranked = pc.if_else(pc.equal(built.column("side"), "ask"), price, pc.negate(price))
    empty = pc.fill_null(pc.equal(volume, pa.scalar(0, volume.type)), False)
    number = np.asarray(built.column("level"))
    of = np.cumsum(number == 1)  # each side of each frame, in their order
    is_next = pa.array(number[1:] > 1)  # the first of a side has none before it
    before = ranked.slice(0, max(len(built) - 1, 0))
    behind = pc.fill_null(pc.greater(ranked.slice(1), before), False)  # whatever is without a price is not
    if pc.any(empty).as_py() or pc.any(pc.and_not(is_next, behind)).as_py():
        order = pa.table({"of": of, "ranked": ranked})
        places = pc.sort_indices(order, sort_keys=[("of", "ascending"), ("ranked", "ascending")])
        order, built, empty = order.take(places), built.take(places), empty.take(places)
        of, ranked = np.asarray(order.column("of")), order.column("ranked")
        again = np.zeros(len(of), dtype=bool)
        again[:-1] = np.asarray(pc.fill_null(pc.equal(ranked.slice(1), ranked.slice(0, len(of) - 1)), False))
        again[:-1] &= of[1:] == of[:-1]
        kept = ~(again | np.asarray(empty))
        of = of[kept]
        first = np.searchsorted(of, of)
        built = built.filter(pa.array(kept))
        at = built.schema.get_field_index("level")
        built = built.set_column(at, "level", pa.array(np.arange(len(of)) - first + 1, pa.int32()))
    return built if levels is None else built.filter(pc.less_equal(built.column("level"), levels))
