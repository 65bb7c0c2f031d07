"""The writing loop: retries, cuts, the last row, statistics."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.collector.inbox import Inbox, Mark
from mexc_pipeline.collector.recorder import Recorder, Timing
from mexc_pipeline.collector.statistics import Statistics
from mexc_pipeline.errors import UserError
from mexc_pipeline.periods import DAY_NS, HOUR_NS, SECOND_NS, Period
from mexc_pipeline.rows import MT_CODES, Columns, Frame
from mexc_pipeline.spool.lifecycle import mark_exported
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.pending import Pending
from mexc_pipeline.spool.writer import Spool
from support.spooled import check, read_rows, read_segments
from support.waiting import until

T0 = 2_000_001_600 * SECOND_NS


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A spool folder, which has its symbol's name."""
    (tmp_path / "btc").mkdir()
    return tmp_path / "btc"


QUICK = Timing(idle_s=0.01, retry_s=0.01)


class Rig:
    """A recorder on its thread; ``now`` is its clock where it is set, trusted or not."""

    def __init__(
        self, folder: Path, period_ns: int = DAY_NS, keep_ns: int = HOUR_NS, timing: Timing = QUICK, **told: Any
    ) -> None:
        self.folder = folder
        self.now: int | None = None
        self.trusted = True
        self.asked = 0  # how often whether it is trusted
        self.inbox = Inbox(clock=lambda: time.time_ns() if self.now is None else self.now)
        self.statistics = Statistics()
        self.spool = Spool(folder, "btc", "BTC_USDT", Period(period_ns))
        self.lock = SpoolLock(folder).__enter__()
        pending = Pending(folder, "BTC_USDT")
        self.recorder = Recorder(
            pending, self.inbox, self.statistics, keep_ns, self.lock.keep, self._trusted_ns, timing=timing, **told
        )
        self.recorder.number(self.spool)
        self.thread = threading.Thread(target=self.recorder.run)
        self.thread.start()
        until(lambda: not (folder / "pending.db").exists(), 20)

    def _trusted_ns(self) -> int | None:
        self.asked += 1
        return self.inbox.clock() if self.trusted else None

    def put(self, *texts: bytes) -> None:
        self.inbox.put([(1, text) for text in texts])

    def texts(self) -> list[bytes]:
        return [r.m for r in read_rows(self.folder)]

    def end(self) -> None:
        self.inbox.close()
        self.recorder.give_up()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.spool.close()
        self.lock.__exit__()

    def failing(self, patch: pytest.MonkeyPatch, name: str, error: Exception) -> Callable[[], None]:
        """Let a method of the spool fail until the returned function is called."""
        real, broken = getattr(self.spool, name), threading.Event()
        broken.set()

        def method(*args: Any) -> Any:
            if broken.is_set():
                raise error
            return real(*args)

        patch.setattr(self.spool, name, method)
        return broken.clear


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.end()


def test_everything_is_committed_and_stopped_is_last(rig: Rig) -> None:
    for n in range(20):
        rig.put(*(b"%d-%d" % (n, k) for k in range(n)))
    rig.inbox.close((5, b'{"event":"stopped"}'))
    rig.thread.join(10)
    sent = [b"%d-%d" % (n, k) for n in range(20) for k in range(n)]
    assert rig.texts() == [*sent, b'{"event":"stopped"}']
    assert rig.statistics.snapshot()["rows"] == dict.fromkeys(MT_CODES, 0) | {"t": len(sent), "ev": 1}
    assert rig.statistics.snapshot()["bytes"]["t"] == sum(map(len, sent))
    assert rig.recorder.lost == 0


def test_a_contract_that_is_pushed_takes_the_place_of_what_was_asked_for(tmp_path: Path) -> None:
    """The next segment began with what the contract had been before."""
    mine: Rig = Rig(tmp_path, contract_pushed=lambda m: mine.recorder.specify(m.strip(b"<>")))

    def told() -> list[list[bytes]]:
        return [[r.m for r in s.rows if r.mt != 5] for s in read_segments(mine.folder)]

    try:
        mine.recorder.specify(b"A")
        mine.put(b"1")
        until(lambda: mine.texts() == [b"1", b"A"], 40)
        mine.inbox.put([(11, b"<B>"), (1, b"2"), (11, b"<C>")])
        until(lambda: mine.texts()[-1:] == [b"C"], 40)
        mine.recorder.cut(40)
        mine.put(b"3")
        until(lambda: len(told()) == 2 and told()[-1] == [b"3", b"C"], 40)
        assert told()[0] == [b"1", b"A", b"<B>", b"2", b"<C>", b"C"]
    finally:
        mine.end()


def test_what_becomes_known_of_the_contract_is_a_row_at_once_and_by_itself_none(rig: Rig) -> None:
    rig.recorder.specify(b"A")
    rig.put(b"1")
    until(lambda: len(rig.texts()) == 2, 40)
    assert not list(rig.folder.glob("*.part*")), "one segment, which the row began"
    rig.recorder.specify(b"B")
    until(lambda: len(rig.texts()) == 3, 40, "a row of it, while nothing else comes")
    rig.recorder.specify(None)
    rig.put(b"2")
    until(lambda: len(rig.texts()) == 4, 40)
    assert [(r.mt, r.m) for r in check(rig.folder)] == [(1, b"1"), (11, b"A"), (11, b"B"), (1, b"2")]
    until(lambda: rig.statistics.snapshot()["rows"]["c"] == 2, 40, "the count of both")


@pytest.mark.parametrize("error", [sqlite3.OperationalError("database or disk is full"), OSError(5, "I/O error")])
def test_a_refusing_disk_is_tried_again_until_it_takes_them(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    repair = rig.failing(monkeypatch, "append", error)
    rig.put(b"1", b"2")
    until(lambda: rig.recorder.state.trouble, 40, "trouble that is said")
    rig.put(b"3")
    beat = rig.recorder.beat
    until(lambda: rig.recorder.beat > beat, 40, "a sign of life while waiting")
    assert rig.texts() == []
    repair()
    until(lambda: len(rig.texts()) == 3, 40)
    assert rig.texts() == [b"1", b"2", b"3"]
    until(lambda: rig.recorder.state.trouble is None, 40)


def test_what_cannot_be_committed_at_the_end_is_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.failing(monkeypatch, "append", OSError(28, "No space left on device"))
    rig.put(b"1", b"2")
    until(lambda: rig.recorder.state.trouble, 40)
    rig.inbox.close()
    rig.recorder.give_up()
    rig.thread.join(5)
    assert not rig.thread.is_alive()
    assert rig.recorder.lost == 2


def test_a_cut_comes_after_all_that_was_received(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    repair = rig.failing(monkeypatch, "append", OSError(5, "I/O error"))
    rig.put(b"1")
    until(lambda: rig.recorder.state.trouble, 40)
    rig.put(b"2")
    cuts: list[Any] = []
    asker = threading.Thread(target=lambda: cuts.append(rig.recorder.cut(20)))
    asker.start()
    until(lambda: any(isinstance(item, Mark) for item in list_of(rig.inbox)), 40, "the mark in the queue")
    rig.put(b"3")
    repair()
    asker.join(20)
    assert cuts[0].rows == 3
    until(lambda: len(rig.texts()) == 4, 40)
    assert [[r.m for r in s.rows][:2] for s in read_segments(rig.folder)] == [[b"1", b"2"], [b"3"]]
    check(rig.folder)
    assert rig.recorder.cut(10).rows == 2  # type: ignore[union-attr]
    assert rig.recorder.cut(10) is None
    rig.inbox.close()
    with pytest.raises(UserError, match="ending"):
        rig.recorder.cut(10)


def list_of(inbox: Inbox) -> list[object]:
    """What is queued, in any order; only while nobody takes."""
    items: list[object] = []
    while not inbox._queue.empty():
        items.append(inbox._queue.get_nowait())
    for item in items:
        inbox._queue.put(item)  # type: ignore[arg-type]
    return items


@pytest.mark.parametrize("how", ["refused", "slow"])
@pytest.mark.parametrize("end", ["edge", "cut", "quiet edge"])
def test_however_late_the_commit_rows_keep_their_time_and_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, end: str
) -> None:
    """What was received before a period's edge, or before a cut, is committed after it: the disk refused, or was slow,
    across it."""
    rig = Rig(tmp_path, 10 * SECOND_NS)
    try:
        rig.now = T0
        rig.put(b"0")
        until(rig.texts, 40)
        real, entered, go = rig.spool.append, threading.Event(), threading.Event()

        def append(frames: list[Frame]) -> Columns:
            entered.set()
            if how == "slow":
                assert go.wait(40)
            elif not go.is_set():
                raise sqlite3.OperationalError("database or disk is full")
            return real(frames)

        monkeypatch.setattr(rig.spool, "append", append)
        rig.now = edge = T0 + 10 * SECOND_NS
        rig.now -= 2
        rig.put(b"1")
        assert entered.wait(40)
        rig.now += 1
        rig.put(b"2")
        cut: list[Any] = []
        asker = threading.Thread(target=lambda: cut.append(rig.recorder.cut(40)))
        if end == "cut":
            asker.start()
            until(lambda: any(isinstance(item, Mark) for item in list_of(rig.inbox)), 40, "the mark in the queue")
        rig.now = edge + 3 * SECOND_NS
        if end == "edge":
            rig.put(b"3")
        go.set()
        until(lambda: read_segments(tmp_path)[0].meta["state"] == "closed", 40, "a closed segment")
        if end != "edge":
            rig.put(b"3")
        until(lambda: len(rig.texts()) == 5, 40)
        rows = {r.m: r.rx - T0 for r in check(tmp_path) if r.mt == 1}
        assert rows == {b"0": 0, b"1": 10 * SECOND_NS - 2, b"2": 10 * SECOND_NS - 1, b"3": 13 * SECOND_NS}
        assert [[r.m for r in s.rows if r.mt == 1] for s in read_segments(tmp_path)] == [[b"0", b"1", b"2"], [b"3"]]
        if end == "cut":
            asker.join(20)
            assert cut[0].rows == 4
    finally:
        rig.end()


def test_a_quiet_segment_ends_by_the_true_clock(tmp_path: Path) -> None:
    """The clock was a year ahead and is set right: nothing waits for that year."""
    rig = Rig(tmp_path, 10 * SECOND_NS)
    try:
        rig.now = T0 + 365 * DAY_NS
        rig.put(b"ahead")
        until(rig.texts, 40)
        rig.now = T0
        rig.put(b"true")
        until(lambda: len(rig.texts()) == 4, 40)
        rig.now = T0 + 10 * SECOND_NS
        until(lambda: [s.meta["state"] for s in read_segments(tmp_path)] == ["closed", "closed"], 40)
        check(tmp_path)
    finally:
        rig.end()


def test_proven_segments_are_pruned_by_a_clock_that_is_trusted(tmp_path: Path) -> None:
    rig = Rig(tmp_path, keep_ns=0, timing=replace(QUICK, prune_s=0.0))
    rig.put(b"1")
    until(rig.texts, 40)
    cut = rig.recorder.cut(10)
    assert cut is not None
    rig.put(b"2")
    until(lambda: len(rig.texts()) == 3, 40)
    rig.trusted = False
    asked = rig.asked
    until(lambda: rig.asked > asked + 1, 40, "a turn of the loop that began with a suspect clock")
    mark_exported(cut.path, {"at_ns": time.time_ns()})
    asked = rig.asked
    until(lambda: rig.asked > asked + 3, 40, "turns of the loop in which it would be pruned")
    assert cut.path.exists(), "not while the clock is suspect"
    rig.trusted = True
    until(lambda: not cut.path.exists(), 40, "the pruned segment")
    assert rig.texts() == [b"2"]
    rig.end()


def test_statistics_of_no_rows_are_none() -> None:
    statistics = Statistics()
    assert statistics.snapshot()["delay_ms"] is None
    rx = 1_700_000_000_123_000_000
    statistics.committed(Columns([1, 2], [rx, rx], [5, rx // 10**6 - 40], [5, 1], [b"a", b"bb"]), rx + 2_000_000)
    found = statistics.snapshot()
    assert found["durable_ms"] == {"p50": 2.0, "p99": 2.0}
    assert found["delay_ms"] == {"p50": 40.0, "p99": 40.0}
    assert (found["rows"]["ev"], found["bytes"]["t"]) == (1, 2)


def test_the_delay_is_that_of_frames_that_are_never_old() -> None:
    """The first index price after a subscription may be one of long ago."""
    statistics = Statistics()
    rx = 1_700_000_000_123_000_000
    ts = rx // 10**6
    rows = Columns([1, 2, 3], [rx] * 3, [ts - 40, ts - 600_000, ts], [3, 8, 5], [b"a", b"b", b"c"])
    statistics.committed(rows, rx + 2_000_000)
    statistics.committed(Columns([4], [rx], [ts - 600_000], [7], [b"f"]), rx + 2_000_000)
    assert statistics.snapshot()["delay_ms"] == {"p50": 40.0, "p99": 40.0}
