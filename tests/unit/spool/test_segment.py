"""Segment files: names, durability, reading beside the writer."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_pipeline.rows import MT_CODES, Columns
from mexc_pipeline.spool.names import SegmentName
from mexc_pipeline.spool.segment import FORMAT, SegmentError, SegmentReader, connect, create, info
from mexc_pipeline.spool.walk import segments
from support.examples import examples
from support.spools import written

META = {
    "id": "btc", "symbol": "BTC_USDT", "spool_id": "s", "version": "1", "period": "2033051803",
    "period_ns": 3600 * 10**9, "edge_ns": 2_000_001_600 * 10**9, "state": "open", "cut": False,
}  # fmt: skip


def made(folder: Path, file: str = "2033051803.sqlite", rows: int = 0, size: int = 1) -> sqlite3.Connection:
    db = create(folder / file, META)
    db.executemany(
        "INSERT INTO rows VALUES (?, ?, ?, ?, ?)", [(n, n * 10, n, 1 + n % 3, b"x" * size) for n in range(1, rows + 1)]
    )
    return db


@pytest.mark.parametrize(
    ("file", "part"), [("2026112120.sqlite", 1), ("20261121200010.sqlite", 1), ("2026112120.part12.sqlite", 12)]
)
def test_names_of_segments(file: str, part: int) -> None:
    name = SegmentName.parse(file)
    assert name is not None
    assert (name.part, name.file) == (part, file)


@pytest.mark.parametrize(
    "file",
    ["lock", "2026112120.sqlite-wal", ".2026112120.sqlite.new", "2026112120.part0.sqlite", "2026112120.part01.sqlite",
     "2026112125.sqlite", "2026112120.sqlite.stale-5", "20261121.sqlite", "2026112120.parquet"],
)  # fmt: skip
def test_other_names_are_no_segments(file: str) -> None:
    assert SegmentName.parse(file) is None


def test_segments_are_listed_oldest_first(tmp_path: Path) -> None:
    assert segments(tmp_path / "nowhere") == []
    names = ["2026112119.sqlite", "2026112120.sqlite", "2026112120.part2.sqlite", "2026112120.part10.sqlite"]
    for name in [*reversed(names), "lock", "2026112120.sqlite-wal"]:
        (tmp_path / name).touch()
    assert [path.name for _, path in segments(tmp_path)] == names


def test_a_new_segment_never_replaces_one_that_is_there(tmp_path: Path) -> None:
    made(tmp_path, rows=3).close()
    with pytest.raises(FileExistsError):
        create(tmp_path / "2033051803.sqlite", META)
    assert info(tmp_path / "2033051803.sqlite").rows == 3


def test_what_a_crash_left_of_making_one_is_taken_away(tmp_path: Path) -> None:
    for leftover in (".2033051803.sqlite.new", ".2033051803.sqlite.new-journal"):
        (tmp_path / leftover).write_bytes(b"half")
    made(tmp_path).close()
    assert info(tmp_path / "2033051803.sqlite").state == "open"
    assert not list(tmp_path.glob(".*"))


def test_the_writer_commits_durably_and_leaves_checkpoints_to_others(tmp_path: Path) -> None:
    db = made(tmp_path)
    assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert db.execute("PRAGMA wal_autocheckpoint").fetchone()[0] == 0
    db.close()


def test_what_an_empty_and_an_open_segment_say(tmp_path: Path) -> None:
    db = made(tmp_path)
    path = tmp_path / "2033051803.sqlite"
    empty = info(path)
    assert (empty.first_seq, empty.last_seq, empty.rows, empty.state, empty.digests) == (0, 0, 0, "open", {})
    db.execute("INSERT INTO rows VALUES (7, 1, 1, 1, x'00')")
    found = info(path)
    assert (found.first_seq, found.last_seq, found.rows) == (7, 7, 1)
    assert (found.file, found.is_part, found.final) == ("btc2033051803.parquet", False, True)
    db.close()


def test_a_reader_gets_blocks_within_its_limits_and_leaves_nothing_open(tmp_path: Path) -> None:
    db = made(tmp_path, rows=1000, size=100)
    with SegmentReader(tmp_path / "2033051803.sqlite") as reader:
        assert reader.read(0, max_rows=7).seq == list(range(1, 8))
        assert reader.read(995, max_rows=7).seq == list(range(996, 1001))
        assert reader.read(3, until_seq=5).seq == [4, 5]
        assert len(reader.read(1000)) == 0
        assert len(reader.read(0, max_bytes=20_000)) == 200
        blocks = list(reader.blocks(max_rows=300))
        assert [len(b) for b in blocks] == [300, 300, 300, 100]
        assert Columns.of(row for b in blocks for row in b.rows()) == reader.read(0)
        assert reader.counts() == dict.fromkeys(MT_CODES, 0) | {"t": 333, "d": 334, "dp": 333}
        assert reader.tail(1, 2).seq == [996, 999]
        # A statement left open would keep the checkpoint from moving the whole log.
        busy, in_log, moved = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert (busy, in_log, moved) == (0, 0, 0)
    db.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    made(tmp_path, rows=1).close()
    db = connect(tmp_path / "2033051803.sqlite", readonly=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM rows")
    db.close()


def test_a_folder_with_odd_characters(tmp_path: Path) -> None:
    folder = tmp_path / "a ?b#c%20d"
    folder.mkdir()
    made(folder, rows=2).close()
    assert info(folder / "2033051803.sqlite").rows == 2
    assert {p.name.partition("-")[0] for p in folder.iterdir()} == {"2033051803.sqlite"}


def test_what_is_no_segment_is_said(tmp_path: Path) -> None:
    path = tmp_path / "2033051803.sqlite"
    with pytest.raises(SegmentError, match="cannot be opened"):
        info(path)
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(SegmentError, match=r"not a readable segment|cannot be opened"):
        info(path)
    path.write_bytes(b"")
    with pytest.raises(SegmentError, match="not a readable segment"):
        info(path)
    path.unlink()
    made(tmp_path).close()
    written(path, f"PRAGMA user_version={FORMAT + 1}")
    with pytest.raises(SegmentError, match="newer than this program"):
        info(path)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
@given(
    key=st.sampled_from([*META, "rows", "counts", "digests", "digest", "gaps", "account", "exported", "bytes"]),
    value=ANYTHING,
)
def test_whatever_a_segment_says_of_itself_it_is_of_its_type_or_refused(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "2033051803.sqlite"
    path.unlink(missing_ok=True)
    create(path, {**META, key: value}).close()
    try:
        said = info(path)
    except SegmentError:
        return
    assert re.fullmatch(r"[a-z][a-z0-9_]*", said.id)
    assert said.file == Path(said.file).name
    assert isinstance(said.edge_ns, int)
    assert 0 < said.edge_ns < 1 << 63
    assert said.state in ("open", "closed", "exported")


@pytest.mark.parametrize("symbol_id", ["../eth", "/etc/eth", "..", "", "a/b", "btc\n", "BTC", 5, None])
def test_an_id_that_is_no_name_is_refused(tmp_path: Path, symbol_id: Any) -> None:
    path = tmp_path / "2033051803.sqlite"
    create(path, {**META, "id": symbol_id}).close()
    with pytest.raises(SegmentError, match="not a readable segment"):
        info(path)


def test_nested_without_end_is_refused(tmp_path: Path) -> None:
    create(tmp_path / "2033051803.sqlite", META).close()
    nested = "[" * 200_000 + "]" * 200_000
    written(tmp_path / "2033051803.sqlite", "INSERT INTO meta VALUES ('account', ?)", nested)
    with pytest.raises(SegmentError, match="not a readable segment"):
        info(tmp_path / "2033051803.sqlite")
