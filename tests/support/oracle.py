"""What a received frame must become, told with the json module alone: nothing of the recorder is used here."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import re
import zlib
from typing import Any, NamedTuple

TICKER, DEAL, DEPTH, DEAD_LETTER = 1, 2, 3, 4
CONTRACT, OTHER = 11, 12
CHANNELS = {"push.ticker": TICKER, "push.deal": DEAL, "push.depth.full": DEPTH}
EXTRA = "push.depth.step"
ALL_CHANNELS = {
    **CHANNELS,
    "push.depth": DEPTH,
    "push.funding.rate": 7,
    "push.index.price": 8,
    "push.fair.price": 9,
    "push.kline": 10,
    "push.contract": CONTRACT,
    EXTRA: OTHER,
}
"""What a recording has that has all of them on, and one that has no key of its own."""


class Expected(NamedTuple):
    """``ts`` None: the time of receiving counts."""

    mt: int
    ts: int | None
    m: bytes


_STORED = re.compile(r'\{"base64":"[^"]*","opcode":([0-9]|1[0-5])\}')
"""The form in which what is no text is stored: text that looks like it is stored so too."""


class _Integer(str):
    """The text of an integer, told apart from a string."""

    __slots__ = ()


class Ambiguous(Exception):  # noqa: N818 - not an error: the contract does not say
    """A key stands there twice."""


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise Ambiguous
    return dict(pairs)


def parse(text: str) -> Any:
    """The value of a JSON text by RFC 8259, integers as their text; ValueError otherwise.

    Escapes of lone surrogates are refused too: they name no character. Deep nesting counts as unreadable.
    """
    try:
        value = json.loads(text, parse_int=_Integer, parse_constant=_no_constant, object_pairs_hook=_object)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("too deep") from error
    return value


def _time(value: dict[str, Any]) -> int | None:
    ts = value.get("ts")
    return int(ts) if isinstance(ts, _Integer) and len(ts) == 13 and ts.isdigit() else None


def unpacked(payload: bytes) -> bytes | None:
    """The UTF-8 text in a gzip, zlib or raw deflate stream of at most a mebibyte, None for anything else."""
    readings = (gzip.decompress, zlib.decompress, _raw)
    for read in readings:
        with contextlib.suppress(OSError, EOFError, zlib.error, UnicodeDecodeError):
            text = read(payload)
            if text and len(text) <= 1_048_576:
                text.decode()
                return text
    return None


def _raw(payload: bytes) -> bytes:
    for end in (b"", b"\x01\x00\x00\xff\xff", b"\x00\x00\xff\xff\x01\x00\x00\xff\xff"):
        with contextlib.suppress(zlib.error):
            stream = zlib.decompressobj(-15)
            text = stream.decompress(payload + end)
            if stream.eof and not stream.unused_data:
                return text
    raise EOFError


def _row_type(channel: str, value: dict[str, Any], symbol: str, mt: int) -> int | None:
    """What a frame of a channel is that was subscribed: None where it is another symbol's."""
    name = value.get("symbol")
    if isinstance(name, _Integer):
        return None
    if mt not in (CONTRACT, OTHER):
        inverse = channel == "push.index.price" and symbol.endswith("_USD")
        return mt if name == (f"{symbol}T" if inverse else symbol) else None
    if name is not None and not isinstance(name, str):
        return None
    if mt == OTHER or name == symbol:
        return mt
    if name is None:
        data = value.get("data")
        of = [one.get("symbol") for one in (data if isinstance(data, list) else [data]) if isinstance(one, dict)]
        if any(one == symbol and not isinstance(one, _Integer) for one in of):
            return mt
    return OTHER


def expected(
    opcode: int, payload: bytes, symbol: str = "BTC_USDT", channels: dict[str, int] | None = None
) -> Expected | None:
    """The row of a frame, None for a control frame. Raises Ambiguous where a key stands there twice."""
    wanted = CHANNELS if channels is None else channels
    text: str | None = None
    with contextlib.suppress(UnicodeDecodeError):
        text = payload.decode()
    if opcode != 1 or text is None or _STORED.fullmatch(text):
        wrapped = {"base64": base64.b64encode(payload).decode(), "opcode": opcode}
        stored = json.dumps(wrapped, separators=(",", ":")).encode()
        held = unpacked(payload) if opcode == 2 or (opcode == 1 and text is None) else None
        if held is None:
            return Expected(DEAD_LETTER, None, stored)
        row = expected(1, held, symbol, channels)
        return None if row is None else row._replace(m=stored)
    try:
        value = parse(text)
    except ValueError:
        return Expected(DEAD_LETTER, None, payload)
    if not isinstance(value, dict):
        return Expected(DEAD_LETTER, None, payload)
    channel = value.get("channel")
    if len(payload) <= 1_048_576 and isinstance(channel, str) and not isinstance(channel, _Integer):
        good_ts = "ts" not in value or _time(value) is not None
        mt = _row_type(channel, value, symbol, wanted[channel]) if channel in wanted else None
        if mt is not None and good_ts:
            return Expected(mt, _time(value), payload)
        control = channel in ("pong", "clientId") or channel.startswith("rs.sub.")
        plain = value.keys() <= {"channel", "data", "ts"} and not any(
            isinstance(v, dict | list) for v in value.values()
        )
        if control and plain and len(payload) <= 256:
            return None  # it holds no more than such a frame has to say
    return Expected(DEAD_LETTER, _time(value), payload)
