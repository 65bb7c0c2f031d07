"""The simulator's settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mexc_pipeline.simulator.faults import Fault
from mexc_pipeline.simulator.frames import Style
from mexc_pipeline.simulator.market import NATURAL_RATE, MarketSettings


@dataclass(frozen=True)
class FlatOut:
    """Send pre-rendered frames to whoever subscribes, instead of a live market.

    It ends after `frames` frames or `seconds`, whichever comes first (None: no such limit).
    `rate` is frames/s, sent in small pieces; None sends as fast as the client reads, in large ones.
    `pool` is the number of distinct frames per symbol. `settle`: seconds without a further
    subscription before it begins.
    """

    frames: int | None = None
    seconds: float | None = None
    rate: float | None = None
    pool: int = 4000
    settle: float = 0.3


@dataclass(frozen=True)
class SimulatorConfig:
    """Everything that can be set. The defaults behave as the exchange does.

    `port` 0 picks a free one. `rate`: frames/s per symbol of ticker, deal and depth.full together; other channels scale
    with it; `commit_rate`: book versions/s at the natural rate. `heartbeat`: seconds after the last JSON ping until the
    connection is closed (to 1.15 times that), 0 never; `heartbeat_end`: with the rs.error notice and a close frame, or
    abruptly. `rest_lag`: REST is 0 to this many versions behind, at random. `rest_limit` requests of `depth` per
    `rest_window` seconds and address, twice as many of `depth_commits` (0: no limit). `tickers_rows`: rows of the first
    push.tickers (the exchange: 1,269). `clock_ns` returns Unix nanoseconds. `manual`: the market moves only by
    `Simulator.tick`. `keep_sent`: hold the sent log, all trades and what clients send and ask in memory; `log_dir`:
    also write what was sent there.
    """

    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 1
    symbols: tuple[str, ...] = ("BTC_USDT", "ETH_USDT", "SOL_USDT")
    rate: float = NATURAL_RATE
    commit_rate: float = 50.0
    levels: int = 200
    retain: int = 200_000
    style: Style = field(default_factory=Style)
    heartbeat: float = 60.0
    heartbeat_end: Literal["notice", "abrupt"] = "notice"
    unsub_ack: bool = False
    tickers_rows: int = 100
    rest_lag: int = 20
    rest_limit: int = 10
    rest_window: float = 2.0
    faults: tuple[Fault, ...] = ()
    log_dir: Path | None = None
    keep_sent: bool = True
    tls_cert: Path | None = None
    tls_key: Path | None = None
    flat_out: FlatOut | None = None
    tick_seconds: float = 0.01
    manual: bool = False
    max_backlog: int = 64 * 1024 * 1024
    clock_ns: Callable[[], int] = time.time_ns

    def market(self) -> MarketSettings:
        """Return the settings of each symbol's market."""
        return MarketSettings(self.rate, self.commit_rate, self.levels, self.retain, self.keep_sent)
