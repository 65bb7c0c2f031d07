"""The store process: a loader and an auditor per symbol, statistics, and the control socket."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from mexc_pipeline import lifeline, notify, running, signals
from mexc_pipeline.config import Config, check_mounted
from mexc_pipeline.control import ControlServer
from mexc_pipeline.errors import UserError
from mexc_pipeline.heap import Heap
from mexc_pipeline.histogram import Histogram
from mexc_pipeline.output import Output
from mexc_pipeline.paths import identity, make_folder
from mexc_pipeline.spool.ending import stopped_at
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.segment import SegmentError
from mexc_pipeline.spool.walk import Unreadable, in_order, looked_at, segments
from mexc_pipeline.store import questions, swaps
from mexc_pipeline.store.auditor import Auditor
from mexc_pipeline.store.catalog import Catalog
from mexc_pipeline.store.engine import QUERY_S, EngineError, EngineFactory, InUseError
from mexc_pipeline.store.loader import INSERT_S, Loader
from mexc_pipeline.store.stats import EVERY_S, StatisticsLoader
from mexc_pipeline.store.workers import EngineHealth, Worker

log = logging.getLogger("mexc_pipeline.store")

_STUCK_S = 180.0
"""Longer than any one step may take: a lost reply is waited for during a minute, a silent server during half."""
_STOP_S = 4.0
QUERIES = 2
"""Users' statements at a time: each may take as much memory as the rest of the store."""
MOST_ROWS = 1_000_000
FOR_GROUP = ("status", "known", "given", "logged", "compared", "exits")
"""What members of the group may ask: what ``status``, ``ledger`` and ``verify egress`` need. ``query`` and ``verify``,
which read whole tables, are for the owner."""


class Store:
    """Everything the store runs, without process concerns; ``close`` ends it after the batch at hand."""

    def __init__(self, config: Config, factory: EngineFactory, stats_every_s: float = EVERY_S) -> None:
        self._config = config
        self._factory = factory
        self._running = running.report(config)
        self._stopping = threading.Event()
        self.health = EngineHealth()
        self._inserts = Histogram(INSERT_S)
        self._schema_lock = threading.Lock()
        self._querying = threading.BoundedSemaphore(QUERIES)
        self._telling_exits = threading.BoundedSemaphore(QUERIES)
        """Its own: a collector that must know which exits are in use does not wait for a user's long statement."""
        self._workers: list[Worker] = []
        self._loaders: dict[str, Loader] = {}
        self._auditors: dict[str, Auditor] = {}
        for symbol in config.symbols:
            folder = config.spool_dir / symbol.id
            swapped = partial(swaps.note, config.data_dir, symbol.id)
            loader = Loader(symbol.id, folder, factory(), self._schema_lock, swapped, self._inserts)
            auditor = Auditor(symbol.id, folder, factory(), loader.progress, self._stopping)
            self._loaders[symbol.id], self._auditors[symbol.id] = loader, auditor
            self._workers.append(Worker(f"load-{symbol.id}", loader, self._stopping, self.health))
            self._workers.append(Worker(f"audit-{symbol.id}", auditor, self._stopping, self.health, is_prompt=False))
        statistics = StatisticsLoader(
            {symbol.id: symbol.silent_s for symbol in config.symbols},
            config.control_dir,
            factory(),
            self._backlog,
            stats_every_s,
            lambda symbol_id: stopped_at(config.spool_dir / symbol_id) is not None,
        )
        self._workers.append(Worker("statistics", statistics, self._stopping, self.health))

    def start(self) -> None:
        """Start every thread."""
        for worker in self._workers:
            worker.start()

    def close(self, timeout_s: float = _STOP_S) -> bool:
        """End after the batch at hand; returns False where a thread did not end in time."""
        self._stopping.set()
        deadline = time.monotonic() + timeout_s
        ended = [worker.join(max(0.05, deadline - time.monotonic())) for worker in self._workers]
        return all(ended)

    def is_turning(self) -> bool:
        """Whether every thread came round lately. Auditors may work long on one table and are not asked."""
        oldest = min(worker.turned_at for worker in self._workers if worker.is_prompt)
        return time.monotonic() - oldest < _STUCK_S

    def handlers(self) -> dict[str, Any]:
        """What the control socket answers."""
        return {
            "status": self.status,
            "query": self._query,
            "known": self._known,
            "given": self._given,
            "logged": self._logged,
            "compared": self._compared,
            "exits": self._exits,
            "verify": self._verify,
        }

    def status(self, _request: dict[str, Any] | None = None) -> dict[str, Any]:
        """How loading stands, per symbol."""
        tables = self._tables()
        return {
            "engine": self._config.clickhouse.mode,
            "reachable": self.health.error is None,
            "error": self.health.error,
            "running": self._running,
            "inserts": self._inserts.snapshot(),
            "symbols": {
                symbol_id: self._symbol_status(symbol_id, tables.get(symbol_id, set())) for symbol_id in self._loaders
            },
        }

    def _tables(self) -> dict[str, set[str]]:
        if self.health.error is not None:
            return {}
        engine = self._factory()
        try:
            engine.connect()
            return {symbol_id: Catalog(symbol_id, engine).tables() for symbol_id in self._loaders}
        except EngineError as error:
            log.warning("ClickHouse cannot list its tables", extra={"fields": {"error": str(error)}})
            return {}
        finally:
            engine.close()

    def _symbol_status(self, symbol_id: str, tables: set[str]) -> dict[str, Any]:
        progress, names = self._loaders[symbol_id].progress, Catalog(symbol_id, self._factory()).names
        last = self._spool_last(symbol_id)
        return {
            "current_segment": progress.segment.file if progress.segment else None,
            "loaded_seq": progress.loaded_seq,
            "loaded_rx_ns": progress.loaded_rx,
            "spool_last_seq": last,
            "backlog": max(0, last - progress.loaded_seq),
            "sealed": sorted(t for t in tables if names.is_sealed(t)),
            "skipped_rows": progress.refused_rows,
            "orphans": sorted(t for t in tables if names.is_set_apart(t)),
            "trouble": self._trouble(symbol_id),
            "unreadable_segment": self._unreadable(symbol_id),
            **self._auditors[symbol_id].summary(),
        }

    def _trouble(self, symbol_id: str) -> str | None:
        """What the symbol's threads last failed with, if they still do."""
        found = [w.trouble for w in self._workers if w.trouble and w.name.endswith(f"-{symbol_id}")]
        return found[0] if found else None

    def _unreadable(self, symbol_id: str) -> str | None:
        """What the loader could not read and still cannot be read: its owner may have been put right since."""
        name = self._loaders[symbol_id].progress.unreadable
        if name and name in {path.name for path, _ in in_order(self._config.spool_dir / symbol_id).unreadable}:
            return name
        return None

    def _spool_last(self, symbol_id: str) -> int:
        progress = self._loaders[symbol_id].progress
        last = progress.loaded_seq
        try:
            there = segments(self._config.spool_dir / symbol_id)
        except SegmentError:
            return last
        for found in looked_at(path for name, path in there if name not in progress.left_behind):
            if not isinstance(found, Unreadable):  # reported by the loader; the others still count
                last = max(last, found.last_seq)
        return last

    def _backlog(self, symbol_id: str, spool_last_seq: int) -> int:
        return max(0, spool_last_seq - self._loaders[symbol_id].progress.loaded_seq)

    def _query(self, request: dict[str, Any]) -> bytearray:
        max_rows = request.get("max_rows", 1000)
        if not isinstance(max_rows, int) or not 0 < max_rows <= MOST_ROWS:
            raise UserError(f"query: max_rows is a whole number from 1 to {MOST_ROWS:,}")
        with _one_of_few(self._querying):
            return questions.query(self._factory, str(request.get("sql", "")), max_rows)

    def _exits(self, request: dict[str, Any]) -> dict[str, Any]:
        since = request.get("since", 0)
        if not isinstance(since, int) or not 0 <= since < 1 << 32:
            raise UserError("exits: since is a time in whole seconds")
        with _one_of_few(self._telling_exits):
            return questions.exits(self._factory, since, bool(request.get("newest")))

    def _known(self, request: dict[str, Any]) -> dict[str, Any]:
        return questions.known(self._factory, self._config.symbol(str(request.get("id", ""))).id)

    def _given(self, request: dict[str, Any]) -> dict[str, Any]:
        return questions.given(self._factory, self._config.symbol(str(request.get("id", ""))).id)

    def _logged(self, request: dict[str, Any]) -> dict[str, Any]:
        return questions.logged(self._factory, self._config.symbol(str(request.get("id", ""))).id)

    def _compared(self, request: dict[str, Any]) -> dict[str, Any]:
        """What was found of those of the segments asked for that are remembered."""
        known = self._auditors[self._config.symbol(str(request.get("id", ""))).id].compared
        asked = request.get("segments")
        names = asked if isinstance(asked, list) else []
        return {"compared": {str(n): found.as_json() for n in names if (found := known.get(str(n))) is not None}}

    def _verify(self, _request: dict[str, Any]) -> dict[str, Any]:
        return questions.verify(self._factory, self._config.spool_dir, list(self._loaders))


@contextlib.contextmanager
def _one_of_few(places: threading.Semaphore) -> Iterator[None]:
    if not places.acquire(timeout=QUERY_S):
        raise UserError("others are being answered; ask again, or end them by restarting the store")
    try:
        yield
    finally:
        places.release()


@contextlib.contextmanager
def engines(config: Config) -> Any:
    """The factory of engines for the configured mode."""
    if config.clickhouse.mode == "server":
        from mexc_pipeline.store.leftovers import Leftovers
        from mexc_pipeline.store.server import ServerEngine

        # The driver logs a traceback for every failed attempt; EngineHealth says the same in one line an outage.
        logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)
        left = Leftovers()
        yield lambda: ServerEngine(config.clickhouse, leftovers=left)
        return
    from mexc_pipeline.store.embedded import EmbeddedFolder

    folder = EmbeddedFolder(config.data_dir / "clickhouse", config.clickhouse.database)
    try:
        yield folder.engine
    finally:
        folder.close()


def query(config: Config, sql: str, max_rows: int) -> dict[str, Any]:
    """Answer one read-only statement while no store runs, with an engine opened for it alone.

    UserError where the statement is refused, where a store holds the embedded engine, or where nothing was loaded yet.
    """
    if config.clickhouse.mode == "embedded" and not (config.data_dir / "clickhouse").is_dir():
        raise UserError(f"nothing was loaded into {config.data_dir} yet; start mexc-pipeline run or store")
    lock = _lock(config, "a query") if config.clickhouse.mode == "embedded" else None
    with lock or contextlib.nullcontext(), engines(config) as factory:
        found: dict[str, Any] = json.loads(questions.query(factory, sql, max_rows))
        return found


def _lock(config: Config, whose: str) -> SpoolLock:
    return SpoolLock(config.data_dir / "store", "store", whose=whose)


def main(config: Config, parent_fd: int | None = None) -> int:
    """Run until SIGTERM, SIGINT or SIGHUP; returns the exit status. UserError where it cannot start."""
    stop = threading.Event()
    with signals.handled(signals.ending(stop.set)):
        return _serve(config, stop, parent_fd)


def _serve(config: Config, stop: threading.Event, parent_fd: int | None) -> int:
    if parent_fd is not None:
        lifeline.watch(parent_fd)
    heap = Heap()
    heap.share()
    heap.map_large()
    config.clickhouse.check_files()
    check_mounted(config)
    make_folder(config.data_dir)
    lost = False
    try:
        with _lock(config, "another store") as lock, engines(config) as factory:
            opened = _engine_folder(config)
            store = Store(config, factory)
            store.start()
            server = ControlServer(config.control_dir / "store.sock", store.handlers(), for_group=FOR_GROUP)
            notify.ready()
            log.info("store runs", extra={"fields": {"engine": config.clickhouse.mode, "symbols": len(config.symbols)}})
            try:
                while not stop.wait(1.0):
                    if lost := not lock.keep() or _is_another(config, opened):
                        log.error("a folder in use was removed or replaced, ending")
                        break
                    if store.is_turning():
                        notify.watchdog()
            finally:
                notify.stopping()
                server.close()
                ended = store.close()
            log.info("store stopped", extra={"fields": {"clean": ended}})
    except InUseError as error:
        why = error.__context__  # what else the process ends for
        # By itself that is no fault: what the statement was to do is done again by the next store.
        level = logging.INFO if why is None else logging.WARNING
        log.log(level, "ended beneath a statement that is still at work", exc_info=why)
        if isinstance(sys.stderr, Output):
            sys.stderr.end()
        os._exit(int(lost or why is not None))
    return int(lost)


def _is_another(config: Config, opened: tuple[int, int] | None) -> bool:
    try:
        return _engine_folder(config) != opened
    except OSError:  # it cannot be looked at, which says nothing of what it is
        return False


def _engine_folder(config: Config) -> tuple[int, int] | None:
    """Device and inode of the embedded engine's folder; the engine never notices that its folder is another."""
    if config.clickhouse.mode != "embedded":
        return None
    return identity(config.data_dir / "clickhouse")
