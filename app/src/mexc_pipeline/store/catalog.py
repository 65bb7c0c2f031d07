"""Names of row tables and what the engine records about them: which segment each holds, rows refused, files logged."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mexc_pipeline.ledger.repeats import Given
from mexc_pipeline.rows import MT_NAMES
from mexc_pipeline.spool.segment import SegmentInfo
from mexc_pipeline.store import records
from mexc_pipeline.store.engine import ENUM, Capabilities, Engine, quote, row_table_sql


class SegmentKey(NamedTuple):
    """What names the segment that a row table holds."""

    spool_id: str
    period: str
    part: int

    @classmethod
    def of(cls, segment: SegmentInfo) -> SegmentKey:
        """The key of that segment."""
        return cls(segment.spool_id, segment.name.period, segment.name.part)


class Extent(NamedTuple):
    """What a row table has: number of rows, lowest and highest seq (0 where there is none)."""

    rows: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Names:
    """Table names of one symbol. Ids have no underscore and do not end in a digit, so no two symbols share one."""

    id: str

    @property
    def current(self) -> str:
        """The table that the open segment is loaded into."""
        return f"{self.id}_current"

    @property
    def next(self) -> str:
        """The empty table that takes the place of ``current``, on engines that cannot exchange two tables."""
        return f"{self.id}_next"

    @property
    def reload(self) -> str:
        """A sealed table while it is loaded again."""
        return f"{self.id}_reload"

    @property
    def probe(self) -> str:
        """The table that shows whether the engine takes a block."""
        return f"{self.id}_probe"

    def sealed(self, segment: SegmentInfo) -> str:
        """Where the rows of a closed segment end up."""
        part = f"_part{segment.name.part}" if segment.is_part else ""
        return f"{self.id}_{segment.name.period}{part}"

    def is_sealed(self, table: str) -> bool:
        """Whether a table of that name holds a closed segment."""
        return re.fullmatch(rf"{self.id}_(\d{{10}}|\d{{14}})(_part\d+)?", table) is not None

    def is_orphan(self, table: str) -> bool:
        """Whether a table of that name was set apart with rows that the spool, as it is now, does not have."""
        return self.is_set_apart(table) and table.startswith(f"{self.id}_orphan_")

    def is_set_apart(self, table: str) -> bool:
        """Whether a table of that name was set apart."""
        return re.fullmatch(rf"{self.id}_(orphan|altered)_\d{{14}}(_\d+)?", table) is not None


class Catalog:
    """Reads and writes the engine's records about one symbol. Every method raises EngineError."""

    def __init__(self, symbol_id: str, engine: Engine) -> None:
        self.names = Names(symbol_id)
        self._id = symbol_id
        self._engine = engine
        self._n = 0

    def tables(self) -> set[str]:
        """Tables of this symbol."""
        rows = self._engine.select(
            "SELECT name FROM system.tables WHERE database = currentDatabase() "
            f"AND startsWith(name, {quote(self._id + '_')})"
        )
        return {row[0] for row in rows}

    def outdated(self) -> set[str]:
        """Row tables of this symbol that lack types of rows: an earlier version made them. No engine can alter the
        column of a StripeLog table."""
        rows = self._engine.select(
            "SELECT table, type FROM system.columns WHERE database = currentDatabase() AND name = 'mt' "
            f"AND startsWith(table, {quote(self._id + '_')})"
        )
        return {table for table, kind in rows if kind != ENUM}

    def holdings(self) -> dict[str, SegmentKey]:
        """The segment each table holds or held when it last had that name."""
        rows = records.read(
            self._engine,
            "holdings",
            "SELECT name, argMax(spool_id, n), argMax(period, n), argMax(part, n), max(n) FROM holdings "
            f"WHERE id = {quote(self._id)} GROUP BY name",
        )
        self._n = max([self._n, *(row[4] for row in rows)])
        return {name: SegmentKey(spool_id, period, part) for name, spool_id, period, part, _ in rows}

    def hold(self, table: str, key: SegmentKey) -> None:
        """Record that ``table`` is about to hold that segment."""
        self._n = max(time.time_ns(), self._n + 1)
        columns = [
            ("at", "DateTime('UTC')"),
            ("n", "UInt64"),
            ("name", "String"),
            ("id", "String"),
            ("spool_id", "String"),
            ("period", "String"),
            ("part", "UInt32"),
        ]
        self._engine.insert("holdings", columns, [(int(time.time()), self._n, table, self._id, *key)])

    def extent(self, table: str) -> Extent:
        """What the table has. Reads every column, so that a damaged table is found out."""
        rows = self._engine.select(
            "SELECT count(), min(seq), max(seq), sum(length(m)), max(rx), max(ts), max(CAST(mt AS Int8)) "
            f"FROM (SELECT seq, m, rx, ts, mt FROM {table})"
        )
        return Extent(*rows[0][:3])

    def count(self, table: str) -> int:
        """How many rows a table has."""
        return int(self._engine.select(f"SELECT count() FROM {table}")[0][0])

    def free(self, name: str, capabilities: Capabilities) -> None:
        """Make sure that a table can be renamed to ``name``; one that has it is dropped. A server that cannot exchange
        tables moves a table's folder before it notes the name; cut short between the two, the folder stays under a name
        that no table has, and only the making of one of that name takes it up again."""
        self._engine.execute(row_table_sql(name, capabilities))
        self._engine.execute(f"DROP TABLE IF EXISTS {name}")

    def set_apart(self, table: str, why: str, key: SegmentKey | None) -> str:
        """Rename a table to ``<id>_<why>_<time>``; ``why`` is ``orphan`` or ``altered``. Returns the new name."""
        base = f"{self._id}_{why}_{datetime.now(UTC).strftime('%Y%m%d%H%M%S')}"
        taken, name, number = self.tables(), base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        if key is not None:
            self.hold(name, key)
        self._engine.execute(f"RENAME TABLE {table} TO {name}")
        return name

    def refused(self, key: SegmentKey) -> set[int]:
        """Seqs of the rows the engine refused for good."""
        sql = f"SELECT DISTINCT seq FROM refused_rows WHERE {self._where(key)}"
        rows = records.read(self._engine, "refused_rows", sql)
        return {row[0] for row in rows}

    def refuse(self, key: SegmentKey, seq: int, error: str) -> None:
        """Record a row that the engine refused for good."""
        columns = [
            ("at", "DateTime('UTC')"),
            ("id", "String"),
            ("spool_id", "String"),
            ("period", "String"),
            ("part", "UInt32"),
            ("seq", "UInt64"),
            ("error", "String"),
        ]
        self._engine.insert("refused_rows", columns, [(int(time.time()), self._id, *key, seq, error)])

    def logged(self) -> dict[SegmentKey, tuple[int, str]]:
        """Rows stored, as compared, and verdict of every segment whose file is in ``export_log``."""
        rows = records.read(
            self._engine,
            "export_log",
            "SELECT spool_id, period, part, argMax(stored, at), argMax(verdict, at) FROM export_log "
            f"WHERE id = {quote(self._id)} GROUP BY spool_id, period, part",
        )
        # A plain file has part 0; its segment is the first and only one of its period.
        return {
            SegmentKey(spool_id, period, max(1, part)): (stored, said) for spool_id, period, part, stored, said in rows
        }

    def files(self) -> list[tuple[Any, ...]]:
        """File, its digest, rows received, rows stored, as compared, and verdict: of every file in ``export_log``."""
        return records.read(
            self._engine,
            "export_log",
            "SELECT file, digest, argMax(received, at), argMax(stored, at), argMax(verdict, at) FROM export_log "
            f"WHERE id = {quote(self._id)} GROUP BY file, digest",
        )

    def exported(self) -> list[Given]:
        """The rows of every file in ``export_log``, with the spool that gave them."""
        rows = records.read(
            self._engine,
            "export_log",
            f"SELECT DISTINCT spool_id, first_seq, last_seq, file FROM export_log WHERE id = {quote(self._id)}",
        )
        return [Given(self._id, spool_id, first, last, f"export_log's {file}") for spool_id, first, last, file in rows]

    def log_export(self, segment: SegmentInfo, stored: int, host: str, verdict: str) -> bool:
        """Add the file's row to ``export_log`` unless it is there; returns whether it was added."""
        exported = segment.exported
        where = f"id = {quote(self._id)} AND file = {quote(exported['file'])} AND digest = {quote(exported['digest'])}"
        if records.read(self._engine, "export_log", f"SELECT count() FROM export_log WHERE {where}") != [(0,)]:
            return False
        values = export_row(segment, stored, host, verdict)
        self._engine.insert("export_log", [(n, t) for n, t, _ in values], [[v for _, _, v in values]])
        return True

    def egress_logged(self, spool_id: str, seq: int) -> bool:
        """Whether that ``connected`` row is in ``egress_log``."""
        where = f"id = {quote(self._id)} AND spool_id = {quote(spool_id)} AND seq = {seq}"
        return records.read(self._engine, "egress_log", f"SELECT count() FROM egress_log WHERE {where}") != [(0,)]

    def _where(self, key: SegmentKey) -> str:
        return (
            f"id = {quote(self._id)} AND spool_id = {quote(key.spool_id)} AND period = {quote(key.period)} "
            f"AND part = {key.part}"
        )


def export_row(segment: SegmentInfo, stored: int, host: str, verdict: str) -> list[tuple[str, str, Any]]:
    """A file's row in ``export_log`` as (column, type, value)."""
    e: Mapping[str, Any] = segment.exported
    counts: Mapping[str, int] = e.get("counts", segment.counts)
    minutes: Mapping[str, int] = e.get("minutes", {})
    return [
        ("at", "DateTime('UTC')", e["at_ns"] // 10**9),
        ("id", "String", segment.id),
        ("symbol", "String", segment.symbol),
        ("period", "String", segment.name.period),
        ("part", "UInt32", segment.name.part if segment.is_part else 0),
        ("final", "UInt8", int(segment.final)),
        ("first_seq", "UInt64", e.get("first_seq", segment.first_seq)),
        ("last_seq", "UInt64", e.get("last_seq", segment.last_seq)),
        ("rows", "UInt64", e["rows"]),
        *((f"rows_{name}", "UInt64", counts.get(name, 0)) for name in MT_NAMES.values()),
        ("received", "UInt64", segment.rows),
        ("stored", "UInt64", stored),
        ("bytes", "UInt64", e["bytes"]),
        ("raw_bytes", "UInt64", e.get("raw_bytes", segment.bytes)),
        ("digest", "String", e["digest"]),
        ("file", "String", e["file"]),
        ("gaps", "UInt64", segment.gaps),
        *((f"minutes_{name}", "UInt32", minutes.get(name, 0)) for name in ("agree", "differ", "unknown")),
        ("seconds", "Float64", float(e.get("seconds", 0.0))),
        ("spool_id", "String", segment.spool_id),
        ("host", "String", host),
        ("version", "String", e.get("version", segment.version)),
        ("verdict", "String", verdict),
    ]
