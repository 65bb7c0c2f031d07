"""What the collectors say of themselves, every 15 s: a row in ``collector_stats`` and a log line per symbol."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mexc_pipeline import control, health
from mexc_pipeline.rows import MT_NAMES
from mexc_pipeline.store import schema
from mexc_pipeline.store.engine import Engine, EngineError

log = logging.getLogger("mexc_pipeline.stats")

EVERY_S = 15.0
_KEPT = 1000
"""Rows kept while the engine cannot be reached; older ones are given up."""
_NAN = float("nan")

Column = tuple[str, str, Any]


@dataclass(slots=True)
class _Before:
    at: float
    pid: int
    frames: int
    bytes: int


class StatisticsLoader:
    """Asks the collectors and writes what they answer; used by one thread. ``step`` raises EngineError. ``silent_s``:
    the symbols by id, and how long each may be silent where that is configured. ``has_stopped``: whether a symbol's
    recording ended in order."""

    def __init__(
        self,
        silent_s: Mapping[str, float | None],
        control_dir: Path,
        engine: Engine,
        backlog: Callable[[str, int], int],
        every_s: float,
        has_stopped: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._silent_s = silent_s
        self._control_dir = control_dir
        self._engine = engine
        self._backlog = backlog
        self._every_s = every_s
        self._has_stopped = has_stopped
        self._before: dict[str, _Before] = {}
        self._absent: set[str] = set()
        self._waiting: deque[list[Column]] = deque(maxlen=_KEPT)
        self._connected = False
        self._due = 0.0

    def step(self) -> float:
        """Ask when it is time, then write what waits; returns the seconds until the next turn."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._every_s
            for symbol_id in self._silent_s:
                self._ask(symbol_id)
        if self._waiting:
            try:
                self._write()
            except EngineError:
                self.detach()
                raise
        return min(1.0, max(0.05, self._due - time.monotonic()))

    def _write(self) -> None:
        if not self._connected:
            self._engine.connect()
            schema.apply(self._engine)  # the table may be gone, or another, since a loader looked
            self._connected = True
        rows = list(self._waiting)
        self._engine.insert("collector_stats", [(n, t) for n, t, _ in rows[0]], [[v for _, _, v in r] for r in rows])
        self._waiting.clear()

    def detach(self) -> None:
        """Let go of the engine; the next step connects anew."""
        self._connected = False
        self._engine.close()

    def _ask(self, symbol_id: str) -> None:
        try:
            status = control.ask(self._control_dir / f"{symbol_id}.sock", "status", timeout_s=2.0)
        except control.ControlError as error:
            self._missing(symbol_id, str(error))
            return
        self._absent.discard(symbol_id)
        if not status["spool_id"]:
            return  # it waits for room and has no spool yet
        state = health.of_symbol(status, silent_s=self._silent_s[symbol_id]).state
        backlog = self._backlog(symbol_id, int(status["last_seq"]))
        row = stats_row(status, state, backlog, self._rates(symbol_id, status))
        self._waiting.append(row)
        values = {name: value for name, _, value in row}
        shown = ("state", "last_seq", "rows_per_s", "reconnects", "backlog", "delay_p50_ms", "delay_p99_ms", "egress")
        log.debug("recording", extra={"fields": {"id": symbol_id, **{key: values[key] for key in shown}}})

    def _missing(self, symbol_id: str, error: str) -> None:
        """Said once, of one that had answered: at a start the store is there first, and ``status`` tells the rest."""
        if symbol_id in self._before and symbol_id not in self._absent:
            self._absent.add(symbol_id)
            if self._has_stopped(symbol_id):
                return  # it was told to end, and nothing is missing
            log.warning("collector does not answer", extra={"fields": {"id": symbol_id, "error": error}})

    def _rates(self, symbol_id: str, status: Mapping[str, Any]) -> tuple[float, float]:
        """Frames of the market and their bytes a second."""
        now, pid = time.monotonic(), int(status["pid"])
        frames, size = health.market_frames(status["rows"]), health.market_frames(status["bytes"])
        before = self._before.get(symbol_id)
        self._before[symbol_id] = _Before(now, pid, frames, size)
        if before is None or pid != before.pid or frames < before.frames or now <= before.at:
            return _NAN, _NAN  # the first answer, or the collector began anew
        seconds = now - before.at
        return round((frames - before.frames) / seconds, 1), round((size - before.bytes) / seconds, 1)


def stats_row(status: Mapping[str, Any], state: str, backlog: int, rates: tuple[float, float]) -> list[Column]:
    """A ``collector_stats`` row as (column, type, value), from a collector's answer to ``status``; ``state`` is its
    health's."""
    delay, durable = status.get("delay_ms") or {}, status.get("durable_ms") or {}
    egress = status.get("egress") or {}
    return [
        ("at", "DateTime('UTC')", int(time.time())),
        ("id", "String", status["id"]),
        ("symbol", "String", status["symbol"]),
        ("host", "String", status["host"]),
        ("pid", "UInt32", status["pid"]),
        ("spool_id", "String", status["spool_id"]),
        ("version", "String", status["version"]),
        ("state", "String", state),
        ("last_seq", "UInt64", int(status["last_seq"])),
        *((f"rows_{name}", "UInt64", int(status["rows"].get(name, 0))) for name in MT_NAMES.values()),
        *((f"bytes_{name}", "UInt64", int(status["bytes"].get(name, 0))) for name in MT_NAMES.values()),
        ("rows_per_s", "Float64", rates[0]),
        ("bytes_per_s", "Float64", rates[1]),
        ("reconnects", "UInt64", int(status.get("reconnects", 0))),
        ("backlog", "UInt64", max(0, backlog)),
        ("delay_p50_ms", "Float64", float(delay.get("p50", _NAN))),
        ("delay_p99_ms", "Float64", float(delay.get("p99", _NAN))),
        ("durable_p50_ms", "Float64", float(durable.get("p50", _NAN))),
        ("durable_p99_ms", "Float64", float(durable.get("p99", _NAN))),
        ("egress", "String", str(egress.get("mode") or "")),
        ("egress_address", "String", str(egress.get("exit") or egress.get("local") or "")),
    ]
