"""The write-ahead log is checkpointed beside the writer, and does not grow without an end."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mexc_pipeline.periods import HOUR_NS, SECOND_NS, Period
from mexc_pipeline.rows import Frame
from mexc_pipeline.spool.checkpoint import FROM_BYTES, run_checkpoint
from mexc_pipeline.spool.segment import connect
from mexc_pipeline.spool.writer import Spool
from support.spooled import check

T0 = 2_000_001_600 * SECOND_NS


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    folder = tmp_path / "btc"
    folder.mkdir()
    made = Spool(folder, "btc", "BTC_USDT", Period(HOUR_NS))
    yield made
    made.close()


def write(spool: Spool, rows: int, size: int = 4000) -> None:
    for _ in range(rows):
        spool.append([Frame(T0, 5, 1, b"x" * size)])


def beside(spool: Spool) -> sqlite3.Connection:
    """Another connection to the open segment."""
    assert spool.segment is not None
    return connect(spool.folder / spool.segment, readonly=False, timeout_s=0.01)


def log_size(spool: Spool) -> int:
    return (spool.folder / f"{spool.segment}-wal").stat().st_size


def test_a_checkpointed_log_is_written_over_from_its_start(spool: Spool) -> None:
    write(spool, 100)
    db = beside(spool)
    size = log_size(spool)
    assert run_checkpoint(db)
    write(spool, 80)
    assert log_size(spool) == size
    db.close()


def test_a_reader_puts_it_off_and_does_not_hold_up_the_writer(spool: Spool) -> None:
    """Whoever reads what is in the log still needs it there."""
    write(spool, 100)
    db, reader = beside(spool), beside(spool)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM rows").fetchone()
    write(spool, 100)
    assert not run_checkpoint(db)
    began = time.monotonic()
    write(spool, 10)
    assert time.monotonic() - began < 2
    assert reader.execute("SELECT count(*) FROM rows").fetchone() == (100,)
    reader.execute("COMMIT")
    size = log_size(spool)
    assert run_checkpoint(db)
    write(spool, 100)
    assert log_size(spool) == size
    assert len(check(spool.folder)) == 310
    for connection in (db, reader):
        connection.close()


def test_a_commit_under_way_puts_it_off(spool: Spool) -> None:
    write(spool, 100)
    db, writing = beside(spool), beside(spool)
    writing.execute("BEGIN IMMEDIATE")
    assert not run_checkpoint(db)
    writing.execute("ROLLBACK")
    assert run_checkpoint(db)
    for connection in (db, writing):
        connection.close()


@pytest.mark.slow
def test_a_writer_that_never_rests_does_not_keep_the_log_growing(spool: Spool) -> None:
    """Without a pause between its commits one of them always comes while the checkpoint runs."""
    deadline = time.monotonic() + 30
    put, size = 0, 0
    while put < 4 * FROM_BYTES or put < 2 * size:
        write(spool, 50, 40_000)
        put += 50 * 40_000
        size = log_size(spool)
        assert time.monotonic() < deadline, f"{put} bytes put, the log has {size}"
