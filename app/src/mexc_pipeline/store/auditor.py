"""Compares sealed tables with their segments, by content; drops them once their file is proven.

Works beside the loader, on segments the loader has left behind. A table that differs is set apart and loaded again.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mexc_pipeline.ledger.digest import RowDigest, combine, differing
from mexc_pipeline.rows import Columns
from mexc_pipeline.spool.names import SegmentName
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, SegmentReader
from mexc_pipeline.spool.walk import Unreadable, looked_at, segments
from mexc_pipeline.store import schema
from mexc_pipeline.store.catalog import Catalog, SegmentKey
from mexc_pipeline.store.engine import Capabilities, Engine, EngineError, RefusedError, is_damage, row_table_sql
from mexc_pipeline.store.large import one_at_a_time
from mexc_pipeline.store.loader import MAX_BYTES, MAX_ROWS, Progress, without
from mexc_pipeline.store.workers import StoppingError

log = logging.getLogger("mexc_pipeline.store")

BUSY_S = 0.5
LOOK_S = 5.0
"""Between two looks at whether a sealed table that waits for its file is still there."""
VERIFIED = "verified"
KEPT = 2000
"""Comparisons kept for whoever asks."""
SHOWN = 10
"""Of those that differ, how many are in the status."""
AGAIN_S = 60.0
"""Before a table that differs even after it was loaded again is tried once more."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What comparing a table with its segment found: ``columns`` differ; ``refused`` rows of the segment are not in the
    table."""

    rows: int
    columns: list[str] = field(default_factory=list)
    refused: int = 0
    error: str = ""

    @property
    def same(self) -> bool:
        """Whether the table holds what it can hold."""
        return not self.columns and not self.error

    @property
    def ok(self) -> bool:
        """Whether the table holds every row of the segment."""
        return self.same and not self.refused

    def as_json(self) -> dict[str, Any]:
        """The comparison as the control socket tells it."""
        return {"rows": self.rows, "ok": self.ok, "columns": self.columns, "refused": self.refused, "error": self.error}


def compare(
    engine: Engine, table: str, segment: SegmentInfo, refused: set[int], stopping: threading.Event | None = None
) -> Comparison:
    """Read the table and compare its content with a closed segment's digests. A table that cannot be read differs."""
    digest = RowDigest()
    try:
        with one_at_a_time() as large:
            if _may_have_large(segment):
                large()
            for block in engine.read_blocks(table):
                digest.update(block)
                del block  # it may be large: not beside the next one
                if stopping is not None and stopping.is_set():
                    raise StoppingError("the store is ending")
    except RefusedError as error:
        if not is_damage(error):
            raise
        return Comparison(digest.rows, [], len(refused), f"cannot be read: {error}")
    return Comparison(digest.rows, differing(digest.columns(), _expected(segment, refused)), len(refused))


def _expected(segment: SegmentInfo, refused: set[int]) -> dict[str, str]:
    if not refused:
        return segment.digests
    digest = RowDigest()
    with closing(_blocks(segment)) as blocks:
        for block in blocks:
            digest.update(without(block, refused))
            del block
    return digest.columns()


def _blocks(segment: SegmentInfo) -> Generator[Columns]:
    """All rows of a segment, block by block, none held beside the next one. To be closed: it keeps others waiting."""
    seq = 0
    with SegmentReader(segment.path) as reader:
        while True:
            with one_at_a_time() as large:
                block = reader.read(seq, MAX_ROWS, MAX_BYTES, large=large)
                if not len(block):
                    return
                seq = block.seq[-1]
                yield block
                del block


def _may_have_large(segment: SegmentInfo) -> bool:
    try:
        with SegmentReader(segment.path) as reader:
            return reader.has_large()
    except SegmentError:
        return True  # the table is what is compared


class Auditor:
    """Compares one symbol's sealed tables with their segments; used by one thread. ``step`` raises EngineError and
    SegmentError."""

    def __init__(
        self, symbol_id: str, folder: Path, engine: Engine, loader: Progress, stopping: threading.Event
    ) -> None:
        self._id = symbol_id
        self._folder = folder
        self._engine = engine
        self._loader = loader
        self._stopping = stopping
        self._catalog = Catalog(symbol_id, engine)
        self._names = self._catalog.names
        self._capabilities = Capabilities()
        self._connected = False
        self._done: set[SegmentName] = set()
        self._not_before: dict[SegmentName, float] = {}
        self._looked_at: dict[SegmentName, float] = {}
        self.compared: dict[str, Comparison] = {}

    def step(self) -> float:
        """Look at every segment the loader has left behind; returns the seconds until the next look."""
        now = time.monotonic()
        there = segments(self._folder)
        self._forget({name for name, _ in there})
        due = {
            path: name
            for name, path in there
            if name not in self._done and now >= self._not_before.get(name, 0) and name in self._loader.left_behind
        }
        if not due:
            return BUSY_S
        try:
            if not self._connected:
                self._capabilities = self._engine.connect()
                schema.apply(self._engine)  # a table of records may have been set apart since the loader looked
                self._connected = True
                self._engine.execute(f"DROP TABLE IF EXISTS {self._names.reload}")
                self._done.clear()
                self._looked_at.clear()
                return 0.0
            logged = self._catalog.logged() if len(due) > 1 else None
            for found in looked_at(due):
                if isinstance(found, Unreadable):  # the loader has said so
                    self._not_before[due[found.path]] = time.monotonic() + AGAIN_S
                else:
                    self._audit(found, logged)
        except EngineError:
            self.detach()
            raise
        return BUSY_S

    def summary(self) -> dict[str, Any]:
        """``compared_segments``, how many were, and ``compared``, the newest of those that differ: whatever is asked
        every second has a size that does not grow."""
        known = dict(self.compared)
        wrong = [(file, found.as_json()) for file, found in known.items() if not found.ok]
        return {"compared_segments": len(known), "differing": len(wrong), "compared": dict(wrong[-SHOWN:])}

    def _forget(self, there: set[SegmentName]) -> None:
        """Segments that are pruned are not looked at again; what was found of them is in ``export_log``."""
        self._done &= there
        for known in (self._not_before, self._looked_at):
            for name in known.keys() - there:
                del known[name]

    def detach(self) -> None:
        """Let go of the engine; the next step connects anew."""
        self._connected = False
        self._engine.close()

    def _audit(self, segment: SegmentInfo, logged: dict[SegmentKey, tuple[int, str]] | None) -> None:
        name = segment.name
        if segment.state == "open":
            return
        if not segment.rows:
            self._done.add(name)
            return
        key, table, file = SegmentKey.of(segment), self._names.sealed(segment), segment.path.name
        looked_at = self._looked_at.get(name)  # None also after a new connection to the engine
        rested = looked_at is None or time.monotonic() >= looked_at + LOOK_S
        if segment.state == "closed" and file in self.compared and not rested:
            return
        self._looked_at[name] = time.monotonic()
        tables = self._catalog.tables()
        logged = self._catalog.logged() if logged is None else logged
        if segment.state == "exported" and key in logged:
            if table in tables and self._catalog.holdings().get(table) == key:
                self._engine.execute(f"DROP TABLE IF EXISTS {table}")
            stored, verdict = logged[key]
            self._remember(file, recorded(stored, verdict))
            self._done.add(name)
            return
        if table in tables and self._catalog.holdings().get(table) != key:
            return  # of another spool; the loader sets it apart
        if table not in tables:
            log.warning("sealed table is missing, loading it again", extra={"fields": {"table": table}})
            self.compared.pop(file, None)
            self._reload(segment)
        fresh = file not in self.compared
        if fresh and not self._prove(segment, table):
            return
        if segment.state == "exported" and (fresh or self._prove(segment, table)):
            self._finish(segment, table)
            self._done.add(name)

    def _prove(self, segment: SegmentInfo, table: str) -> bool:
        """Compare; where the table differs set it apart, load it again and compare once more."""
        comparison = self._compare(segment, table)
        if not comparison.same:
            self._report(segment, table, comparison)
            aside = self._catalog.set_apart(table, "altered", SegmentKey.of(segment))
            log.warning("differing table set apart", extra={"fields": {"table": table, "as": aside}})
            self._reload(segment)
            comparison = self._compare(segment, table)
            if not comparison.same:
                self._report(segment, table, comparison)
                self._not_before[segment.name] = time.monotonic() + AGAIN_S
        again = self.compared.get(segment.path.name) == comparison
        self._remember(segment.path.name, comparison)
        if comparison.same and not again:
            log.info(
                "sealed table compared",
                extra={
                    "fields": {"table": table, "rows": comparison.rows, "refused": comparison.refused, "same": True}
                },
            )
        return comparison.same

    def _remember(self, file: str, comparison: Comparison) -> None:
        self.compared[file] = comparison
        while len(self.compared) > KEPT:
            self.compared.pop(next(iter(self.compared)))

    def _compare(self, segment: SegmentInfo, table: str) -> Comparison:
        return compare(self._engine, table, segment, self._catalog.refused(SegmentKey.of(segment)), self._stopping)

    def _report(self, segment: SegmentInfo, table: str, comparison: Comparison) -> None:
        log.error(
            "sealed table differs from its segment",
            extra={
                "fields": {
                    "table": table,
                    "columns": ",".join(comparison.columns) or comparison.error,
                    "rows": comparison.rows,
                    "segment_rows": segment.rows,
                    "segment": segment.path.name,
                }
            },
        )

    def _reload(self, segment: SegmentInfo) -> None:
        """Load a whole segment under another name and move it into place, so that a half-loaded one is never taken
        for a sealed one."""
        names, key = self._names, SegmentKey.of(segment)
        refused = self._catalog.refused(key)
        self._catalog.free(names.reload, self._capabilities)
        self._engine.execute(row_table_sql(names.reload, self._capabilities))
        with closing(_blocks(segment)) as blocks:
            for block in blocks:
                wanted = without(block, refused)
                if self._stopping.is_set():
                    raise StoppingError("the store is ending")
                if len(wanted):
                    self._engine.insert_block(names.reload, wanted, f"reload-{self._id}-{uuid.uuid4()}")
                del block, wanted
        table = names.sealed(segment)
        self._catalog.hold(table, key)
        if table not in self._catalog.tables():
            self._catalog.free(table, self._capabilities)
        self._engine.execute(f"RENAME TABLE {names.reload} TO {table}")

    def _finish(self, segment: SegmentInfo, table: str) -> None:
        """The file's row goes into ``export_log``, then the table goes."""
        comparison = self.compared[segment.path.name]
        verdict = verdict_of(segment, comparison)
        if self._catalog.log_export(segment, comparison.rows, socket.gethostname(), verdict):
            log.info(
                "file logged",
                extra={"fields": {"file": segment.exported["file"], "rows": segment.rows, "verdict": verdict}},
            )
        self._engine.execute(f"DROP TABLE IF EXISTS {table}")


def recorded(stored: int, verdict: str) -> Comparison:
    """The comparison that ``export_log`` tells of."""
    return Comparison(stored, error="" if verdict == VERIFIED else verdict)


def verdict_of(segment: SegmentInfo, comparison: Comparison) -> str:
    """``verified`` where received, stored and exported are one, else what is not."""
    exported = segment.exported
    if exported["digest"] != combine(segment.digests) or exported["rows"] != segment.rows:
        return "file differs from spool"
    if comparison.refused:
        return f"{comparison.refused} rows refused by ClickHouse"
    return VERIFIED if comparison.ok else "table differs from spool"
