"""Why readers would leave a frame out, told without them: what of a frame they cannot do without. Pure.

``read`` needs Arrow and decides for files; a recording asks this about its newest frames. Tests hold the two together:
what is said here to be illegible, readers leave out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from mexc_pipeline.exchange.channels import FULL_DEPTH
from mexc_pipeline.exchange.protocol import content
from mexc_pipeline.exchange.shapes import FITS, extent
from mexc_pipeline.rows import Mt

_NULL = Raw(b"null")
_NUMBER = re.compile(rb'("?)(-?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,6})?)\1')
_SHOWN = 40


class _Deal(msgspec.Struct, gc=False):
    p: Raw
    v: Raw
    t: Raw
    T: Raw = _NULL
    i: int | str | None = None


class _Deals(msgspec.Struct, gc=False):
    data: list[_Deal] | _Deal


class _Ticker(msgspec.Struct, rename="camel", gc=False):
    last_price: Raw = _NULL
    bid1: Raw = _NULL
    ask1: Raw = _NULL
    volume24: Raw = _NULL
    timestamp: Raw = _NULL


class _Tickers(msgspec.Struct, gc=False):
    data: _Ticker


class _Book(msgspec.Struct, gc=False):
    version: Raw
    asks: list[list[Raw]] | None = None
    bids: list[list[Raw]] | None = None


class _Books(msgspec.Struct, gc=False):
    data: _Book


class _Channel(msgspec.Struct, gc=False):
    channel: str


class _Price(msgspec.Struct, gc=False):
    """Of the index, the fair price, or funding."""

    price: Raw = _NULL
    rate: Raw = _NULL


class _Prices(msgspec.Struct, gc=False):
    data: _Price


class _Candle(msgspec.Struct, gc=False):
    t: Raw = _NULL
    o: Raw = _NULL
    c: Raw = _NULL
    q: Raw = _NULL


class _Candles(msgspec.Struct, gc=False):
    data: _Candle


_deals = msgspec.json.Decoder(_Deals).decode
_books = msgspec.json.Decoder(_Books).decode
_channel = msgspec.json.Decoder(_Channel).decode
_others: Mapping[Mt, Callable[[bytes], Any]] = {
    Mt.TICKER: msgspec.json.Decoder(_Tickers).decode,
    Mt.FUNDING: msgspec.json.Decoder(_Prices).decode,
    Mt.INDEX_PRICE: msgspec.json.Decoder(_Prices).decode,
    Mt.FAIR_PRICE: msgspec.json.Decoder(_Prices).decode,
    Mt.KLINE: msgspec.json.Decoder(_Candles).decode,
}
JUDGED = frozenset({Mt.DEAL, Mt.DEPTH, *_others})
"""Types of rows of which something is said here."""


def illegible(mt: int, m: bytes) -> str | None:
    """Why a frame of a :data:`JUDGED` type cannot be read, None where nothing is seen to be wrong with it. Of
    incremental depth nothing is said: who follows its versions says when they cannot be read."""
    try:
        return next(_wrong(mt, content(m)), None)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        return str(error) if isinstance(error, msgspec.MsgspecError) else "nested too deep, or no text"


def _wrong(mt: int, text: bytes) -> Iterator[str]:
    if mt == Mt.DEAL:
        data = _deals(text).data
        for deal in data if isinstance(data, list) else [data]:
            yield from _numbers(_fields(deal))
    elif mt == Mt.DEPTH:
        if _channel(text).channel == FULL_DEPTH:
            yield from _levels(_books(text).data)
    else:
        yield from _numbers(_fields(_others[Mt(mt)](text).data))


def _levels(book: _Book) -> Iterator[str]:
    if book.version == _NULL:
        yield "version: null"
    yield from _numbers([("version", book.version)])
    for level in [*(book.asks or ()), *(book.bids or ())]:
        if len(level) < 2:
            yield "a level without price and volume"
        yield from _numbers(zip(("price", "volume"), level, strict=False))


def _fields(data: msgspec.Struct) -> Iterator[tuple[str, Raw]]:
    for name, attribute in zip(data.__struct_encode_fields__, data.__struct_fields__, strict=True):
        value = getattr(data, attribute)
        if isinstance(value, Raw):
            yield name, value


def _numbers(fields: Iterable[tuple[str, Raw]]) -> Iterator[str]:
    for name, raw in fields:
        value = bytes(raw)
        if value == b"null":
            continue
        found = _NUMBER.fullmatch(value)
        if found is None or extent(found[2].decode()) > FITS:
            yield f"{name}: {value[:_SHOWN].decode(errors='replace')} is no number that can be read"
