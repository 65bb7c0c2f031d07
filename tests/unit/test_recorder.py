"""The writing loop: retries, cuts, the last row, statistics."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mexc_pipeline.collector import recorder as module
from mexc_pipeline.collector.inbox import Inbox
from mexc_pipeline.collector.recorder import Recorder
from mexc_pipeline.collector.statistics import Statistics
from mexc_pipeline.periods import DAY_NS, HOUR_NS, Period
from mexc_pipeline.rows import Columns, Frame
from mexc_pipeline.spool.lifecycle import mark_exported
from mexc_pipeline.spool.writer import Spool
from support.spooled import check, read_rows
from support.waiting import until


class Rig:
    """A recorder on its thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox = Inbox()
        self.statistics = Statistics()
        self.spool = Spool(folder, "btc", "BTC_USDT", Period(DAY_NS))
        self.recorder = Recorder(self.spool, self.inbox, self.statistics, HOUR_NS)
        self.thread = threading.Thread(target=self.recorder.run)
        self.thread.start()

    def put(self, *texts: bytes) -> None:
        self.inbox.put([Frame(time.time_ns(), None, 1, text) for text in texts])

    def texts(self) -> list[bytes]:
        return [r.m for r in read_rows(self.folder)]

    def end(self) -> None:
        self.inbox.close()
        self.recorder.give_up()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.spool.close()

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
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "IDLE_S", 0.01)
    rig = Rig(tmp_path)
    yield rig
    rig.end()


def test_everything_is_committed_and_stopped_is_last(rig: Rig) -> None:
    for n in range(20):
        rig.put(*(b"%d-%d" % (n, k) for k in range(n)))
    rig.inbox.close()
    rig.thread.join(10)
    sent = [b"%d-%d" % (n, k) for n in range(20) for k in range(n)]
    assert rig.texts() == [*sent, b'{"event":"stopped"}']
    assert rig.statistics.snapshot()["rows"] == {"t": len(sent), "d": 0, "dp": 0, "dl": 0, "ev": 1, "r": 0}
    assert rig.statistics.snapshot()["bytes"]["t"] == sum(map(len, sent))
    assert rig.recorder.lost == 0


@pytest.mark.parametrize("error", [sqlite3.OperationalError("database or disk is full"), OSError(5, "I/O error")])
def test_a_refusing_disk_is_tried_again_until_it_takes_them(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    repair = rig.failing(monkeypatch, "append", error)
    rig.put(b"1", b"2")
    until(lambda: rig.recorder.trouble, 40, "trouble that is said")
    rig.put(b"3")
    beat = rig.recorder.beat
    until(lambda: rig.recorder.beat > beat, 40, "a sign of life while waiting")
    assert rig.texts() == []
    repair()
    until(lambda: len(rig.texts()) == 3, 40)
    assert rig.texts() == [b"1", b"2", b"3"]
    until(lambda: rig.recorder.trouble is None, 40)


def test_what_cannot_be_committed_at_the_end_is_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.failing(monkeypatch, "append", OSError(28, "No space left on device"))
    rig.put(b"1", b"2")
    until(lambda: rig.recorder.trouble, 40)
    rig.inbox.close()
    rig.recorder.give_up()
    rig.thread.join(5)
    assert not rig.thread.is_alive()
    assert rig.recorder.lost == 2


def test_a_cut_comes_after_all_that_was_received(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    repair = rig.failing(monkeypatch, "tick", OSError(5, "I/O error"))
    until(lambda: rig.recorder.trouble, 40)
    rig.put(b"1")
    rig.put(b"2")
    cuts: list[Any] = []
    askers = [threading.Thread(target=lambda: cuts.append(rig.recorder.cut(10))) for _ in range(2)]
    for asker in askers:
        asker.start()
    until(lambda: len(rig.recorder._cuts) == 2, 40)
    repair()
    for asker in askers:
        asker.join(10)
    assert cuts[0] == cuts[1]
    assert cuts[0].rows == 3
    rows = check(rig.folder)
    assert [r.m for r in rows][:2] == [b"1", b"2"]
    assert rig.recorder.cut(10) is None


def test_proven_segments_are_pruned(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.put(b"1")
    until(rig.texts, 40)
    cut = rig.recorder.cut(10)
    assert cut is not None
    rig.put(b"2")
    until(lambda: len(rig.texts()) == 3, 40)
    mark_exported(cut.path, {"at_ns": time.time_ns() - 2 * HOUR_NS})
    rig.recorder._next_prune = 0.0
    until(lambda: not cut.path.exists(), 40, "the pruned segment")
    assert rig.texts() == [b"2"]


def test_statistics_of_no_rows_are_none() -> None:
    statistics = Statistics()
    assert statistics.snapshot()["delay_ms"] is None
    rx = 1_700_000_000_123_000_000
    statistics.committed(Columns([1, 2], [rx, rx], [5, rx // 10**6 - 40], [5, 1], [b"a", b"bb"]), rx + 2_000_000)
    found = statistics.snapshot()
    assert found["durable_ms"] == {"p50": 2.0, "p99": 2.0}
    assert found["delay_ms"] == {"p50": 40.0, "p99": 40.0}
    assert (found["rows"]["ev"], found["bytes"]["t"]) == (1, 2)
