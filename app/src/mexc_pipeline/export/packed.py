"""Rows as one buffer a column: what a file and a digest are made from, without an object for every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mexc_pipeline.rows import Columns


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows in seq order: NumPy arrays of equal length and the frames joined. ``seq`` u64, ``rx`` i64 (Unix ns), ``ts``
    i64 (Unix ms), ``mt`` u8, ``length`` u32 (bytes of a frame)."""

    seq: Any
    rx: Any
    ts: Any
    mt: Any
    length: Any
    m: bytes

    def __len__(self) -> int:
        return len(self.seq)

    @classmethod
    def of(cls, rows: Columns) -> Packed:
        """These rows, packed."""
        return cls(
            np.array(rows.seq, dtype=np.uint64),
            np.array(rows.rx, dtype=np.int64),
            np.array(rows.ts, dtype=np.int64),
            np.array(rows.mt, dtype=np.uint8),
            np.array([len(m) for m in rows.m], dtype=np.uint32),
            b"".join(rows.m),
        )
