"""Rows to measure with: the simulator's frames in the exchange's mix, as many as are wanted, and segments of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

from mexc_pipeline.periods import Period
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.simulator.config import SimulatorConfig
from mexc_pipeline.simulator.flatout import render_pool
from mexc_pipeline.simulator.frames import SymbolFeed
from mexc_pipeline.simulator.market import contract
from mexc_pipeline.spool.segment import SegmentInfo
from mexc_pipeline.spool.writer import Spool

DAY = Period(86_400 * 10**9)
DAY_START_NS = 1_699_920_000 * 10**9
"""Start of a day (2023-11-14, UTC)."""
STEP_NS = 8_000_000
"""Mean time between two frames: 10 million fit into a day."""
DISTINCT = 20_000
BATCH = 2048

_KINDS = (("push.deal", Mt.DEAL), ("push.ticker", Mt.TICKER), ("push.depth.full", Mt.DEPTH))


@cache
def pool(distinct: int = DISTINCT, seed: int = 1) -> Sequence[tuple[int, bytes]]:
    """Different frames of BTC_USDT: 4 full depth, 1 ticker, 5 deals."""
    settings = replace(SimulatorConfig(), commit_rate=5.0)
    feed = SymbolFeed(contract("BTC_USDT"), seed, settings.market(), settings.style, DAY_START_NS // 10**6)
    streams = ["ticker", "deal", "depth.full.20"]
    frames = [f.payload for f in render_pool(feed, streams, distinct, 0.2, DAY_START_NS // 10**6)]
    return tuple((next(int(mt) for name, mt in _KINDS if b'"%s"' % name.encode() in m[-60:]), m) for m in frames)


def batches(
    count: int, frames: Sequence[tuple[int, bytes]], start_ns: int, step_ns: int = STEP_NS
) -> Iterator[list[Frame]]:
    """``count`` frames, those of the pool over and over, each with times of its own."""
    rng, rx = Random(1), start_ns
    for first in range(0, count, BATCH):
        batch = []
        for n in range(first, min(first + BATCH, count)):
            mt, m = frames[n % len(frames)]
            rx += rng.randrange(step_ns // 2, step_ns * 3 // 2)
            ts = rx // 10**6 - 3
            batch.append(Frame(rx, ts, mt, m[:-14] + b"%d}" % ts))  # a frame ends with its ts of 13 digits
        yield batch


def open_spool(folder: Path, symbol_id: str = "btc") -> Spool:
    """The writer of a symbol's spool folder, periods of a day."""
    folder.mkdir(parents=True, exist_ok=True)
    return Spool(folder, symbol_id, f"{symbol_id.upper()}_USDT", DAY)


def closed_segment(folder: Path, rows: int, frames: Sequence[tuple[int, bytes]]) -> SegmentInfo:
    """A day's segment with that many frames, closed at its edge as a collector does."""
    spool = open_spool(folder)
    for batch in batches(rows, frames, DAY_START_NS):
        spool.append(batch)
    sealed = spool.tick(DAY.end(DAY_START_NS))
    spool.close()
    assert sealed is not None
    return sealed
