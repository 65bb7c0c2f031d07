"""Pending rows that are moved are those that arrived; what else the file holds is set apart, once, and said."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mexc_pipeline.periods import HOUR_NS, Period
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool import pending as module
from mexc_pipeline.spool.last_seq import LastSeq
from mexc_pipeline.spool.pending import FILE, Pending, is_left, number_left, started
from mexc_pipeline.spool.walk import segments
from mexc_pipeline.spool.writer import Spool
from mexc_pipeline.verify.exports import set_apart
from support.examples import examples
from support.spooled import named, read_rows

T0 = 2_000_001_600_000_000_000 // HOUR_NS * HOUR_NS
PERIOD = Period(HOUR_NS)
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # hundreds of spools: fsync must cost nothing
NO_LAST_SEQ = LastSeq(0, (), None, ())
MOST = (1 << 63) - 1
COUNT = 12


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A spool folder, which has its symbol's name."""
    (tmp_path / "btc").mkdir()
    return tmp_path / "btc"


def row(n: int) -> Frame:
    return Frame(T0 + n * 1_000_000, 1_000 + n, Mt.DEAL, b'{"p":%d}' % n)


def left(folder: Path) -> None:
    """What a process leaves that was killed before it knew its next seq: twelve rows, in four commits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "KEEP_S", 0.0)
        pending = Pending(folder, "BTC_USDT")
        for first in range(1, COUNT + 1, 3):
            pending.append([row(n) for n in range(first, first + 3)])
        pending.close()


def change(folder: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / FILE)) as db, db:
        db.execute(statement)


def go_on(folder: Path) -> list[int]:
    """A next start and what it receives; the places of the rows that are in the recording then, 0 for a row that
    nobody received. New ones are 100 to 102."""
    pending = Pending(folder, "BTC_USDT")
    pending.append([Frame(T0 + 50_000_000, None, Mt.EVENT, started("1", pending.set_apart))])
    pending.append([row(100), row(101)])
    spool = Spool(folder, "btc", "BTC_USDT", PERIOD, next_rx=pending.first_rx())
    moves = 0
    while pending.move(spool):
        moves += 1
        assert moves < 50, "it does not end"
    pending.remove()
    spool.append([row(102)])
    spool.close()
    assert not is_left(folder)
    rows = read_rows(folder)
    assert [r.seq for r in rows] == list(range(1, len(rows) + 1))
    known = {row(n): n for n in (*range(1, COUNT + 1), 100, 101, 102)}
    return [known.get(Frame(r.rx, r.ts, r.mt, r.m), 0) for r in rows if r.mt != Mt.EVENT]


NUMBERS = st.one_of(st.integers(-3, 130), st.sampled_from([MOST, -MOST - 1, 1 << 62, 1 << 61, MOST - 1]))
CHANGES = st.one_of(
    st.builds("UPDATE OR IGNORE rows SET n = {1} WHERE n = {0}".format, st.integers(1, COUNT), NUMBERS),
    st.builds("UPDATE rows SET rx = {1} WHERE n = {0}".format, st.integers(1, COUNT), NUMBERS),
    st.builds("UPDATE rows SET rx = rx + {1} WHERE n = {0}".format, st.integers(1, COUNT), st.integers(1, 1 << 62)),
    st.builds("UPDATE rows SET ts = {1} WHERE n = {0}".format, st.integers(1, COUNT), NUMBERS),
    st.builds("UPDATE rows SET ts = NULL WHERE n = {0}".format, st.integers(1, COUNT)),
    st.builds("UPDATE rows SET mt = {1} WHERE n = {0}".format, st.integers(1, COUNT), NUMBERS),
    st.builds("UPDATE rows SET m = x'{1}' WHERE n = {0}".format, st.integers(1, COUNT), st.sampled_from(["", "7b7d"])),
    st.builds("DELETE FROM rows WHERE n BETWEEN {0} AND {1}".format, st.integers(1, COUNT), st.integers(1, 14)),
    st.builds(
        "INSERT OR IGNORE INTO rows SELECT {1}, rx, ts, mt, m, sum FROM rows WHERE n = {0}".format,
        st.integers(1, COUNT),
        NUMBERS,
    ),
    st.builds(
        "INSERT OR REPLACE INTO rows SELECT {1}, rx, ts, mt, m, sum FROM rows WHERE n = {0}".format,
        st.integers(1, COUNT),
        st.integers(1, COUNT),
    ),
)


@given(what=CHANGES)
@example(what="UPDATE rows SET n = 114 WHERE n = 12")
@example(what=f"UPDATE rows SET n = {MOST} WHERE n = 12")
@example(what="DELETE FROM rows WHERE n BETWEEN 4 AND 8")
@example(what="DELETE FROM rows WHERE n >= 9")
@example(what=f"UPDATE rows SET rx = {MOST} WHERE n = 1")
@example(what="UPDATE rows SET rx = -5 WHERE n = 12")
@example(what=f"UPDATE rows SET rx = rx + {1 << 62} WHERE n = 5")
@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_one_change_does_rows_are_those_that_arrived_once_each(what: str) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as base:
        folder = Path(base) / "btc"
        folder.mkdir()
        left(folder)
        change(folder, what)
        found = go_on(folder)
        assert found == sorted(set(found)), "repeated or out of order"
        assert 0 not in found, "none that nobody received"
        assert found[-3:] == [100, 101, 102], "what comes next is recorded"
        lost = set(range(1, COUNT + 1)) - set(found)
        said = [f for f in set_apart(folder) if not f.ok]
        (start,) = named(read_rows(folder), "started")
        if lost:
            assert [f.subject for f in said] == start["set_apart"]
            assert not start["clean"]
        assert [segment.start_ns for segment, _ in segments(folder)] == [T0], "no period that never was"


def test_only_what_is_damaged_is_left_out_and_what_there_is_of_it_can_be_looked_at(tmp_path: Path) -> None:
    left(tmp_path)
    change(tmp_path, "UPDATE rows SET m = x'7b7d' WHERE n IN (4, 9)")
    assert go_on(tmp_path) == [1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 100, 101, 102]
    (kept,) = tmp_path.glob(f"{FILE}.damaged-*")
    with contextlib.closing(sqlite3.connect(kept)) as db:
        assert db.execute("SELECT n, m FROM rows").fetchall() == [(4, b"{}"), (9, b"{}")]


def test_a_hole_is_said_where_nobody_records_any_more(tmp_path: Path) -> None:
    left(tmp_path)
    change(tmp_path, "DELETE FROM rows WHERE n > 9")
    number_left(tmp_path, "btc", PERIOD, NO_LAST_SEQ)
    assert [r.m for r in read_rows(tmp_path)] == [row(n).m for n in range(1, 10)]
    assert len(set_apart(tmp_path)) == 1


@pytest.mark.parametrize(
    "what", ["DELETE FROM rows WHERE n = 12", f"UPDATE rows SET n = {MOST} WHERE n = 12", "DELETE FROM meta WHERE 0"]
)
def test_a_new_row_never_has_the_place_of_one_that_was_moved(tmp_path: Path, what: str) -> None:
    """The process died between moving its rows and giving the file up, and the newest was lost since."""
    left(tmp_path)
    pending = Pending(tmp_path, "BTC_USDT")
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    while pending.move(spool):
        pass
    pending.close()
    spool.close()
    change(tmp_path, what)
    change(tmp_path, "DELETE FROM meta WHERE key = 'last'")
    assert go_on(tmp_path) == [*range(1, 13), 100, 101, 102]


def test_rows_damaged_while_they_wait_are_left_out_too(tmp_path: Path) -> None:
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append([row(1), row(2), row(3)])
    change(tmp_path, "UPDATE rows SET n = 4 WHERE n = 2")
    pending.append([row(4)])
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    while pending.move(spool):
        pass
    pending.remove()
    spool.close()
    assert [r.m for r in read_rows(tmp_path)] == [row(n).m for n in (1, 3, 4)]
    assert len(set_apart(tmp_path)) == 1


def old(folder: Path) -> None:
    """As versions left it that made no sums."""
    with contextlib.closing(sqlite3.connect(folder / FILE)) as db, db:
        db.execute("PRAGMA user_version = 1")
        db.execute(
            "CREATE TABLE rows (n INTEGER PRIMARY KEY, rx INTEGER NOT NULL, ts INTEGER, mt INTEGER NOT NULL,"
            " m BLOB NOT NULL) STRICT"
        )
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID")
        db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", [(n, *row(n)) for n in range(1, COUNT + 1)])
        db.executemany(
            "INSERT INTO meta VALUES (?, ?)", [("id", json.dumps("abc")), ("symbol", json.dumps("BTC_USDT"))]
        )


@pytest.mark.parametrize(
    ("what", "lost"),
    [
        ("DELETE FROM rows WHERE 0", []),
        ("DELETE FROM rows WHERE n BETWEEN 3 AND 5", [3, 4, 5]),
        (f"UPDATE rows SET n = {MOST} WHERE n = 12", [12]),
        (f"UPDATE rows SET rx = {MOST} WHERE n = 1", [1]),
        ("UPDATE rows SET rx = -5 WHERE n = 7", [7]),
        ("UPDATE rows SET mt = 99 WHERE n = 7", [7]),
    ],
)
def test_a_file_of_an_earlier_version_is_judged_by_its_places_and_times(
    tmp_path: Path, what: str, lost: list[int]
) -> None:
    old(tmp_path)
    change(tmp_path, what)
    assert go_on(tmp_path) == [*(n for n in range(1, 13) if n not in lost), 100, 101, 102]
    assert bool(set_apart(tmp_path)) is bool(lost)
