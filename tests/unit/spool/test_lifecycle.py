"""Sealing what was left open, marking as exported, pruning; and the log kept small beside the writer."""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.periods import DAY_NS, SECOND_NS, Period
from mexc_pipeline.rows import MT_CODES, Frame, Mt
from mexc_pipeline.spool import checkpoint, lifecycle
from mexc_pipeline.spool.lifecycle import mark_exported, proven_at, prune, seal_left_open
from mexc_pipeline.spool.segment import SegmentInfo, info
from mexc_pipeline.spool.writer import Spool
from support.spooled import check, read_segments
from support.spools import event
from support.waiting import until

T0 = 2_000_001_600 * SECOND_NS
PERIOD = Period(10 * SECOND_NS)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A spool folder, which has its symbol's name."""
    (tmp_path / "btc").mkdir()
    return tmp_path / "btc"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A spool with one closed segment and an open one of three rows."""
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD)
    spool.append([Frame(T0, 5, 1, b"1"), Frame(T0 + 1, None, Mt.EVENT, event("gap", channel="push.depth"))])
    spool.tick(T0 + 10 * SECOND_NS)
    spool.append([Frame(T0 + 11 * SECOND_NS, 5, mt, b"abc") for mt in (2, 3, 4)])
    spool.close()
    return tmp_path


def test_what_a_closed_segment_says_of_itself(folder: Path) -> None:
    found = info(folder / read_segments(folder)[0].file)
    assert found.counts == dict.fromkeys(MT_CODES, 0) | {"t": 1, "ev": 2}
    assert (found.rows, found.gaps, found.first_seq, found.last_seq) == (3, 1, 1, 3)
    assert found.bytes == sum(len(r.m) for r in read_segments(folder)[0].rows)
    check(folder)


def test_only_what_has_ended_is_sealed(folder: Path) -> None:
    edge = T0 + 20 * SECOND_NS
    assert seal_left_open(folder, edge - 1) == []
    (sealed,) = seal_left_open(folder, edge)
    assert (sealed.state, sealed.cut, sealed.last_seq) == ("closed", False, 7)
    assert check(folder)[-1].rx == edge - 1
    assert seal_left_open(folder, edge) == []


def test_a_cut_ends_the_running_period_too(folder: Path) -> None:
    (sealed,) = seal_left_open(folder, T0 + 12 * SECOND_NS, cut=True)
    assert sealed.cut
    assert sealed.file.endswith(".part1.parquet")
    assert check(folder)[-1].rx == T0 + 12 * SECOND_NS - 1


def test_a_cut_before_the_newest_row_does_not_go_back(folder: Path) -> None:
    (sealed,) = seal_left_open(folder, T0, cut=True)
    assert sealed.cut
    assert check(folder)[-1].rx == T0 + 11 * SECOND_NS


def test_one_that_cannot_be_read_hinders_no_other(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "2033051700.sqlite").write_bytes(b"broken" * 500)
    with caplog.at_level(logging.ERROR):
        assert len(seal_left_open(folder, T0 + 20 * SECOND_NS)) == 1
    assert "segment cannot be closed" in caplog.text


def test_only_proven_and_old_segments_are_pruned_and_never_the_newest(folder: Path) -> None:
    seal_left_open(folder, T0 + 20 * SECOND_NS)
    first, second = (folder / s.file for s in read_segments(folder))
    now = T0 + 3600 * SECOND_NS
    assert prune(folder, now, 0) == []
    for path in (first, second):
        mark_exported(path, {"at_ns": now, "rows": 3})
    assert info(first).state == "exported"
    assert info(first).exported == {"at_ns": now, "rows": 3}
    assert prune(folder, now + 9, 10) == []
    assert prune(folder, now + 10, 10) == [first]
    assert prune(folder, now + 10**18, 10) == []
    assert [s.file for s in read_segments(folder)] == [second.name]
    assert not list(folder.glob(f"{first.name}*"))


@pytest.mark.parametrize(
    ("said", "proven"),
    [
        ([], []),
        ([5, 6, 7], [5, 6, 7]),
        ([5, 999, 7], [5, 7, 7]),  # written by a clock that was ahead
        ([5, 1, 7], [5, 5, 7]),  # by one that was behind
        ([999, 999, 7, 8], [7, 7, 7, 8]),
        ([5, 999, 999], [5, None, None]),
        ([999, 999], [None, None]),
    ],
)
def test_when_a_segment_was_proven_by_whatever_clock(said: list[int], proven: list[int | None]) -> None:
    assert proven_at(said, 100) == proven


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 200)), max_size=8), st.integers(0, 60))
def test_by_a_clock_that_was_ahead_none_looks_older_than_it_is(exports: list[tuple[int, int]], later: int) -> None:
    """Segments are proven one after the other, some while the clock is ahead; now it is right."""
    true: list[int] = []
    for gap, _ in exports:
        true.append(gap + (true[-1] if true else 0))
    said = [at + error for at, (_, error) in zip(true, exports, strict=True)]
    now = (true[-1] if true else 0) + later
    for at, own in zip(proven_at(said, now), true, strict=True):
        assert at is None or at >= own
    assert proven_at(true, now) == true


def test_what_was_proven_by_a_clock_that_was_behind_is_not_old(tmp_path: Path) -> None:
    """Nothing before it tells; the exchange's time on its frames does."""
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD)
    behind = 86_400 * SECOND_NS
    for n in range(2):
        spool.append([Frame(T0 - behind + n * SECOND_NS, T0 // 1_000_000 + n, 1, b"1")])
        spool.cut(T0 - behind + n * SECOND_NS + 1)
    spool.close()
    first, _ = (tmp_path / s.file for s in read_segments(tmp_path))
    mark_exported(first, {"at_ns": T0 - behind, "rows": 2})
    assert prune(tmp_path, T0 + 3600 * SECOND_NS, 7200 * SECOND_NS) == []
    assert prune(tmp_path, T0 + 7200 * SECOND_NS, 7200 * SECOND_NS) == [first]


def test_the_log_is_checkpointed_beside_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.02)
    monkeypatch.setattr(checkpoint, "FROM_BYTES", 256 << 10)
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD)
    try:
        spool.append([Frame(T0, 5, 1, b"x" * 4000)])
        path = tmp_path / str(spool.segment)
        wal = path.with_name(path.name + "-wal")

        def checkpointed() -> bool:
            spool.append([Frame(T0, 5, 1, b"x" * 4000) for _ in range(20)])
            return path.stat().st_size > 2 << 20

        until(checkpointed, 10, "a checkpointed log")
        assert wal.stat().st_size < path.stat().st_size, "its space is used again"
        spool.cut(T0 + 1)
        assert not wal.exists() or wal.stat().st_size == 0
    finally:
        spool.close()
    check(tmp_path)


def test_a_log_is_checkpointed_once_for_each_time_it_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpointed = threading.Semaphore(0)
    looks = threading.Semaphore(0)

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            looks.release()
            return super().wait(0.001)

    class Database:
        def close(self) -> None: ...

    done = iter([False, True, True])  # the first time somebody was in the way

    def run_checkpoint(_: object) -> bool:
        checkpointed.release()
        return next(done)

    monkeypatch.setattr(threading, "Event", Stop)
    monkeypatch.setattr(checkpoint, "connect", lambda *_, **__: Database())
    monkeypatch.setattr(checkpoint, "run_checkpoint", run_checkpoint)
    path = tmp_path / "2026112210.sqlite"
    path.with_name(path.name + "-wal").write_bytes(bytes(checkpoint.FROM_BYTES))
    checkpointer = checkpoint.Checkpointer()
    try:
        checkpointer.watch(path)
        assert checkpointed.acquire(timeout=10), "what a crash left is checkpointed at once"
        assert checkpointed.acquire(timeout=10), "and once more, because it could not be to the end"
        checkpointer.grown(100)
        for _ in range(20 + looks._value):
            assert looks.acquire(timeout=10)
        assert not checkpointed.acquire(blocking=False), "the file is still large, but nothing is left in it"
        checkpointer.grown(checkpoint.FROM_BYTES)
        assert checkpointed.acquire(timeout=10)
    finally:
        checkpointer.close()


def test_a_segment_that_cannot_be_pruned_keeps_neither_others_nor_its_recording(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A recorder prunes between two commits: once it tried that one again and again, and committed nothing."""
    spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0)
    for n in range(3):
        spool.append([Frame(T0 + n * 10 * SECOND_NS + i, 5, 1, b"x" * 100) for i in range(500)])
        spool.tick(T0 + (n + 1) * 10 * SECOND_NS)
    oldest, second, _ = sorted(tmp_path.glob("*.sqlite"))
    for path in (oldest, second):
        mark_exported(path, {"at_ns": T0})
    data = bytearray(oldest.read_bytes())
    pages = [at for at in range(4096, len(data), 4096) if data[at] == 0x0D and data[at + 8 :].count(b"x" * 100) > 2]
    for at in pages[1:-1]:  # it says all of itself, and its first and last rows can be read
        data[at : at + 4096] = bytes(4096)
    oldest.write_bytes(data)
    assert info(oldest).state == "exported"
    assert spool.prune(T0 + 400 * DAY_NS, 0) == [second]
    assert "segment cannot be pruned" in caplog.text
    spool.append([Frame(T0 + 40 * SECOND_NS, 5, 1, b"1")])
    spool.close()


def test_a_segment_that_cannot_be_sealed_keeps_no_other_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        spool = Spool(tmp_path, "btc", "BTC_USDT", PERIOD, next_rx=T0 + n * 10 * SECOND_NS)
        spool.append([Frame(T0 + n * 10 * SECOND_NS, 5, 1, b"1")])
        spool.close()
        for path in tmp_path.glob("*.sqlite"):
            path.rename(path.with_suffix(".away"))
    for path in tmp_path.glob("*.away"):
        path.rename(path.with_suffix(".sqlite"))
    first, second, third = sorted(tmp_path.glob("*.sqlite"))
    real = lifecycle.seal

    def refused(db: sqlite3.Connection, path: Path, *args: Any, **more: Any) -> SegmentInfo:
        if path == first:
            raise io_error
        if path == second:
            raise sqlite3.DatabaseError("file is not a database")
        return real(db, path, *args, **more)

    io_error = sqlite3.OperationalError("disk I/O error")
    io_error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    monkeypatch.setattr(lifecycle, "seal", refused)
    with pytest.raises(sqlite3.Error):
        seal_left_open(tmp_path, T0 + 90 * SECOND_NS)
    assert [info(path).state for path in (first, second, third)] == ["open", "open", "closed"]
