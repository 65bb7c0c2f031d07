"""Answers to what others ask the store over its control socket, each with a connection of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mexc_pipeline.errors import UserError
from mexc_pipeline.ledger.repeats import Given, joined
from mexc_pipeline.rows import MT_NAMES
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, SegmentReader
from mexc_pipeline.spool.walk import in_order
from mexc_pipeline.store import records, schema
from mexc_pipeline.store.auditor import compare, recorded
from mexc_pipeline.store.catalog import Catalog, SegmentKey
from mexc_pipeline.store.engine import (
    UNKNOWN_TABLE,
    Engine,
    EngineError,
    EngineFactory,
    RefusedError,
    is_damage,
    quote,
    sentence,
)
from mexc_pipeline.store.large import one_at_a_time

_STALE_S = 60
_EXITS = "SELECT id, toUInt32(at), toString(seq), event FROM egress_log WHERE at >= toDateTime({since})"
_NEWEST_EXITS = f"{_EXITS} ORDER BY at DESC, seq DESC LIMIT 1 BY id"
_ALIVE = (
    "SELECT id, toUInt32(max(at)), toUInt32(now()) FROM collector_stats WHERE at >= toDateTime({since}) GROUP BY id"
)
MOST_EXITS = 200_000
_LOOKS = 5
"""At a symbol's tables until none of them is swapped meanwhile; after that it is said that it cannot be told."""
_UNTOLD = f"cannot be told: tables were swapped during each of {_LOOKS} looks; ask again"


class UnsettledError(EngineError):
    """The tables were never still for as long as a look takes."""


def query(factory: EngineFactory, sql: str, max_rows: int) -> bytearray:
    """Run a user's read-only statement; the answer is the JSON text of an object, see :meth:`Engine.query`. UserError
    where it is no such statement or the engine refuses it."""
    try:
        return factory().query(sql, max_rows)
    except EngineError as error:
        raise UserError(f"query: {sentence(error)}") from error


def exits(factory: EngineFactory, since: int, newest_only: bool) -> dict[str, Any]:
    """Rows of ``egress_log`` from ``since`` (Unix s) on, or the newest of each symbol, as (id, Unix s, seq, event); and
    ``alive``: (id, Unix s of its last statistics, and of now). UserError where ClickHouse cannot say."""
    sql = _NEWEST_EXITS if newest_only else _EXITS
    engine = factory()
    try:
        engine.connect()
        schema.apply(engine)
        return {
            "rows": engine.select(f"{sql.format(since=since)} LIMIT {MOST_EXITS}"),
            "alive": engine.select(_ALIVE.format(since=since)),
        }
    except EngineError as error:
        raise UserError(f"ClickHouse cannot say which exits were used: {error}") from error
    finally:
        engine.close()


def known(factory: EngineFactory, symbol_id: str) -> dict[str, Any]:
    """The highest seq ClickHouse knows of a symbol, in any table, and who wrote last. UserError where it cannot say."""
    engine = factory()
    try:
        engine.connect()
        schema.apply(engine)
        return {"last_seq": _last_seq(engine, symbol_id), "writer": _writer(engine, symbol_id)}
    except EngineError as error:
        raise UserError(f"ClickHouse cannot say what it has of {symbol_id}: {error}") from error
    finally:
        engine.close()


def logged(factory: EngineFactory, symbol_id: str) -> dict[str, Any]:
    """What was found of every table whose file is proven, also when table and segment are long gone: ``export_log``'s
    ``files`` as (file, digest, rows received, comparison). UserError where ClickHouse cannot say."""
    engine = factory()
    try:
        engine.connect()
        schema.apply(engine)
        files = Catalog(symbol_id, engine).files()
    except EngineError as error:
        raise UserError(f"ClickHouse cannot say what it had of {symbol_id}: {error}") from error
    finally:
        engine.close()
    return {"files": [(*of, recorded(stored, verdict).as_json()) for *of, stored, verdict in files]}


def given(factory: EngineFactory, symbol_id: str) -> dict[str, Any]:
    """Which spool gave the rows of a symbol that ClickHouse has or logged, as ``held``. UserError where it cannot
    say."""
    engine = factory()
    try:
        engine.connect()
        schema.apply(engine)
        return {"held": _given(engine, symbol_id)}
    except EngineError as error:
        raise UserError(f"ClickHouse cannot say who recorded what it has of {symbol_id}: {error}") from error
    finally:
        engine.close()


def _last_seq(engine: Engine, symbol_id: str) -> int:
    catalog = Catalog(symbol_id, engine)
    names = catalog.names
    found = []
    for table in ("export_log", "collector_stats"):
        rows = records.read(engine, table, f"SELECT max(last_seq) FROM {table} WHERE id = {quote(symbol_id)}")
        found.append(int(rows[0][0]))
    for table in catalog.tables():
        if not (table == names.current or names.is_sealed(table) or names.is_set_apart(table)):
            continue
        try:
            found.append(int(engine.select(f"SELECT max(seq) FROM {table}")[0][0]))
        except RefusedError as error:
            if names.is_set_apart(table) or error.code == UNKNOWN_TABLE:
                continue  # damaged and set apart for it, or swapped meanwhile; its rows are counted elsewhere
            raise
    return max(found)


def _writer(engine: Engine, symbol_id: str) -> dict[str, Any] | None:
    rows = records.read(
        engine,
        "collector_stats",
        "SELECT host, pid, spool_id, toInt64(toUInt32(now())) - toInt64(toUInt32(at)) FROM collector_stats "
        f"WHERE id = {quote(symbol_id)} ORDER BY at DESC LIMIT 1",
    )
    if not rows:
        return None
    host, pid, spool_id, age_s = rows[0]
    return {"host": host, "pid": pid, "spool_id": spool_id, "age_s": max(0, age_s)}


def verify(factory: EngineFactory, spool_dir: Path, ids: list[str]) -> dict[str, Any]:
    """Rates and shares per type, freshness, counts against the spool, and the content of sealed tables; and as ``held``
    which spool gave the rows that ClickHouse has or logged, each (symbol, spool id, first seq, last seq, place)."""
    engine = factory()
    findings: list[dict[str, Any]] = []
    held: list[Given] = []
    try:
        engine.connect()
        for symbol_id in ids:
            findings += _settled(engine, spool_dir / symbol_id, symbol_id)
            try:
                held += _given(engine, symbol_id)
            except UnsettledError as error:
                findings.append(_finding(symbol_id, "seq", False, str(error)))
    except EngineError as error:
        findings.append(_finding("", "", False, f"ClickHouse cannot be used: {error}"))
    finally:
        engine.close()
    return {"findings": findings, "held": held}


def _finding(symbol_id: str, table: str, ok: bool, text: str) -> dict[str, Any]:
    return {"symbol": symbol_id, "table": table, "ok": ok, "text": text}


def _given(engine: Engine, symbol_id: str) -> list[Given]:
    """Which spool gave which rows of a symbol, by its tables and ``export_log``, joined. Raises EngineError.

    Not by tables whose spool is not recorded or that were set apart as altered: the spool has those rows, and what such
    a table says of itself is what is in doubt."""
    catalog = Catalog(symbol_id, engine)
    names = catalog.names
    for _ in range(_LOOKS):
        holdings = catalog.holdings()
        found: list[Given] = []
        for table in sorted(catalog.tables() & holdings.keys()):
            if not (table == names.current or names.is_sealed(table) or names.is_orphan(table)):
                continue
            try:
                ((first, last),) = engine.select(f"SELECT min(seq), max(seq) FROM {table}")
            except RefusedError as error:
                if error.code == UNKNOWN_TABLE or is_damage(error):
                    continue  # swapped meanwhile; or the table's own finding says so
                raise
            found.append(Given(symbol_id, holdings[table].spool_id, first, last, f"table {table}"))
        if catalog.holdings() == holdings:  # no table was given another segment's rows meanwhile
            return joined([*found, *catalog.exported()])
    raise UnsettledError(_UNTOLD)


def _settled(engine: Engine, folder: Path, symbol_id: str) -> list[dict[str, Any]]:
    """A symbol's findings. A swap under way puts rows of a new segment beside what was known of the one before, so what
    is wrong while one came by is looked at again; what is wrong in one way at each look is wrong."""
    catalog = Catalog(symbol_id, engine)
    current = catalog.names.current
    wrong: list[list[dict[str, Any]]] = []
    for _ in range(_LOOKS):
        before = catalog.holdings().get(current)
        findings = _verify_symbol(engine, folder, catalog)
        wrong.append([finding for finding in findings if not finding["ok"]])
        if not wrong[-1] or catalog.holdings().get(current) == before:
            return findings
    told = [finding for finding in findings if finding["ok"] or all(finding in one for one in wrong)]
    return [*told, _finding(symbol_id, current, False, _UNTOLD)]


def _verify_symbol(engine: Engine, folder: Path, catalog: Catalog) -> list[dict[str, Any]]:
    names = catalog.names
    findings: list[dict[str, Any]] = []

    def say(table: str, ok: bool, text: str) -> None:
        findings.append(_finding(names.id, table, ok, text))

    by_key: dict[SegmentKey, SegmentInfo] = {}
    spooled = in_order(folder)
    for path, why in spooled.unreadable:
        say("", False, f"segment {path.name} cannot be read: {why}")
    for segment in spooled.readable:
        by_key[SegmentKey.of(segment)] = segment
    holdings, tables = catalog.holdings(), catalog.tables()
    for table in sorted(tables):
        key = holdings.get(table)
        segment_of = by_key.get(key) if key is not None else None
        try:
            if table == names.current:
                say(table, *_live(engine, table, segment_of))
            elif names.is_sealed(table) and segment_of is not None and segment_of.state != "open":
                refused = catalog.refused(SegmentKey.of(segment_of))
                comparison = compare(engine, table, segment_of, refused)
                what = comparison.error or f"differs from its segment in {', '.join(comparison.columns)}"
                same = f"{comparison.rows} rows, content as in segment {segment_of.path.name}"
                missing = f", {comparison.refused} rows refused by ClickHouse" if comparison.refused else ""
                say(table, comparison.ok, (same if comparison.same else what) + missing)
            elif names.is_set_apart(table):
                say(table, True, f"set apart, {catalog.count(table)} rows; drop it when it is no longer of use")
        except RefusedError as error:
            if error.code != UNKNOWN_TABLE:  # swapped or dropped meanwhile, which is as it should be
                say(table, False, f"cannot be read: {error}")
        except SegmentError as error:
            say(table, False, f"cannot be compared: {error}")
    if names.current not in tables:
        say(names.current, False, "there is no current table; is the store running?")
    return findings


def _live(engine: Engine, table: str, segment: SegmentInfo | None) -> tuple[bool, str]:
    """Judge the table that is being filled, by its rows up to one moment."""
    rows = engine.select(f"SELECT CAST(mt AS Int8), count(), max(seq), min(seq) FROM {table} GROUP BY mt")
    total = sum(row[1] for row in rows)
    if not total:
        return True, "empty"
    last, first = max(row[2] for row in rows), min(row[3] for row in rows)
    shares = ", ".join(f"{MT_NAMES[mt]} {count} ({count / total:.1%})" for mt, count, _, _ in sorted(rows))
    if segment is None:
        return False, f"{total} rows of a segment that is not in the spool; {shares}"
    with one_at_a_time() as large, SegmentReader(segment.path) as reader:
        expected = last - segment.first_seq + 1
        here = reader.info()
        newest = reader.read(last - 1, 1, until_seq=last, large=large)
        begin = reader.read(first - 1, 1, until_seq=first, large=large)
    if not len(newest) or not len(begin):
        return False, f"has seq {first} to {last}, which the spool does not have; {shares}"
    seconds = max(1e-3, (newest.rx[0] - begin.rx[0]) / 1e9)
    behind, age = here.last_seq - last, time.time() - newest.rx[0] / 1e9
    text = (
        f"{total} rows, {total / seconds:.1f}/s: {shares}; newest row {age:.1f} s old, {behind} rows behind the spool"
    )
    if total != expected:
        return False, f"{text}; the spool has {expected} rows up to seq {last}"
    if age < -_STALE_S:
        return False, f"{text}: its rx lies in the future, so the clock was or is wrong, here or where it was received"
    if behind and age > _STALE_S:
        return False, f"{text}; loading does not keep up"
    return True, text
