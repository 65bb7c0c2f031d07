"""One trade as the exchange writes it, in a frame of the socket and in an answer of REST alike. Pure.

Fields: official futures pages (2026-04). Ids were absent before 2026; since then they are text of digits on the wire,
numbers on the page.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import NamedTuple

import msgspec

_MOST_DIGITS = 19
"""Of an id: those seen have eleven."""
_LONGEST_NUMBER = 64
_NOTHING = msgspec.Raw(b"null")


Alike = tuple[int, Decimal, Decimal, str]
"""What trades have in common that nothing but an id tells apart, however it is spelled."""


class Trade(NamedTuple):
    """A trade: ``number`` is its id, None where it has none; ``time_ms`` the exchange's time (Unix ms); price, volume
    and side as they are spelled; ``m`` the exchange's JSON for it, byte for byte."""

    number: int | None
    time_ms: int
    price: str
    volume: str
    side: str
    m: bytes

    @property
    def key(self) -> bytes | None:
        """What it is known by where it has an id."""
        return None if self.number is None else b"%d" % self.number

    @property
    def alike(self) -> Alike:
        """Time, price, volume and side."""
        return self.time_ms, Decimal(self.price), Decimal(self.volume), self.side


class _Piece(msgspec.Struct, gc=False):
    t: msgspec.Raw
    p: msgspec.Raw
    v: msgspec.Raw
    T: msgspec.Raw = _NOTHING
    i: msgspec.Raw = _NOTHING
    version: msgspec.Raw = _NOTHING


class _Frame(msgspec.Struct, gc=False):
    data: msgspec.Raw


_piece = msgspec.json.Decoder(_Piece).decode
_frame = msgspec.json.Decoder(_Frame).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def trade_of(piece: bytes | msgspec.Raw) -> Trade:
    """The trade that a JSON object says. ValueError for anything else: also for what has a ``version``, which is a
    change of the book or a book."""
    try:
        said = _piece(piece)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if said.version is not _NOTHING:
        raise ValueError("it has a version, so that it is no trade")
    time = _text(said.t)
    if len(time) != 13 or not _digits(time) or time[0] == "0":
        raise ValueError(f"t: {time[:40]!r} is no time in milliseconds")
    return Trade(_number(said.i), int(time), _decimal("p", said.p), _decimal("v", said.v), _text(said.T), bytes(piece))


def is_trade(piece: bytes) -> bool:
    """Whether a repaired row, as text, is a trade."""
    try:
        trade_of(piece)
    except ValueError:
        return False
    return True


def trades_in(frame: bytes) -> list[Trade]:
    """The trades of a frame of deals, in the order of the wire; without those that cannot be read."""
    try:
        data = bytes(_frame(frame).data)
        pieces = _list(data) if data.lstrip()[:1] == b"[" else [msgspec.Raw(data)]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
    return readable(pieces)


def readable(pieces: list[msgspec.Raw]) -> list[Trade]:
    """Return those of the pieces that are trades."""
    found: list[Trade] = []
    for piece in pieces:
        try:
            found.append(trade_of(piece))
        except ValueError:
            continue
    return found


def _text(raw: msgspec.Raw) -> str:
    return bytes(raw).strip(b'"').decode("ascii", "replace")[: _LONGEST_NUMBER + 1]


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(raw: msgspec.Raw) -> int | None:
    text = _text(raw)
    good = _digits(text) and len(text) <= _MOST_DIGITS and (text == "0" or text[0] != "0")
    return int(text) if good else None


def _decimal(name: str, raw: msgspec.Raw) -> str:
    text = _text(raw)
    try:
        if len(text) <= _LONGEST_NUMBER and Decimal(text).is_finite():
            return text
    except InvalidOperation:
        pass
    raise ValueError(f"{name}: {text[:40]!r} is no number")
