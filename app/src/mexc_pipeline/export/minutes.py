"""Checks the trades of one file's rows against the exchange's candles among them, while the rows pass by.

Whatever goes wrong here keeps no file from being made: it then says nothing of its minutes.
"""

from __future__ import annotations

import logging

import numpy as np

from mexc_pipeline.export.packed import Packed
from mexc_pipeline.ledger.evidence import FRAMES, Evidence, evidence, frames
from mexc_pipeline.ledger.minutes import Minute, Minutes, counted
from mexc_pipeline.ledger.shares import Shares, whole
from mexc_pipeline.rows import Mt

log = logging.getLogger("mexc_pipeline.export")

MINUTES = "minutes"
"""The metadata key. It stands in the footer alone, as only all rows together decide it."""


_OTHER = ~np.isin(np.arange(256), FRAMES)
"""By type of row: it is none of those."""


def evidence_in(symbol: str, block: Packed) -> list[Evidence]:
    """What rows say of trades and candles; their seqs go up by one."""
    ends = np.cumsum(block.length, dtype=np.int64)
    starts = ends - block.length
    times = np.where(block.ts == block.rx // 1_000_000, 0, block.ts).tolist()
    deals = block.mt == Mt.DEAL
    found: list[Evidence] = []
    begin = 0
    for at in [*np.flatnonzero(_OTHER[block.mt]).tolist(), len(block)]:
        if at > begin:
            places = np.flatnonzero(deals[begin:at])
            cuts = list(zip(starts[begin:at][places].tolist(), ends[begin:at][places].tolist(), strict=True))
            found += frames(times[begin:at], places.tolist(), block.m, cuts)
        if at < len(block):
            m = bytes(block.m[int(starts[at]) : int(ends[at])])
            what = evidence(symbol, int(block.rx[at]), int(block.ts[at]), int(block.mt[at]), m)
            if what is not None:
                found.append(what)
        begin = at + 1
    return found


class FileMinutes:
    """The minutes of one file. ``start_ns``: where its period begins; ``part``: it is the period's first where 1."""

    def __init__(self, symbol: str, start_ns: int, part: int) -> None:
        self._symbol = symbol
        self._start_ns = start_ns
        self._part = part
        self._minutes: Minutes | None = Minutes(symbol)
        self._first_rx = self._last_rx = 0

    def add(self, block: Packed) -> None:
        """Take rows, in seq order."""
        if self._minutes is None or not len(block):
            return
        try:
            self.take(block, evidence_in(self._symbol, block))
        except Exception:  # a file is made all the same
            log.exception("minutes not checked", extra={"fields": {"symbol": self._symbol}})
            self._minutes = None

    def take(self, block: Packed, what: list[Evidence]) -> None:
        """Take rows of which it is known what they say."""
        assert self._minutes is not None
        self._first_rx = self._first_rx or int(block.rx[0])
        self._last_rx = int(block.rx[-1])
        self._minutes.goes_on(int(block.seq[0]), int(block.seq[-1]))
        for one in what:
            self._minutes.take(one)

    def minutes(self) -> list[Minute]:
        """The verdicts, of minutes outside of the file's period too."""
        return self._minutes.result() if self._minutes is not None else []

    def counts(self, edge_ns: int, *, final: bool) -> Shares | None:
        """How many minutes of the file agree, differ and are unknown: those that lie wholly in its period, or in its
        part of it, which ends with its last row where it is not ``final``. None where there is none, and where it is
        not known."""
        if self._minutes is None or not self._last_rx:
            return None
        try:
            begin = self._start_ns if self._part == 1 else self._first_rx
            of = whole(begin, edge_ns if final else self._last_rx)
            found = counted(self.minutes(), of)
        except Exception:  # a file is made all the same
            log.exception("minutes not checked", extra={"fields": {"symbol": self._symbol}})
            return None
        return found if any(found) else None
