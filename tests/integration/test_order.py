"""Whatever happened to periods, parts and processes: the order is that of the rows, everywhere."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mexc_pipeline import read
from mexc_pipeline.collector.inbox import Inbox
from mexc_pipeline.config import Config
from mexc_pipeline.export.job import run
from mexc_pipeline.export.newest import newest_seq
from mexc_pipeline.export.parquet import Content
from mexc_pipeline.periods import Period
from mexc_pipeline.rows import Mt
from mexc_pipeline.run.account import Periods
from mexc_pipeline.spool.names import FileName
from mexc_pipeline.spool.walk import in_order
from mexc_pipeline.spool.writer import Spool, last_rx
from mexc_pipeline.verify import by_hour, exports, ledger
from mexc_pipeline.verify.exports import FileProof, continuity
from support.spools import SECOND, T0, configure

DAY_S = 86_400
YEAR_S = 365 * DAY_S
PERIODS_S = (2, 10, 60, 120, 3600, 7200)
CLOCK_STEPS_S = (-400 * DAY_S, -86_400, -8 * 3600, -61, -59, -1, 59, 3600, 400 * DAY_S, 95 * YEAR_S)
BOOK = (
    '{"symbol":"BTC_USDT","data":{"asks":[[%d,1,1]],"bids":[[1,1,1]],"version":%d},'
    '"channel":"push.depth.full","ts":1789498322169}'
)


@dataclass
class Recording:
    """A symbol that is recorded by the real writer at times that the test chooses, and what must come of it."""

    config: Config
    now: int = T0
    rows: list[tuple[int, int]] = field(default_factory=list)
    """(seq, rx) of every frame."""
    frames: int = 0

    def __post_init__(self) -> None:
        self.spool = self._open()

    @property
    def folder(self) -> Path:
        return self.config.spool_dir / "btc"

    def _open(self) -> Spool:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.inbox = Inbox(clock=lambda: self.now)
        self.inbox.follow(last_rx(self.folder))
        with self.inbox.lock:
            began = self.inbox.stamp()
        names = [path.name for path in self.config.export_dir.glob("*.parquet")]
        return Spool(self.folder, "btc", "BTC_USDT", self.config.period, exports=names, next_rx=began)

    def record(self, count: int, step_ms: int) -> None:
        """So many frames, so far apart."""
        for _ in range(count):
            self.now += step_ms * 1_000_000
            self.frames += 1
            self.inbox.note(Mt.DEPTH, (BOOK % ((self.frames,) * 2)).encode())
        self._commit()

    def _commit(self) -> int:
        """What is in the inbox; the mark at which it ends."""
        self.inbox.mark()
        frames, mark = self.inbox.take(0, 1 << 30)
        while frames:
            block = self.spool.append(frames)
            self.rows += [(s, rx) for s, rx, mt in zip(block.seq, block.rx, block.mt, strict=True) if mt == Mt.DEPTH]
            frames = frames[len(block) :]
        assert mark is not None
        return mark.rx

    def rest(self, seconds: int) -> None:
        """Nothing comes for a while."""
        self.now += seconds * SECOND
        if self.spool.edge is not None and self.now >= self.spool.edge:
            self.spool.tick(self._commit())

    def step(self, seconds: int) -> None:
        """The clock is set."""
        self.now += seconds * SECOND

    def cut(self, _: int) -> None:
        self.spool.cut(self._commit())

    def restart(self, length_s: int) -> None:
        """Another process, with periods of another length."""
        self.spool.close()
        self.config = replace(self.config, period=Period(length_s * SECOND))
        self.spool = self._open()

    def export(self, _: int) -> None:
        """What is closed becomes files, and leaves the spool but for the newest."""
        report = run(self.config, now_ns=lambda: 0)  # closes nothing: its collector runs
        assert report.ok, report.failures
        self.spool.prune(1 << 62, 0)

    def finish(self) -> None:
        self.cut(0)
        self.spool.close()
        report = run(self.config, now_ns=lambda: 0)
        assert report.ok, report.failures

    def last_seq_at(self, instant: int) -> int:
        """The book's row at an instant: the last in the order of the recording that is not later."""
        return max((seq for seq, rx in self.rows if rx <= instant), default=0)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], Recording]]:
    made: list[Recording] = []

    def make() -> Recording:
        made.append(Recording(configure(Path(tempfile.mkdtemp(dir=tmp_path)))))
        return made[-1]

    yield make
    for recording in made:
        recording.spool.close()


def check(recording: Recording) -> None:
    """All that reads agrees with what was recorded."""
    config = recording.config
    seqs = [seq for seq, _ in recording.rows]
    segments = in_order(recording.folder)
    assert not segments.unreadable
    assert [s.first_seq for s in segments.readable] == sorted(s.first_seq for s in segments.readable)
    assert newest_seq(config.export_dir, "btc") == (recording.spool.last_seq, [])
    proven = exports(config, newest=0, now_ns=recording.now)
    assert proven.ok, proven.lines()
    entries = ledger(config, {})
    assert [e.first_seq for e in entries] == [1, *(e.last_seq + 1 for e in entries[:-1])]
    assert {e.verdict for e in entries} == {"proven"}
    hours = [hour for hour in by_hour(config, entries, 0) if hour.files]
    assert [f.file for hour in hours for f in hour.files] == [e.file for e in entries]
    assert not sum(hour.seq_missing + hour.seq_repeated for hour in hours)
    ours = [s.first_seq for s in Periods.begin(config).ours()]
    assert ours == sorted(ours)
    df = read.frames("btc", export_dir=config.export_dir, types=["dp"])
    assert [int(seq) for seq in df.seq] == seqs
    assert [rx.value for rx in df.rx] == [rx for _, rx in recording.rows]
    back = [seq for (_, a), (seq, b) in zip(recording.rows, recording.rows[1:], strict=False) if b < a]
    assert df.attrs["set_back"] == back
    middle = recording.rows[len(recording.rows) // 2][1]
    for instant in {
        recording.rows[0][1],
        middle,
        middle + 1,
        recording.rows[-1][1],
        max(rx for _, rx in recording.rows),
    }:
        # Integers of 1970, where a clock may have been, are refused for being of another unit.
        book = read.book("btc", at=np.datetime64(instant, "ns"), export_dir=config.export_dir)
        assert int(book.seq[0]) == recording.last_seq_at(instant)
    start, end = np.datetime64(middle, "ns"), np.datetime64(middle + 30 * SECOND, "ns")
    stretch = read.frames("btc", start, end, export_dir=config.export_dir, types=["dp"])
    assert [int(s) for s in stretch.seq] == [s for s, rx in recording.rows if middle <= rx < middle + 30 * SECOND]


NUMBER = st.integers(1, 6)
STEPS = st.one_of(
    st.tuples(st.just("record"), NUMBER, st.sampled_from([1, 700, 15_000])),
    st.tuples(st.just("rest"), st.sampled_from([1, 12, 70, 4000])),
    st.tuples(st.just("cut"), st.just(0)),
    st.tuples(st.just("restart"), st.sampled_from(PERIODS_S)),
    st.tuples(st.just("export"), st.just(0)),
    st.tuples(st.just("step"), st.sampled_from(CLOCK_STEPS_S)),
)


@pytest.mark.filterwarnings("ignore:the recorder's clock was set back")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(steps=3 * [("step", max(CLOCK_STEPS_S))])  # to the last instant that files can hold
@given(steps=st.lists(STEPS, min_size=1, max_size=14))
def test_any_course_of_periods_cuts_restarts_and_clocks_is_read_in_the_order_of_recording(
    fresh: Callable[[], Recording], steps: list[tuple[str, int]]
) -> None:
    recording = fresh()
    recording.record(1, 1)
    for name, *arguments in steps:
        getattr(recording, name)(*arguments)
    recording.record(2, 300)
    recording.finish()
    check(recording)
    shutil.rmtree(recording.config.export_dir.parent)


@pytest.mark.parametrize(("before", "after"), [(10, 60), (60, 120), (3600, 7200), (60, 10), (7200, 3600)])
def test_a_period_made_longer_or_shorter(fresh: Callable[[], Recording], before: int, after: int) -> None:
    """A longer period's file has the name of an earlier time than the files before it."""
    recording = fresh()
    recording.restart(before)
    recording.rest(before + 1)
    for _ in range(3):
        recording.record(4, before * 200)
        recording.rest(before)
    recording.restart(after)
    for _ in range(2):
        recording.record(4, after * 200)
        recording.rest(after)
    recording.record(1, 1)
    recording.finish()
    check(recording)


AHEAD_S = (61, 3600, 8 * 3600, 30 * DAY_S, 400 * DAY_S, 95 * YEAR_S, 205 * YEAR_S, 8000 * YEAR_S)
"""The last are beyond what 62 bits can hold (2116), and beyond what 64 can (2262)."""


@pytest.mark.filterwarnings("ignore:the recorder's clock was set back")
@pytest.mark.parametrize("ahead_s", [*AHEAD_S, -8 * 3600, -400 * DAY_S, -56 * YEAR_S, -57 * YEAR_S])
def test_a_clock_that_was_wrong_at_the_start(fresh: Callable[[], Recording], ahead_s: int) -> None:
    """A host that records before its clock is set: the wrong stretch is told from the true one, everywhere."""
    recording = fresh()
    recording.step(ahead_s)
    recording.record(20, 500)
    recording.restart(60)
    recording.record(20, 500)
    recording.step(-ahead_s)
    recording.record(20, 500)
    recording.export(0)
    recording.record(20, 500)
    recording.finish()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check(recording)
    assert any("clock was set back at seq" in str(w.message) for w in said) == (ahead_s > 0)
    hours = by_hour(recording.config, ledger(recording.config, {}), recording.now)
    assert all(hour.files for hour in hours) == (ahead_s > 0), "a clock that was ahead is no time without rows"


@pytest.mark.parametrize(("restarted", "spool", "ok"), [(False, "a", False), (True, "a", True), (False, "b", True)])
def test_without_a_word_rx_may_not_go_back(restarted: bool, spool: str, ok: bool) -> None:
    """From one spool to another it may: another host has a clock of its own."""
    proofs = []
    for part, of, rx, said in ((1, "a", 100, False), (2, spool, 99, restarted)):
        name = FileName("btc", T0, "20260915185200", part, plain=False)
        content = Content(first_seq=part, last_seq=part, first_rx=rx, last_rx=rx, restarted=said)
        proofs.append(FileProof(name, Path(f"part{part}"), {"spool_id": of}, content))
    (finding,) = continuity(proofs)
    assert finding.ok == ok
    assert ok or "rx goes back by 0.000 s in part2 without a clock event" in finding.text
