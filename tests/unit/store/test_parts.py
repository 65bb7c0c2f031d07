"""The store's pure parts: what a query may be, Native blocks, schema files, names, verdicts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.ledger.digest import combine
from mexc_pipeline.rows import MT_NAMES, Columns, Row
from mexc_pipeline.spool.names import SegmentName
from mexc_pipeline.spool.segment import SegmentInfo
from mexc_pipeline.store import native, schema
from mexc_pipeline.store.auditor import Comparison, verdict_of
from mexc_pipeline.store.catalog import Extent, Names, export_row
from mexc_pipeline.store.embedded import EmbeddedEngine, EmbeddedFolder, _again
from mexc_pipeline.store.engine import (
    ROW_COLUMNS,
    TYPES_DATETIME64,
    TYPES_INT64,
    Capabilities,
    RefusedError,
    UnreachableError,
    read_sql,
    row_table_sql,
)
from mexc_pipeline.store.loader import is_continuous, without

DIGESTS = dict.fromkeys(("seq", "rx", "ts", "mt", "len", "m"), "ab" * 32)


def a_segment(**changes: object) -> SegmentInfo:
    segment = SegmentInfo(
        path=Path("/spool/btc/2026112120.sqlite"),
        name=SegmentName(1_795_291_200 * 10**9, 1, "2026112120"),
        id="btc",
        symbol="BTC_USDT",
        spool_id="f00d",
        version="0.1.0",
        edge_ns=1_795_294_800 * 10**9,
        state="exported",
        first_seq=11,
        last_seq=20,
        rows=10,
        counts={"t": 4, "d": 3, "dp": 2, "dl": 0, "ev": 1, "r": 0},
        bytes=1000,
        digests=DIGESTS,
        digest=combine(DIGESTS),
        gaps=2,
        cut=False,
        exported={
            "file": "btc2026112120.parquet",
            "rows": 10,
            "digest": combine(DIGESTS),
            "bytes": 321,
            "raw_bytes": 1000,
            "at_ns": 1_795_294_810 * 10**9,
            "counts": {"t": 4, "d": 3, "dp": 2, "dl": 0, "ev": 1, "r": 0},
            "first_seq": 11,
            "last_seq": 20,
            "seconds": 1.5,
            "version": "0.1.0",
        },
    )
    return dataclasses.replace(segment, **changes)  # type: ignore[arg-type]


ROWS = st.lists(
    st.builds(
        Row,
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**63 - 1),
        st.sampled_from(sorted(MT_NAMES)),
        st.binary(max_size=300),
    ),
    min_size=1,
    max_size=50,
)


@given(ROWS, st.integers(1, 97))
def test_native_blocks_survive_any_cutting(rows: list[Row], size: int) -> None:
    block = Columns.of(rows)
    types = ("UInt64", "Int64", "Int64", "Int8", "String")
    data = native.encode(
        list(zip(("seq", "rx", "ts", "mt", "m"), types, strict=True)),
        [block.seq, block.rx, block.ts, block.mt, block.m],
    )
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    (decoded,) = native.decode(chunks, strings_as_bytes=True)
    assert list(native.columns_of(decoded).rows()) == rows


def test_time_columns_are_encoded_as_the_integers_they_are() -> None:
    """What the driver writes for DateTime64(9) given integers is those integers, little-endian, byte for byte."""
    rx = [1_700_000_000_123_456_789, 1_700_000_000_123_456_790]
    block = Columns([1, 2], rx, [1_700_000_000_123, 1_700_000_000_124], [1, 6], [b"\xff\x00", b"{}"])
    columns = list(zip(ROW_COLUMNS, TYPES_DATETIME64, strict=True))
    data = native.encode(columns, native.rows_block(block))
    assert b"".join(n.to_bytes(8, "little") for n in rx) in data
    assert b"".join(n.to_bytes(8, "little") for n in block.ts) in data


@pytest.mark.engine
def test_the_modern_engine_takes_the_drivers_block_exactly(tmp_path: Path) -> None:
    open_session: Callable[[str], Any] = pytest.importorskip("chdb.session").Session
    session = open_session(str(tmp_path / "engine"))
    try:
        session.query("CREATE DATABASE d ENGINE = Atomic")
        session.query(row_table_sql("d.t", Capabilities()))
        rx = [1_700_000_000_123_456_789, 1_700_000_000_999_999_999, 2_000_000_000_000_000_001]
        block = Columns([1, 2, 3], rx, [1_700_000_000_123, 0, 1], [1, 4, 6], [b"\xff\x00", b"", "é".encode()])
        data = native.encode(list(zip(ROW_COLUMNS, TYPES_DATETIME64, strict=True)), native.rows_block(block))
        with session.send_insert("INSERT INTO d.t (ts, mt, m, rx, seq)", "Native") as inserter:
            inserter.append(data)
            assert inserter.finish().rows_written == 3
        answer = session.query(read_sql("d.t", Capabilities()), "Native").bytes()
        (columns,) = native.decode([answer], strings_as_bytes=True)
        assert native.columns_of(columns) == block
        shown = session.query("SELECT toString(rx), toString(mt) FROM d.t WHERE seq = 1", "TSV").bytes()
        assert shown == b"2023-11-14 22:13:20.123456789\tt\n"
    finally:
        session.close()


def test_schema_files_are_numbered_without_a_hole_and_only_add() -> None:
    files = schema.files()
    assert [version for version, _, _ in files] == list(range(len(files)))
    for _, _, statements in files:
        assert statements
        assert all(re.match(r"CREATE TABLE IF NOT EXISTS |ALTER TABLE \w+ ADD COLUMN \w+ \S+", s) for s in statements)
        assert not any(";" in s for s in statements)
    logs = next(statements for _, name, statements in files if name == "001_logs.sql")
    assert [s.split()[5] for s in logs] == ["export_log", "egress_log", "collector_stats"]
    for statement in (s for _, _, statements in files for s in statements):
        assert "PARTITION BY toYYYYMM(at)" in statement or statement.startswith("ALTER TABLE ")
        assert not any(word in statement for word in ("DateTime64", "LowCardinality", "Decimal", "Map(", "Nullable"))


def test_statements_end_at_a_semicolon_and_lose_their_comments() -> None:
    assert schema.statements("-- a;\nCREATE x; -- b\n\nCREATE\n  y;\n") == ["CREATE x", "CREATE\n  y"]


def test_row_tables_where_there_is_no_datetime64() -> None:
    old = Capabilities("18.16.1", TYPES_INT64, exchange=False)
    assert "DateTime64" not in row_table_sql("t", old)
    assert "toUnixTimestamp64Nano" not in read_sql("t", old)
    assert "toUnixTimestamp64Nano(rx)" in read_sql("t", Capabilities())


def test_names_of_tables() -> None:
    names = Names("btc")
    segment = a_segment()
    assert names.sealed(segment) == "btc_2026112120"
    assert names.sealed(a_segment(cut=True)) == "btc_2026112120_part1"
    second = SegmentName(segment.name.start_ns, 2, "2026112120")
    assert names.sealed(a_segment(name=second)) == "btc_2026112120_part2"
    sealed = ["btc_2026112120", "btc_20261121200000", "btc_2026112120_part3"]
    other = ["btc_current", "btcusdc_2026112120", "btc_orphan_20261121200000", "btc_reload", "btc_2026"]
    assert [n for n in sealed + other if names.is_sealed(n)] == sealed
    assert [n for n in sealed + other if names.is_set_apart(n)] == ["btc_orphan_20261121200000"]


@pytest.mark.parametrize(
    ("extent", "refused", "expected"),
    [
        (Extent(10, 11, 20), set(), True),
        (Extent(4, 11, 14), set(), True),
        (Extent(9, 11, 20), set(), False),  # a hole
        (Extent(11, 11, 20), set(), False),  # a repeat
        (Extent(9, 12, 20), set(), False),  # the first row is missing
        (Extent(9, 11, 20), {15}, True),
        (Extent(9, 12, 20), {11}, True),
        (Extent(8, 11, 20), {15}, False),
        (Extent(3, 11, 13), {15}, True),
    ],
)
def test_what_counts_as_an_unbroken_stretch(extent: Extent, refused: set[int], expected: bool) -> None:
    assert is_continuous(extent, a_segment(), refused) is expected


def test_refused_rows_are_left_out() -> None:
    block = Columns([1, 2, 3], [7, 8, 9], [0, 0, 0], [1, 1, 1], [b"a", b"b", b"c"])
    assert without(block, set()) is block
    assert without(block, {9}) is block
    assert without(block, {2}) == Columns([1, 3], [7, 9], [0, 0], [1, 1], [b"a", b"c"])
    assert len(without(block, {1, 2, 3})) == 0


def test_verdicts() -> None:
    good = Comparison(10)
    assert verdict_of(a_segment(), good) == "verified"
    assert verdict_of(a_segment(), Comparison(9, [], 1)) == "1 rows refused by ClickHouse"
    assert verdict_of(a_segment(), Comparison(10, ["m"])) == "table differs from spool"
    exported = a_segment().exported
    assert verdict_of(a_segment(exported={**exported, "digest": "00" * 32}), good) == "file differs from spool"
    assert verdict_of(a_segment(exported={**exported, "rows": 9}), good) == "file differs from spool"


def test_an_export_row_has_the_columns_of_its_table() -> None:
    values = export_row(a_segment(), 10, "host1", "verified")
    later = {(name, kind) for table, name, kind in schema.added() if table == "export_log"}
    assert later
    given = [(name, kind) for name, kind, _ in values]
    assert set(given) == schema.columns()["export_log"] | later
    assert len(set(given)) == len(given)
    row = {name: value for name, _, value in values}
    assert (row["part"], row["final"], row["received"], row["stored"], row["at"]) == (0, 1, 10, 10, 1_795_294_810)
    assert [row[f"minutes_{name}"] for name in ("agree", "differ", "unknown")] == [0, 0, 0], "nothing was compared"
    checked = a_segment(exported={**a_segment().exported, "minutes": {"agree": 57, "differ": 1, "unknown": 2}})
    row = {name: value for name, _, value in export_row(checked, 10, "host1", "verified")}
    assert [row[f"minutes_{name}"] for name in ("agree", "differ", "unknown")] == [57, 1, 2]


class _Session:
    """Refuses as many statements as it is given codes for, then answers."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.asked = 0

    def query(self, _: str) -> None:
        self.asked += 1
        if self.codes:
            raise RuntimeError(f"Code: {self.codes.pop(0)}. DB::Exception: refused")


@pytest.mark.parametrize(("codes", "asked"), [((), 1), ((741,), 2), ((741,) * 4, 5)])
def test_a_statement_under_which_a_table_was_swapped_is_asked_again(codes: tuple[int, ...], asked: int) -> None:
    session = _Session(*codes)
    _again(lambda: session.query("SELECT 1"))
    assert session.asked == asked


@pytest.mark.parametrize(("codes", "asked"), [((60, 741), 1), ((741, 60), 2), ((741,) * 9, 5)])
def test_any_other_refusal_and_the_fifth_of_these_is_one(codes: tuple[int, ...], asked: int) -> None:
    session = _Session(*codes)
    with pytest.raises(RefusedError) as refused:
        _again(lambda: session.query("SELECT 1"))
    assert (session.asked, refused.value.code) == (asked, codes[asked - 1])


def test_an_engine_whose_folder_is_gone_is_away_for_all_its_threads(tmp_path: Path) -> None:
    """Once a traceback from each of them."""

    class Folder:
        folder = tmp_path / "gone"

    engine = EmbeddedEngine(cast(EmbeddedFolder, Folder()))
    with pytest.raises(UnreachableError, match=r"gone: No such file or directory"):
        engine.insert_block("btc_current", Columns([1], [1], [1], [1], [b"x"]), "")
    with pytest.raises(UnreachableError, match=r"gone: No such file or directory"):
        engine.insert("export_log", [("id", "String")], [["btc"]])
