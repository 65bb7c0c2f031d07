"""Loads one symbol's segments into its current table, in seq order, and swaps the table at a segment's end.

The spool is the truth: whatever cannot be explained from it is dropped and loaded again, or, where the spool does not
have those rows, set apart under another name. Nothing is ever loaded on top of it.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

from mexc_pipeline.events import Connected, Disconnected, begin, read
from mexc_pipeline.histogram import Histogram
from mexc_pipeline.paths import identity
from mexc_pipeline.rows import Columns, Mt
from mexc_pipeline.spool.names import SegmentName
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, SegmentReader, UnavailableError
from mexc_pipeline.spool.segment import info as segment_info
from mexc_pipeline.spool.walk import Unreadable, in_order, is_there, looked_at, recorded, segments
from mexc_pipeline.store.catalog import Catalog, Extent, SegmentKey
from mexc_pipeline.store.engine import (
    CIRCUMSTANCES,
    Capabilities,
    Engine,
    EngineError,
    RefusedError,
    UnreachableError,
    is_damage,
    row_table_sql,
)
from mexc_pipeline.store.large import one_at_a_time
from mexc_pipeline.store.schema import apply

log = logging.getLogger("mexc_pipeline.store")

FLUSH_S = 0.18
"""Between two looks for new rows; with the insert itself a row is in ClickHouse within about 0.2 s. An insert costs
the same for one row as for a hundred (1.8 ms of processor time in chDB, 0.8 in a server and its client together), so
that half the inserts are half the cost, and half the stripes in the table."""
IDLE_S = 0.2
MAX_ROWS = 10_000
MAX_BYTES = 16 << 20
ATTEMPTS = 3
INSERT_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 30.0)
"""Classes of how long an insert took."""
_CONNECTION_EVENTS = (begin(Connected), begin(Disconnected))


class _Fault(Enum):
    """What keeps a block out of the current table."""

    ENGINE = auto()
    TABLE = auto()
    ROWS = auto()


@dataclass(slots=True)
class Progress:
    """Where a loader stands; written by the loader, read by others.

    ``left_behind``: the segments it is done with, whose rows, if any, are in a table of their own. Which those are no
    name tells."""

    segment: SegmentName | None = None
    left_behind: set[SegmentName] = field(default_factory=set)
    loaded_seq: int = 0
    loaded_rx: int | None = None
    """``rx`` (Unix ns) of the row ``loaded_seq``; None until this process has loaded one."""
    spool_id: str = ""
    refused_rows: int = 0
    unreadable: str = ""


class Loader:
    """Loads one symbol; used by one thread. ``swapped`` is told the file a table that was swapped out will become, and
    how many rows had arrived after it. ``inserts`` counts how long each insert took. ``step`` raises EngineError and
    SegmentError, after which it starts over from what the engine says it has."""

    def __init__(
        self,
        symbol_id: str,
        folder: Path,
        engine: Engine,
        schema_lock: threading.Lock,
        swapped: Callable[[str, int], None] = lambda _file, _rows: None,
        inserts: Histogram | None = None,
    ) -> None:
        self._swapped = swapped
        self._inserts = inserts if inserts is not None else Histogram(INSERT_S)
        self._id = symbol_id
        self._folder = folder
        self._engine = engine
        self._schema_lock = schema_lock
        self._catalog = Catalog(symbol_id, engine)
        self._names = self._catalog.names
        self._capabilities = Capabilities()
        self._attached = False
        self._done: set[SegmentKey] = set()
        self._reader: SegmentReader | None = None
        self._segment: SegmentInfo | None = None
        self._after: SegmentInfo | None = None
        self._empty_folder = True
        self._inode = 0
        self._refused: set[int] = set()
        self._limit = MAX_ROWS
        self._suspect_until = 0
        self._refusals = 0
        self._unreadable: set[str] = set()
        self._unavailable: UnavailableError | None = None
        self.progress = Progress()

    def step(self) -> float:
        """Do what is next; returns the seconds until there may be more to do."""
        try:
            if not self._attached:
                self._attach()
            if self._segment is None and not self._next():
                return IDLE_S
            return self._load()
        except EngineError:
            self.detach()
            raise

    def detach(self) -> None:
        """Forget everything but the spool; the next step asks the engine."""
        self._attached = False
        self._engine.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = self._segment = None

    # From nothing to a known state

    def _attach(self) -> None:
        self._let_go()
        self._capabilities = self._engine.connect()
        with self._schema_lock:
            for file in apply(self._engine):
                log.info("schema file applied", extra={"fields": {"file": file}})
        self._wait_for_statements()
        names, catalog = self._names, self._catalog
        tables, holdings = catalog.tables(), catalog.holdings()
        logged, outdated = catalog.logged(), catalog.outdated()
        for table in outdated & {names.next, names.reload, names.probe}:
            self._engine.execute(f"DROP TABLE IF EXISTS {table}")  # nothing stands there alone
        present = self._present()
        self._empty_folder = not present
        self._done = set(logged)
        for table in sorted(tables):
            if not names.is_sealed(table) or self._empty_folder:
                continue
            key = holdings.get(table)
            # A table that is sealed while its segment is open holds more than a spool restored from an older copy.
            if key is None or key not in present or present[key].state == "open":
                if key is not None and key in logged:
                    self._engine.execute(f"DROP TABLE IF EXISTS {table}")  # exported, compared, pruned
                else:
                    self._orphan(table, key)
            elif self._has_rows(table):
                self._done.add(key)
        self._engine.execute(row_table_sql(names.current, self._capabilities))
        self._after = None
        self.progress.segment = None
        self.progress.left_behind = set()
        self.progress.loaded_seq, self.progress.loaded_rx = 0, None
        self._attached = True
        if present:
            self._resume(holdings.get(names.current), present, is_outdated=names.current in outdated)

    def _has_rows(self, table: str) -> bool:
        """A table that cannot be read counts as one with rows: what it had is found out by comparing it."""
        try:
            return self._catalog.count(table) > 0
        except RefusedError as error:
            if not is_damage(error):
                raise
            return True

    def _new_query_id(self) -> str:
        return f"load-{self._id}-{uuid.uuid4()}"

    def _wait_for_statements(self) -> None:
        """An insert whose reply was lost, or that a killed process left behind, may still be at work: until it ends
        the table cannot say what it has."""
        deadline = time.monotonic() + 60
        while self._engine.is_running(f"load-{self._id}-"):
            if time.monotonic() > deadline:
                raise UnreachableError("an insert whose reply was lost is still running")
            time.sleep(0.1)

    def _present(self) -> dict[SegmentKey, SegmentInfo]:
        """The segments of the spool that can be read. One folder may hold those of several spools, one after another:
        a spool that was restored from an older copy goes on under a new id."""
        found = in_order(self._folder)
        for path, error in found.unreadable:
            self._report_unreadable(path, error)
        self._unavailable = next((e for _, e in found.unreadable if isinstance(e, UnavailableError)), None)
        return {SegmentKey.of(segment): segment for segment in found.readable}

    def _resume(
        self, key: SegmentKey | None, present: dict[SegmentKey, SegmentInfo], *, is_outdated: bool = False
    ) -> None:
        """Decide what the current table is good for."""
        current = self._names.current
        segment = present.get(key) if key is not None else None
        if key is not None and segment is None and self._unavailable is not None:
            raise self._unavailable  # it may be the one that the table holds
        extent: Extent | None
        try:
            extent = self._catalog.extent(current)
        except RefusedError as error:
            if not is_damage(error):
                raise
            extent = None
            log.error("current table cannot be read", extra={"fields": {"table": current, "error": str(error)}})
        if extent is not None and not extent.rows:
            if is_outdated:
                self._make_anew()
            return
        if segment is not None:
            self.progress.left_behind = {s.name for s in present.values() if recorded(s) < recorded(segment)}
        if segment is None or key is None:
            self._orphan(current, key)
            self._engine.execute(row_table_sql(current, self._capabilities))
            return
        refused = self._catalog.refused(key)
        if extent is not None and extent.last > segment.last_seq:
            # The spool does not have these rows (it was restored from an earlier day): they must not be lost here.
            self._orphan(current, key)
            self._engine.execute(row_table_sql(current, self._capabilities))
        elif extent is None or key in self._done or is_outdated or not is_continuous(extent, segment, refused):
            log.warning(
                "current table is loaded anew", extra={"fields": {"table": current, "segment": segment.path.name}}
            )
            self._make_anew()
            if key not in self._done:
                self._take(segment, segment.first_seq - 1, refused)
        else:
            self._take(segment, extent.last, refused)

    def _make_anew(self) -> None:
        self._engine.execute(f"DROP TABLE IF EXISTS {self._names.current}")
        self._engine.execute(row_table_sql(self._names.current, self._capabilities))

    def _orphan(self, table: str, key: SegmentKey | None) -> None:
        name = self._catalog.set_apart(table, "orphan", key)
        log.warning(
            "table of another spool set apart",
            extra={"fields": {"id": self._id, "table": table, "as": name, "spool_id": key.spool_id if key else "?"}},
        )

    def _report_unreadable(self, path: Path, error: SegmentError) -> None:
        if path.name not in self._unreadable:
            self._unreadable.add(path.name)
            log.error("segment cannot be read", extra={"fields": {"id": self._id, "error": str(error)}})
        self.progress.unreadable = path.name

    # Segment after segment

    def _next(self) -> bool:
        """Begin with the oldest segment that is not done; False where there is none yet."""
        found = segments(self._folder)
        if (self._empty_folder and found) or self._folder_was_replaced(found):
            self._attached = False  # tables of whatever was here before must be looked at first
            return False
        self.progress.left_behind &= {name for name, _ in found}
        for segment in self._waiting(found):
            key = SegmentKey.of(segment)
            if not segment.rows and segment.state == "open":
                return False
            if segment.rows and key not in self._done:
                self._catalog.hold(self._names.current, key)
                self._take(segment, segment.first_seq - 1, self._catalog.refused(key))
                return True
            self._after = segment
            self.progress.left_behind.add(segment.name)
            self.progress.loaded_seq, self.progress.loaded_rx = max(self.progress.loaded_seq, segment.last_seq), None
        return False

    def _waiting(self, found: list[tuple[SegmentName, Path]]) -> list[SegmentInfo]:
        """The segments that are not left behind and can be read, in the order of their rows."""
        waiting: list[SegmentInfo] = []
        for one in looked_at(path for name, path in found if name not in self.progress.left_behind):
            if isinstance(one, Unreadable):
                self._report_unreadable(*one)
            else:
                waiting.append(one)
        return sorted(waiting, key=recorded)

    def _folder_was_replaced(self, found: list[tuple[SegmentName, Path]]) -> bool:
        """Whether the segment that was done last is no longer the same one."""
        if self._after is None:
            return False
        path = dict(found).get(self._after.name)
        try:
            return path is None or SegmentKey.of(segment_info(path)) != SegmentKey.of(self._after)
        except SegmentError as error:
            return not is_there(self._after.path, error)

    def _take(self, segment: SegmentInfo, loaded_seq: int, refused: set[int]) -> None:
        self._let_go()
        self._reader = SegmentReader(segment.path)
        self._inode = _inode(segment.path)
        self._segment = segment
        self._refused = refused
        self.progress.spool_id = segment.spool_id
        self.progress.segment = segment.name
        self.progress.loaded_seq, self.progress.loaded_rx = loaded_seq, None
        self.progress.refused_rows = len(refused)

    def _load(self) -> float:
        if self._reader is None or self._segment is None:
            raise RuntimeError("no segment is open")
        began = time.monotonic()
        try:
            with one_at_a_time() as large:
                rows, is_full = self._load_batch(self._reader, self._segment, large)
            if rows:
                return 0.0 if is_full else max(0.0, FLUSH_S - (time.monotonic() - began))
            if not self._is_in_place(self._segment.path):
                log.warning("segment is gone from the spool", extra={"fields": {"segment": str(self._segment.path)}})
                self._attached = False
                return 0.0
            segment = self._reader.info()
        except UnavailableError:
            raise
        except SegmentError as error:
            self._abandon(self._segment, error)
            return 0.0
        if segment.state != "open" and self.progress.loaded_seq >= segment.last_seq:
            self._swap(segment)
            return 0.0
        return FLUSH_S

    def _is_in_place(self, path: Path) -> bool:
        """Whether the open segment is still the one of that name; its inode cannot be used again while it is open."""
        return _inode(path) == self._inode != 0

    def _abandon(self, segment: SegmentInfo, error: SegmentError) -> None:
        """What was loaded of a segment that can no longer be read is the best copy there is: keep it."""
        self._report_unreadable(segment.path, error)
        if not self._is_in_place(segment.path):
            self._attached = False
            return
        if self._has_rows(self._names.current):
            self._orphan(self._names.current, SegmentKey.of(segment))
            self._engine.execute(row_table_sql(self._names.current, self._capabilities))
        self._after = segment
        self.progress.left_behind.add(segment.name)
        self._let_go()

    # One batch

    def _load_batch(self, reader: SegmentReader, segment: SegmentInfo, large: Callable[[], None]) -> tuple[int, bool]:
        """How many rows it had, and whether more may wait. Its rows are gone when it returns."""
        limit = self._limit
        block = reader.read(self.progress.loaded_seq, limit, MAX_BYTES, large=large)
        if len(block):
            self._insert(segment, block)
        return len(block), len(block) >= limit or sum(map(len, block.m)) >= MAX_BYTES

    def _insert(self, segment: SegmentInfo, block: Columns) -> None:
        if Mt.EVENT in block.mt:
            self._log_egress(segment, block)
        last = block.seq[-1]
        wanted = without(block, self._refused)
        if len(wanted):
            began = time.monotonic()
            try:
                self._engine.insert_block(self._names.current, wanted, self._new_query_id())
            except RefusedError as error:
                self._consider(segment, wanted, error)
                raise
            self._inserts.add(time.monotonic() - began)
        self._refusals = 0
        if last >= self._suspect_until:
            self._limit = MAX_ROWS
        self.progress.loaded_seq, self.progress.loaded_rx = last, block.rx[-1]

    def _consider(self, segment: SegmentInfo, block: Columns, error: RefusedError) -> None:
        """After a refusal: try again, with half as many rows, or skip the one row that is to blame. A table that
        refuses what a new one takes is damaged, and loaded anew."""
        if error.code in CIRCUMSTANCES:
            return
        self._refusals += 1
        narrowing = block.seq[0] < self._suspect_until
        if self._refusals < ATTEMPTS and not (narrowing and len(block) > 1):
            return
        if len(block) > 1 and narrowing:
            self._narrow(block)
            return
        fault = self._at_fault(block)
        if fault is _Fault.TABLE:
            self._begin_anew(segment, error)
        elif fault is _Fault.ROWS and len(block) > 1:
            log.warning(
                "batch refused, looking for the row",
                extra={"fields": {"id": self._id, "first_seq": block.seq[0], "rows": len(block)}},
            )
            self._narrow(block)
        elif fault is _Fault.ROWS:
            seq = block.seq[0]
            self._catalog.refuse(SegmentKey.of(segment), seq, str(error))
            self._refusals = 0
            self.progress.refused_rows += 1
            log.error("row refused and skipped", extra={"fields": {"id": self._id, "seq": seq, "error": str(error)}})

    def _narrow(self, block: Columns) -> None:
        self._suspect_until = max(self._suspect_until, block.seq[-1])
        self._limit = max(1, len(block) // 2)
        self._refusals = 0

    def _at_fault(self, block: Columns) -> _Fault:
        """Why a block was refused, by what a new table takes."""
        if not self._takes(Columns([0], [0], [0], [int(Mt.EVENT)], [b"{}"])):
            return _Fault.ENGINE
        return _Fault.TABLE if self._takes(block) else _Fault.ROWS

    def _takes(self, block: Columns) -> bool:
        """Whether a new table takes the block."""
        probe = self._names.probe
        self._engine.execute(f"DROP TABLE IF EXISTS {probe}")  # an earlier process may have left it
        self._engine.execute(row_table_sql(probe, self._capabilities))
        try:
            self._engine.insert_block(probe, block, self._new_query_id())
        except RefusedError as error:
            if error.code in CIRCUMSTANCES:
                raise  # it may take the next one a moment later: that is no word on this one
            return False
        finally:
            self._engine.execute(f"DROP TABLE IF EXISTS {probe}")
        return True

    def _begin_anew(self, segment: SegmentInfo, error: RefusedError) -> None:
        """Load the segment into a new current table."""
        current = self._names.current
        log.error(
            "current table takes no rows, loading it anew",
            extra={"fields": {"table": current, "segment": segment.path.name, "error": str(error)}},
        )
        self._engine.execute(f"DROP TABLE IF EXISTS {current}")
        self._engine.execute(row_table_sql(current, self._capabilities))
        self._suspect_until, self._limit, self._refusals = 0, MAX_ROWS, 0
        self._catalog.hold(current, SegmentKey.of(segment))
        self._take(segment, segment.first_seq - 1, self._catalog.refused(SegmentKey.of(segment)))

    def _log_egress(self, segment: SegmentInfo, block: Columns) -> None:
        """How each connection left the host, and when it gave its exit free, goes to ``egress_log`` before its row is
        loaded: never missed, never twice."""
        for at, mt in enumerate(block.mt):
            if mt != Mt.EVENT or not block.m[at].startswith(_CONNECTION_EVENTS):
                continue
            seq, event = block.seq[at], read(block.m[at])
            if event is None:
                continue  # none of ours
            if event["event"] == Disconnected.name() and not event.get("exit"):
                continue  # there was no connection, or none whose exit anybody else could want
            if self._catalog.egress_logged(segment.spool_id, seq):
                continue
            values: list[tuple[str, str, Any]] = [
                ("at", "DateTime('UTC')", block.rx[at] // 10**9),
                ("id", "String", self._id),
                ("spool_id", "String", segment.spool_id),
                ("seq", "UInt64", seq),
                *((key, "String", str(event.get(key, ""))) for key in ("egress", "peer", "local", "circuit", "exit")),
                ("event", "String", block.m[at].decode()),
                ("host", "String", socket.gethostname()),
            ]
            self._engine.insert("egress_log", [(n, t) for n, t, _ in values], [[v for _, _, v in values]])

    # The end of a segment

    def _swap(self, segment: SegmentInfo) -> None:
        """The current table becomes the segment's own; an empty one takes its place. Can be cut short anywhere: what
        the tables hold tells how far it came."""
        names, engine, catalog = self._names, self._engine, self._catalog
        sealed, key = names.sealed(segment), SegmentKey.of(segment)
        if catalog.count(names.current):
            if sealed in catalog.tables() and self._has_rows(sealed):
                self._orphan(sealed, catalog.holdings().get(sealed))
            catalog.hold(sealed, key)
            if self._capabilities.exchange:
                engine.execute(row_table_sql(sealed, self._capabilities))
                engine.execute(f"EXCHANGE TABLES {names.current} AND {sealed}")
            else:
                catalog.free(sealed, self._capabilities)
                catalog.free(names.next, self._capabilities)
                engine.execute(row_table_sql(names.next, self._capabilities))
                engine.execute(f"RENAME TABLE {names.current} TO {sealed}, {names.next} TO {names.current}")
        log.info(
            "table sealed", extra={"fields": {"table": sealed, "rows": segment.rows, "last_seq": segment.last_seq}}
        )
        self._note_buffered(segment)
        self._done.add(key)
        self._after = segment
        self.progress.left_behind.add(segment.name)
        self.progress.refused_rows = 0
        self._let_go()

    def _note_buffered(self, segment: SegmentInfo) -> None:
        newest = max((s.last_seq for s in self._waiting(segments(self._folder))), default=segment.last_seq)
        self._swapped(segment.file, max(0, newest - segment.last_seq))


def _inode(path: Path) -> int:
    """0 where nothing has that name any more."""
    found = identity(path)
    return found[1] if found is not None else 0


def is_continuous(extent: Extent, segment: SegmentInfo, refused: set[int]) -> bool:
    """Whether the table holds an unbroken stretch of the segment from its first row on."""
    first = segment.first_seq
    while first in refused:
        first += 1
    missing = sum(first <= seq <= extent.last for seq in refused)
    return extent.first == first and extent.rows + missing == extent.last - first + 1


def without(block: Columns, seqs: set[int]) -> Columns:
    """The block but for the rows of those seqs."""
    if not seqs or seqs.isdisjoint(block.seq):
        return block
    return Columns.of(row for row in block.rows() if row.seq not in seqs)
