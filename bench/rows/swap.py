"""Row 6: a new table in the place of the current one while others insert into it and query it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.engines import EMBEDDED, NAMES, SERVER, engines
from bench.material import batches, open_spool, pool
from bench.measure import quantile
from bench.model import Result
from bench.site import Place
from mexc_pipeline.rows import Columns
from mexc_pipeline.spool.segment import SegmentInfo
from mexc_pipeline.store.engine import Capabilities, Engine, EngineError, EngineFactory, row_table_sql
from mexc_pipeline.store.loader import Loader

TITLE = "Table swap under load"
CURRENT, NEXT, SEALED = "load_current", "load_next", "load_sealed"
ROWS = 20
"""Rows per insert of the load."""

Swap = Callable[[Engine, Capabilities], None]


@dataclass(slots=True)
class Load:
    """One thread of load: what it did, and what it was refused."""

    done: int = 0
    failed: list[str] = field(default_factory=list)


def run(place: Place) -> Result:
    result = Result("swap", TITLE)
    swaps = 100 if place.quick else 1000
    frames = pool(2000)
    for kind in (EMBEDDED, SERVER):
        folder = place.new(kind)
        with engines(kind, folder) as (factory, _):
            ours = _under_load(factory, _exchange, swaps)
            theirs = _under_load(factory, _rename_then_create, swaps // 10)
            whole = _by_the_loader(factory, folder / "spool", swaps // 10, frames)
        name = NAMES[kind]
        _figures(result, f"{swaps:,} swaps", name, ours, bound=True)
        _figures(result, f"{swaps // 10:,} swaps by rename-then-create", name, theirs, bound=False)
        result.add("a swap as the loader does it, with its records: p50", name, quantile(whole, 0.5), "ms")
        result.add("a swap as the loader does it, with its records: p99", name, quantile(whole, 0.99), "ms")
        place.drop(folder)
    return result


@dataclass(frozen=True, slots=True)
class Swapped:
    ms: list[float]
    inserts: Load
    queries: Load
    lost: int


def _figures(result: Result, what: str, engine: str, found: Swapped, *, bound: bool) -> None:
    failed = len(found.inserts.failed) + len(found.queries.failed)
    result.add(f"{what}: failed inserts and queries", engine, failed, "", at_most=0 if bound else None)
    result.add(f"{what}: inserts and queries meanwhile", engine, found.inserts.done + found.queries.done, "")
    result.add(f"{what}: rows lost or doubled", engine, found.lost, "", at_most=0 if bound else None)
    result.add(f"{what}: p50", engine, quantile(found.ms, 0.5), "ms")
    result.add(f"{what}: p99", engine, quantile(found.ms, 0.99), "ms", at_most=50 if bound else None)
    result.add(f"{what}: longest", engine, max(found.ms), "ms")
    if found.queries.failed or found.inserts.failed:
        result.notes.append(
            f"{engine}, {what}, first refusal: {(found.inserts.failed + found.queries.failed)[0][:120]}"
        )


def _exchange(engine: Engine, capabilities: Capabilities) -> None:
    """As the loader does it."""
    if capabilities.exchange:
        engine.execute(row_table_sql(SEALED, capabilities))
        engine.execute(f"EXCHANGE TABLES {CURRENT} AND {SEALED}")
    else:
        engine.execute(row_table_sql(NEXT, capabilities))
        engine.execute(f"RENAME TABLE {CURRENT} TO {SEALED}, {NEXT} TO {CURRENT}")


def _rename_then_create(engine: Engine, capabilities: Capabilities) -> None:
    """As the original did it: for a moment there is no table of that name."""
    engine.execute(f"RENAME TABLE {CURRENT} TO {SEALED}")
    engine.execute(row_table_sql(CURRENT, capabilities))


def _under_load(factory: EngineFactory, swap: Swap, swaps: int) -> Swapped:
    stop = threading.Event()
    engine = factory()
    capabilities = engine.connect()
    for table in (CURRENT, NEXT, SEALED):
        engine.execute(f"DROP TABLE IF EXISTS {table}")
    engine.execute(row_table_sql(CURRENT, capabilities))
    inserts, queries = Load(), Load()
    block = Columns([1] * ROWS, [1] * ROWS, [1] * ROWS, [2] * ROWS, [b'{"channel":"push.deal"}'] * ROWS)

    def insert(own: Engine, turn: int) -> None:
        own.insert_block(CURRENT, block, f"bench-{id(inserts)}-{turn}")

    def query(own: Engine, _: int) -> None:
        own.select(f"SELECT count() FROM {CURRENT}")

    threads = [
        threading.Thread(target=_load, args=(factory, call, load, stop))
        for call, load in ((insert, inserts), (query, queries))
    ]
    for thread in threads:
        thread.start()
    ms: list[float] = []
    kept = 0
    try:
        for _ in range(swaps):
            began = time.perf_counter()
            swap(engine, capabilities)
            ms.append((time.perf_counter() - began) * 1000)
            before = inserts.done
            # The insert that was under way went into the old table: count that once it is done.
            while inserts.done == before and time.perf_counter() - began < 5:
                time.sleep(0.0005)
            kept += _count(engine, SEALED)
            engine.execute(f"DROP TABLE {SEALED}")
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    kept += _count(engine, CURRENT)
    engine.execute(f"DROP TABLE {CURRENT}")
    engine.close()
    return Swapped(ms, inserts, queries, abs(inserts.done * ROWS - kept))


def _count(engine: Engine, table: str) -> int:
    return int(engine.select(f"SELECT count() FROM {table}")[0][0])


def _load(factory: EngineFactory, call: Callable[[Engine, int], None], load: Load, stop: threading.Event) -> None:
    engine = factory()
    engine.connect()
    turn = 0
    while not stop.wait(0.001):
        turn += 1
        try:
            call(engine, turn)
        except EngineError as error:
            load.failed.append(str(error))
            engine.connect()
        else:
            load.done += 1
    engine.close()


class _Timed(Loader):
    """Knows how long each of its swaps took, with all it records about them."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        super().__init__("btc", folder, engine, threading.Lock())
        self.ms: list[float] = []

    def _swap(self, segment: SegmentInfo) -> None:
        began = time.perf_counter()
        super()._swap(segment)
        self.ms.append((time.perf_counter() - began) * 1000)


def _by_the_loader(
    factory: EngineFactory, folder: Path, swaps: int, frames: Sequence[tuple[int, bytes]]
) -> list[float]:
    """Cut segment after segment and let a loader load and swap each, a query running against its table all along."""
    engine, stop, queries = factory(), threading.Event(), Load()
    engine.connect()
    spool = open_spool(folder)
    loader = _Timed(folder, factory())
    feed = batches(swaps * 20, frames, time.time_ns(), 1000)

    def query(own: Engine, _: int) -> None:
        own.select("SELECT count() FROM btc_current")

    reader = threading.Thread(target=_load, args=(factory, query, queries, stop))
    waiting = [frame for batch in feed for frame in batch]
    loader.step()
    reader.start()
    try:
        for n in range(swaps):
            spool.append(waiting[n * 20 : (n + 1) * 20])
            segment = spool.cut(spool.last_rx)
            assert segment is not None
            while len(loader.ms) <= n:
                loader.step()
            engine.execute(
                f"DROP TABLE btc_{segment.file.removeprefix('btc').removesuffix('.parquet').replace('.', '_')}"
            )
    finally:
        stop.set()
        reader.join(30)
        spool.close()
        loader.detach()
        engine.close()
    if queries.failed:
        raise RuntimeError(f"{len(queries.failed)} queries failed during the loader's swaps: {queries.failed[0]}")
    return loader.ms
