"""Row 7: what a batch's size and the time between two flushes cost, from the spool's commit to ClickHouse."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from bench.engines import EMBEDDED, NAMES, SERVER, engines
from bench.material import BATCH, batches, open_spool, pool
from bench.measure import cpu_ns, quantile
from bench.model import Result
from bench.site import Place
from mexc_pipeline.collector.recorder import MOST_FRAMES
from mexc_pipeline.rows import Columns, Frame
from mexc_pipeline.spool.writer import Spool
from mexc_pipeline.store.engine import EngineFactory, row_table_sql
from mexc_pipeline.store.loader import FLUSH_S, MAX_ROWS, Loader

TITLE = "Batch size and flush interval"
SIZES = (1, 10, 100, 1000, 10_000)
INTERVALS_S = tuple(sorted({0.01, 0.03, 0.09, 0.25, 1.0, FLUSH_S}))
LIVE_RATE = 120
"""Frames per second while intervals are compared: three symbols at 40."""


def run(place: Place) -> Result:
    result = Result("batch", TITLE)
    seconds = place.seconds(1, 0.4)
    frames = [f for batch in batches(10 * BATCH, pool(), time.time_ns()) for f in batch]
    result.curves["spool: rows per commit"] = [
        _commits(place.new("spool"), size, seconds, frames) for size in (*SIZES[:-1], MOST_FRAMES)
    ]
    for kind in (SERVER, EMBEDDED):
        folder = place.new(kind)
        with engines(kind, folder) as (factory, pid):
            result.curves[f"{NAMES[kind]}: rows per insert"] = [
                _inserts(factory, pid, size, seconds, frames) for size in SIZES
            ]
            if kind == SERVER:
                result.curves["flush interval"] = [
                    _flushes(factory, pid, place.new("live"), interval, place.seconds(3, 1.5), frames)
                    for interval in INTERVALS_S
                ]
        name, points = NAMES[kind], result.curves[f"{NAMES[kind]}: rows per insert"]
        by_size = {p["rows"]: p for p in points}
        for size in (1, 1000, 10_000):
            result.add(f"{size:,} rows an insert", name, by_size[size]["rows/s"], "rows/s")
        gain = by_size[1]["CPU µs/row"] / by_size[1000]["CPU µs/row"]
        result.add("CPU of one row an insert divided by that of 1,000", name, gain, "×")
    chosen = next(p for p in result.curves["flush interval"] if p["seconds"] == FLUSH_S)
    result.add("queryable p99 at the default interval", "ours", chosen["p99 ms"], "ms", at_most=250)
    result.notes.append(
        f"defaults: a flush every {FLUSH_S:g} s, at most {MAX_ROWS:,} rows an insert, {MOST_FRAMES:,} frames a commit"
    )
    return result


def _point(size: int, rows: int, seconds: float, cpu_us: float, ms: list[float]) -> dict[str, float]:
    return {
        "rows": size,
        "rows/s": rows / seconds,
        "CPU µs/row": cpu_us / rows,
        "p50 ms": quantile(ms, 0.5),
        "p99 ms": quantile(ms, 0.99),
    }


def _commits(folder: Path, size: int, seconds: float, frames: list[Frame]) -> dict[str, float]:
    spool = open_spool(folder)
    now = time.time_ns()
    own = [f._replace(rx=now) for f in frames]
    ms: list[float] = []
    rows, cpu, began = 0, time.process_time(), time.perf_counter()
    while (at := time.perf_counter()) - began < seconds:
        first = rows % (len(own) - size)
        rows += len(spool.append(own[first : first + size]))
        ms.append((time.perf_counter() - at) * 1000)
    point = _point(size, rows, time.perf_counter() - began, (time.process_time() - cpu) * 1e6, ms)
    spool.close()
    return point


def _inserts(factory: EngineFactory, pid: int, size: int, seconds: float, frames: list[Frame]) -> dict[str, float]:
    """CPU is that of this process (the embedded engine's too) and of the server."""
    engine = factory()
    capabilities = engine.connect()
    engine.execute("DROP TABLE IF EXISTS bench_batch")
    engine.execute(row_table_sql("bench_batch", capabilities))
    seq = 0
    ms: list[float] = []
    rows, cpu, began = 0, _cpu_us(pid), time.perf_counter()
    while (at := time.perf_counter()) - began < seconds:
        some = [frames[n % len(frames)] for n in range(seq, seq + size)]
        block = Columns(
            list(range(seq + 1, seq + 1 + size)),
            [f.rx for f in some],
            [f.ts or 0 for f in some],
            [f.mt for f in some],
            [f.m for f in some],
        )
        engine.insert_block("bench_batch", block, f"bench-{size}-{seq}")
        seq, rows = seq + size, rows + size
        ms.append((time.perf_counter() - at) * 1000)
    point = _point(size, rows, time.perf_counter() - began, _cpu_us(pid) - cpu, ms)
    engine.execute("DROP TABLE bench_batch")
    engine.close()
    return point


def _cpu_us(server: int) -> float:
    return time.process_time() * 1e6 + (cpu_ns(server) / 1000 if server else 0)


def _flushes(
    factory: EngineFactory, pid: int, folder: Path, interval: float, seconds: float, frames: list[Frame]
) -> dict[str, float]:
    """A loader that looks for rows at that interval while frames arrive one by one."""
    engine = factory()
    engine.connect()
    engine.execute("DROP DATABASE ch_mexc")
    engine.close()
    received: dict[int, int] = {}
    stop = threading.Event()
    spool = open_spool(folder / "btc")
    writer = threading.Thread(target=_arrive, args=(spool, frames, received, stop))
    loader = Loader("btc", folder / "btc", factory(), threading.Lock())
    loader.step()
    writer.start()
    ms: list[float] = []
    flushes = 0
    try:
        while not loader.progress.loaded_seq:  # its first look at the engine takes longer than any later one
            stop.wait(loader.step())
        loaded, cpu, began = loader.progress.loaded_seq, _cpu_us(pid), time.perf_counter()
        while (at := time.perf_counter()) - began < seconds:
            loader.step()
            now, newest = time.time_ns(), loader.progress.loaded_seq
            ms += [(now - received[seq]) / 1e6 for seq in range(loaded + 1, newest + 1)]
            flushes += newest > loaded
            loaded = newest
            stop.wait(max(0.0, interval - (time.perf_counter() - at)))
        cpu = _cpu_us(pid) - cpu
    finally:
        stop.set()
        writer.join(10)
        spool.close()
        loader.detach()
    return {
        "seconds": interval,
        "inserts/s": flushes / seconds,
        "CPU µs/row": cpu / len(ms),
        "p50 ms": quantile(ms, 0.5),
        "p99 ms": quantile(ms, 0.99),
    }


def _arrive(spool: Spool, frames: list[Frame], received: dict[int, int], stop: threading.Event) -> None:
    """Commit a frame at a time at the live rate."""
    began, n = time.perf_counter(), 0
    while not stop.wait(max(0.0, began + n / LIVE_RATE - time.perf_counter())):
        rx = time.time_ns()
        received[spool.last_seq + 1] = rx
        spool.append([frames[n]._replace(rx=rx)])
        n += 1
