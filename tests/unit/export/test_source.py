"""What an export reads of a segment is what the segment holds, however it is cut into blocks."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_pipeline.export.packed import Packed
from mexc_pipeline.export.source import ahead, blocks
from mexc_pipeline.periods import parse_name
from mexc_pipeline.rows import Columns
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, create, info
from support.examples import examples

I64 = st.integers(-(2**63), 2**63 - 1)
FRAME = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"", b"\0", b"a\0,b", b'{"n":"1,2"}', "价".encode(), b"\xff"])
)
ROWS = st.lists(st.tuples(I64, I64, st.integers(1, 6), FRAME), min_size=1, max_size=50)


def segment(folder: Path, rows: list[tuple[int, int, int, bytes]], first: int = 1, without: int = 0) -> SegmentInfo:
    path = folder / "2026112210.sqlite"
    path.unlink(missing_ok=True)
    meta: dict[str, object] = {"id": "btc", "symbol": "BTC_USDT", "spool_id": "s", "version": "1", "state": "closed"}
    meta["edge_ns"] = parse_name("2026112211")
    db = create(path, meta)
    held = [(first + n, *row) for n, row in enumerate(rows) if first + n != without]
    db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", held)
    db.close()
    return info(path)


@pytest.mark.slow
@settings(max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, first=st.integers(1, 2**61), most=st.integers(1, 20), most_bytes=st.integers(1, 200))
def test_every_row_comes_once_and_as_it_is(
    tmp_path: Path, rows: list[tuple[int, int, int, bytes]], first: int, most: int, most_bytes: int
) -> None:
    found = list(ahead(blocks(segment(tmp_path, rows, first), most, most_bytes)))
    at = 0
    for block in found:
        wanted = Packed.of(Columns.of((first + at + n, *row) for n, row in enumerate(rows[at : at + len(block)])))
        for name in ("seq", "rx", "ts", "mt", "length"):
            assert getattr(block, name).dtype == getattr(wanted, name).dtype
            assert getattr(block, name).tolist() == getattr(wanted, name).tolist()
        assert block.m == wanted.m
        assert len(block) <= most
        assert len(block.m) <= most_bytes or len(block) == 1
        at += len(block)
    assert at == len(rows)


def test_a_missing_row_is_said(tmp_path: Path) -> None:
    rows = [(n, n, 1, b"{}") for n in range(30)]
    whole = segment(tmp_path, rows)
    assert sum(map(len, blocks(whole))) == 30
    holed = segment(tmp_path, rows, without=17)
    for most in (1, 7, 100):
        with pytest.raises(SegmentError, match="rows are missing between seq"):
            list(ahead(blocks(holed, most)))


@pytest.mark.parametrize("mt", [0, 13, 257, -1])
def test_a_type_that_no_row_has_is_said(tmp_path: Path, mt: int) -> None:
    with pytest.raises(SegmentError, match="hold what no row has"):
        list(blocks(segment(tmp_path, [(1, 1, 1, b"a"), (2, 2, mt, b"b")])))


def test_text_in_the_place_of_a_number_is_said(tmp_path: Path) -> None:
    """Only damage can put it there."""
    found = segment(tmp_path, [(1, 1, 1, b"a"), (2, 2, 1, b"b")])
    loose = sqlite3.connect(found.path)
    loose.executescript("""
        PRAGMA writable_schema = 1;
        UPDATE sqlite_schema SET sql = replace(replace(sql, 'INTEGER NOT NULL', 'NOT NULL'), ') STRICT', ')')
        WHERE name = 'rows';
    """)
    loose.close()
    loose = sqlite3.connect(found.path)
    loose.execute("UPDATE rows SET rx = 'x1' WHERE seq = 2")
    loose.commit()
    loose.close()
    with pytest.raises(SegmentError, match="hold what no row has"):
        list(blocks(found))


def test_reading_ahead_can_be_left_in_the_middle(tmp_path: Path) -> None:
    found = blocks(segment(tmp_path, [(n, n, 1, b"{}") for n in range(30)]), 5)
    some = ahead(found)
    assert len(next(some)) == 5
    some.close()
    assert next(found, None) is None, "and lets go of the segment"
