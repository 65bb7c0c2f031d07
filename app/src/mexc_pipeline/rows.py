"""The row: what the recorder keeps of every frame and of everything that happened to the recording."""

from __future__ import annotations

import base64
import codecs
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class Mt(IntEnum):
    """Row type; the numbers are those of the ClickHouse ``Enum8``."""

    TICKER = 1
    DEAL = 2
    DEPTH = 3
    DEAD_LETTER = 4
    EVENT = 5
    REPAIRED = 6
    FUNDING = 7
    INDEX_PRICE = 8
    FAIR_PRICE = 9
    KLINE = 10
    CONTRACT = 11
    OTHER = 12


MT_NAMES: dict[int, str] = {
    1: "t",
    2: "d",
    3: "dp",
    4: "dl",
    5: "ev",
    6: "r",
    7: "f",
    8: "i",
    9: "p",
    10: "k",
    11: "c",
    12: "x",
}
"""The short names by which files and tables show a row type."""
FRAME_TYPES = (
    Mt.TICKER,
    Mt.DEAL,
    Mt.DEPTH,
    Mt.FUNDING,
    Mt.INDEX_PRICE,
    Mt.FAIR_PRICE,
    Mt.KLINE,
    Mt.OTHER,
)
"""What the exchange pushes of the market as it happens. A contract's specification says nothing of the moment."""
FIRST_TYPES = tuple(MT_NAMES[code] for code in range(1, 7))
"""The types that were there from the beginning. Every file counts them; of any other, absent means none."""
MT_CODES: dict[str, int] = {name: code for code, name in MT_NAMES.items()}


def shown_types(counts: Iterable[Mapping[str, int]]) -> tuple[str, ...]:
    """The types that a table of these rows by type has columns for: the first ones, and any other that has rows."""
    found = {name for of in counts for name, rows in of.items() if rows}
    return tuple(name for name in MT_NAMES.values() if name in FIRST_TYPES or name in found)


class Row(NamedTuple):
    """One row: ``seq`` per symbol from 1; ``rx`` Unix ns; ``ts`` Unix ms; ``mt`` see :class:`Mt`; ``m`` the frame's
    bytes."""

    seq: int
    rx: int
    ts: int
    mt: int
    m: bytes


class Frame(NamedTuple):
    """A received frame before it has a place in the sequence: ``rx`` Unix ns as the clock gave it,
    ``ts`` Unix ms or None where the frame names none."""

    rx: int
    ts: int | None
    mt: int
    m: bytes


_MS_DIGITS_13 = 10**13
"""Unix ms are below it until the year 2286; files and tables hold no time far beyond."""


_WRAPPED = 3 << 18
"""Bytes encoded at a time; a multiple of three, so that the pieces join."""


def wrap(opcode: int, payload: bytes) -> bytes:
    """A binary frame (opcode 2), text (1) that is not UTF-8 or itself of this form, or what is no message (any other),
    as the JSON object by which it is stored."""
    whole = io.BytesIO()  # in pieces: a payload of 60 MiB would stand here three times over
    whole.write(b'{"base64":"')
    view = memoryview(payload)
    for at in range(0, len(payload), _WRAPPED):
        whole.write(base64.b64encode(view[at : at + _WRAPPED]))
    whole.write(b'","opcode":%d}' % opcode)
    return whole.getvalue()


_PIECE = 1 << 20
"""Bytes judged at a time: as text they may be four times as large."""


def is_utf8(payload: bytes) -> bool:
    """Whether files and tables can hold a frame as text."""
    if payload.isascii():
        return True
    decode = codecs.getincrementaldecoder("utf-8")().decode
    try:
        for at in range(0, len(payload), _PIECE):
            decode(payload[at : at + _PIECE])
        decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


def storable(frame: Frame) -> Frame:
    """The frame as every file and table can hold it; nearly always the very same.

    Whoever made it: text that is not UTF-8 is wrapped, a ``ts`` that is no time of 13 digits is none, and a type
    without a name is a dead letter. Every row passes here on its way into the spool, so that a row which the spool
    took cannot keep its period from becoming a file.
    """
    _, ts, mt, m = frame
    if (ts is None or 0 <= ts < _MS_DIGITS_13) and mt in MT_NAMES and is_utf8(m):
        return frame
    return frame._replace(
        ts=ts if ts is not None and 0 <= ts < _MS_DIGITS_13 else None,
        mt=mt if mt in MT_NAMES else Mt.DEAD_LETTER,
        m=m if is_utf8(m) else wrap(1, m),
    )


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows as five columns of equal length, in seq order."""

    seq: list[int]
    rx: list[int]
    ts: list[int]
    mt: list[int]
    m: list[bytes]

    def __len__(self) -> int:
        return len(self.seq)

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, int, int, bytes]]) -> Columns:
        """Transpose rows of (seq, rx, ts, mt, m)."""
        columns = list(zip(*rows, strict=True))
        if not columns:
            return cls([], [], [], [], [])
        return cls(*(list(c) for c in columns))

    def rows(self) -> Iterable[Row]:
        """The rows again, one by one."""
        return map(Row._make, zip(self.seq, self.rx, self.ts, self.mt, self.m, strict=True))

    def slice(self, start: int, stop: int) -> Columns:
        """Rows ``start`` to ``stop`` (exclusive) by position."""
        s = slice(start, stop)
        return Columns(self.seq[s], self.rx[s], self.ts[s], self.mt[s], self.m[s])
