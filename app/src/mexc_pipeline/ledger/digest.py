"""The content digest: SHA-256 per column over little-endian arrays, combined into one.

``digest`` is SHA-256 over the six raw column digests in the order of :data:`COLUMNS`. The arrays are
``seq`` u64, ``rx`` i64 ns, ``ts`` i64 ms, ``mt`` u8, ``len`` u32 (bytes of ``m``) and ``m`` as its bytes joined, all in
seq order. Blocks may be of any size: the digest of the rows does not depend on how they were cut.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]

from mexc_pipeline.rows import Columns

COLUMNS = ("seq", "rx", "ts", "mt", "len", "m")


class _Hash(Protocol):
    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> _Hash: ...


def _little_endian(code: str, values: Sequence[int]) -> array[int]:
    packed: array[int] = array(code, values)
    if sys.byteorder == "big":  # the digest is defined on little-endian bytes
        packed.byteswap()
    return packed


class RowDigest:
    """Running digest over blocks of rows."""

    def __init__(self) -> None:
        self._hashes: dict[str, _Hash] = {name: hashlib.sha256() for name in COLUMNS}
        self.rows = 0

    def update(self, block: Columns) -> None:
        """Add a block of rows held as Python lists."""
        self.update_buffers(
            len(block),
            _little_endian("Q", block.seq),
            _little_endian("q", block.rx),
            _little_endian("q", block.ts),
            bytes(block.mt),
            _little_endian("I", [len(m) for m in block.m]),
            b"".join(block.m),
        )

    def update_buffers(
        self, rows: int, seq: Buffer, rx: Buffer, ts: Buffer, mt: Buffer, length: Buffer, m: Buffer
    ) -> None:
        """Add a block whose columns are already contiguous little-endian buffers."""
        for name, data in zip(COLUMNS, (seq, rx, ts, mt, length, m), strict=True):
            self._hashes[name].update(data)
        self.rows += rows

    def copy(self) -> RowDigest:
        """An independent digest that goes on from here."""
        other = RowDigest()
        other._hashes = {name: h.copy() for name, h in self._hashes.items()}
        other.rows = self.rows
        return other

    def columns(self) -> dict[str, str]:
        """Hex digest per column."""
        return {name: h.hexdigest() for name, h in self._hashes.items()}

    def total(self) -> str:
        """The one digest of all six columns, hex."""
        return combine(self.columns())


def combine(columns: dict[str, str]) -> str:
    """The one digest from the hex digests per column."""
    return hashlib.sha256(b"".join(bytes.fromhex(columns[name]) for name in COLUMNS)).hexdigest()


def differing(a: dict[str, str], b: dict[str, str]) -> list[str]:
    """Names of the columns whose digests differ, in the order of :data:`COLUMNS`."""
    return [name for name in COLUMNS if a.get(name) != b.get(name)]
