"""The spool's writer: whatever clocks, crashes and full disks do, rows are gapless, ordered and in their period."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mexc_pipeline.periods import HOUR_NS, SECOND_NS, Period
from mexc_pipeline.rows import Columns, Frame
from mexc_pipeline.spool import lifecycle, segment
from mexc_pipeline.spool.lifecycle import mark_exported, seal_left_open
from mexc_pipeline.spool.segment import info
from mexc_pipeline.spool.writer import Spool
from support.spooled import check, read_rows, read_segments

T0 = 2_000_001_600 * SECOND_NS - 30 * SECOND_NS  # half a minute before the edge of an hour, years ahead of any clock
PERIOD = Period(10 * SECOND_NS)
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # hundreds of spools: fsync must cost nothing


def frame(rx: int, m: bytes = b"{}", mt: int = 1, ts: int | None = 5) -> Frame:
    return Frame(rx, ts, mt, m)


def append(spool: Spool, frames: list[Frame]) -> Columns:
    """Append all frames as the recorder does."""
    rows = []
    while frames:
        block = spool.append(frames)
        assert len(block)
        rows += list(block.rows())
        frames = frames[len(block) :]
    return Columns.of(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "btc"
    folder.mkdir()
    return folder


@pytest.fixture
def opened(folder: Path) -> Iterator[list[Spool]]:
    """Spools to be closed at the end."""
    spools: list[Spool] = []
    yield spools
    for spool in spools:
        spool.close()


def new(folder: Path, period: Period = PERIOD, **more: Any) -> Spool:
    return Spool(folder, "btc", "BTC_USDT", period, **more)


def test_rows_get_seq_and_rx_and_a_time_of_their_own(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    block = append(spool, [frame(T0, b"a"), frame(T0 - 5, b"b", ts=None), frame(T0 + 1_000_001, b"", ts=None)])
    assert block.seq == [1, 2, 3]
    assert block.rx == [T0, T0, T0 + 1_000_001]
    assert block.ts == [5, T0 // 10**6, T0 // 10**6 + 1]
    assert [tuple(r) for r in read_rows(folder)] == list(block.rows())
    assert (spool.last_seq, spool.last_rx) == (3, T0 + 1_000_001)
    assert spool.recovered.new
    assert spool.recovered.clean


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 63, 64, 65, 511, 512, 513, 1500])
def test_any_number_of_rows_a_commit(folder: Path, opened: list[Spool], count: int) -> None:
    spool = new(folder)
    opened.append(spool)
    frames = [frame(T0 + n, b"%d" % n, mt=1 + n % 5) for n in range(count)]
    assert len(spool.append(frames)) == count
    assert [(r.rx, r.m, r.mt) for r in check(folder)] == [(f.rx, f.m, f.mt) for f in frames]


def test_a_batch_over_an_edge_is_split_there(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    edge = PERIOD.end(PERIOD.start(T0))
    first = spool.append([frame(T0), frame(edge - 1), frame(edge), frame(edge + 1)])
    assert len(first) == 2
    append(spool, [frame(edge), frame(edge + 1)])
    rows = check(folder)
    assert [(r.seq, r.rx) for r in rows] == [(1, T0), (2, edge - 1), (3, edge - 1), (4, edge), (5, edge + 1)]
    sealed = read_segments(folder)[0]
    assert sealed.rows[-1].m == b'{"event":"sealed","rows":3}'
    assert sealed.meta["state"] == "closed"
    assert not sealed.meta["cut"]


def test_the_clock_steps_back_over_an_edge(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    edge = PERIOD.end(PERIOD.start(T0))
    append(spool, [frame(edge + 5)])
    append(spool, [frame(edge - 3 * HOUR_NS, b"late")])
    assert [r.rx for r in check(folder)] == [edge + 5, edge + 5]
    assert spool.tick(edge - 3 * HOUR_NS) is None


def test_nothing_joins_a_period_that_was_closed_by_the_clock(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    edge = PERIOD.end(PERIOD.start(T0))
    append(spool, [frame(T0)])
    assert spool.tick(edge - 1) is None
    sealed = spool.tick(edge)
    assert sealed is not None
    assert sealed.state == "closed"
    spool.close()
    spool = new(folder)  # also not after a restart
    opened.append(spool)
    append(spool, [frame(T0 + 1, b"the clock went back")])
    rows = check(folder)
    assert [r.rx for r in rows] == [T0, edge - 1, edge]
    assert len(read_segments(folder)) == 2


def test_the_clock_steps_forward_over_several_edges(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    append(spool, [frame(T0), frame(T0 + 5 * HOUR_NS)])
    check(folder)
    assert len(read_segments(folder)) == 2, "no segment for a period without rows"


def test_a_cut_makes_parts_and_only_the_last_is_final(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    assert spool.cut(T0) is None
    append(spool, [frame(T0)])
    one = spool.cut(T0 + 10)
    append(spool, [frame(T0 + 5)])
    two = spool.cut(T0 + 20)
    append(spool, [frame(T0 + 30)])
    edge = PERIOD.end(PERIOD.start(T0))
    three = spool.tick(edge)
    assert one is not None
    assert two is not None
    assert three is not None
    name = PERIOD.name(PERIOD.start(T0))
    assert [s.file for s in (one, two, three)] == [f"btc{name}.part{n}.parquet" for n in (1, 2, 3)]
    assert [s.final for s in (one, two, three)] == [False, False, True]
    assert [s.path.name for s in (one, two, three)] == [f"{name}{p}.sqlite" for p in ("", ".part2", ".part3")]
    rows = check(folder)
    assert [r.rx for r in rows] == [T0, T0 + 9, T0 + 9, T0 + 19, T0 + 30, edge - 1]
    assert json.loads(rows[1].m) == {"event": "sealed", "cut": True, "rows": 2}
    append(spool, [frame(edge)])
    late = spool.cut(edge + 11 * SECOND_NS)
    assert late is not None
    assert late.final, "a cut after the edge is an ordinary end"


def test_parts_go_on_after_the_files_that_exist(folder: Path, opened: list[Spool]) -> None:
    name = PERIOD.name(PERIOD.start(T0))
    other = PERIOD.name(PERIOD.end(PERIOD.start(T0)))
    files = [
        f"btc{name}.part1.parquet",
        f"btc{name}.part3.parquet",
        f"btc{other}.parquet",
        f"btcusdc{name}.part9.parquet",
    ]
    spool = new(folder, known_seq=70, exports=files)
    opened.append(spool)
    append(spool, [frame(T0)])
    assert spool.segment == f"{name}.part4.sqlite"
    append(spool, [frame(T0 + 10 * SECOND_NS)])
    assert spool.segment == f"{other}.part2.sqlite"
    check(folder, first_seq=71)


def test_a_restart_goes_on_in_the_open_segment(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    append(spool, [frame(T0, b"1"), frame(T0 + 1, b'{"event":"stopped"}', mt=5)])
    spool.close()
    again = new(folder)
    opened.append(again)
    found = again.recovered
    assert (found.last_seq, found.last_rx, found.clean, found.new) == (2, T0 + 1, True, False)
    assert found.spool_id == spool.spool_id
    append(again, [frame(T0 - 9, b"3")])
    assert again.cut(T0 + 5) is not None
    assert [r.seq for r in check(folder)] == [1, 2, 3, 4]


def test_an_unclean_stop_is_known(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    append(spool, [frame(T0, b'{"event":"stopped"}', mt=5), frame(T0, b'{"event":"stopped"} is only text')])
    spool.close()
    again = new(folder)
    assert not again.recovered.clean
    append(again, [frame(T0, b'{"event":"stopped"}', mt=5)])
    again.close()
    seal_left_open(folder, T0 + HOUR_NS)
    third = new(folder)
    opened.append(third)
    assert third.recovered.clean, "sealed by another after an orderly stop"


def test_a_restart_after_the_edge_seals_what_was_left_open(
    folder: Path, opened: list[Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = new(folder)
    append(spool, [frame(T0)])
    spool.close()
    monkeypatch.setattr(time, "time_ns", lambda: T0 + HOUR_NS)
    again = new(folder)
    opened.append(again)
    assert again.segment is None
    assert again.last_seq == 2
    assert [s.meta["state"] for s in read_segments(folder)] == ["closed"]


def test_a_deleted_folder_goes_on_above_everything_known(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder, known_seq=1000)
    opened.append(spool)
    assert spool.recovered.new
    assert not spool.recovered.replaced
    assert not spool.recovered.clean, "nobody knows how the recording ended"
    append(spool, [frame(T0)])
    check(folder, first_seq=1001)


def test_a_restored_copy_is_a_new_spool_and_its_open_segment_is_set_apart(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    append(spool, [frame(T0), frame(T0 + 10 * SECOND_NS), frame(T0 + 10 * SECOND_NS)])
    spool.close()
    again = new(folder, known_seq=50)
    opened.append(again)
    found = again.recovered
    assert (found.replaced, found.new, found.clean) == (True, True, False)
    assert found.spool_id != spool.spool_id
    assert len(found.set_apart) == 1
    assert (folder / found.set_apart[0]).exists()
    assert len(read_rows(folder)) == 2, "what was closed stays"
    append(again, [frame(T0, b"on")])
    rows = read_rows(folder)
    assert (rows[-1].seq, rows[-1].m) == (51, b"on")
    assert rows[-1].rx >= rows[-2].rx


def test_knowing_less_or_the_same_elsewhere_changes_nothing(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    append(spool, [frame(T0), frame(T0)])
    spool.close()
    again = new(folder, known_seq=2)
    opened.append(again)
    assert not again.recovered.replaced
    assert again.recovered.spool_id == spool.spool_id


def test_a_damaged_segment_is_set_apart_and_said(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    append(spool, [frame(T0), frame(T0 + 10 * SECOND_NS)])
    spool.close()
    newest = sorted(folder.glob("*.sqlite"))[-1]
    for end in ("-wal", "-shm"):
        newest.with_name(newest.name + end).unlink(missing_ok=True)
    newest.write_bytes(b"broken" * 1000)
    again = new(folder, known_seq=3)
    opened.append(again)
    assert [name.startswith(f"{newest.name}.damaged-") for name in again.recovered.set_apart] == [True]
    assert not again.recovered.clean
    append(again, [frame(T0 + 10 * SECOND_NS)])
    assert [r.seq for r in read_rows(folder)] == [1, 2, 4]


def test_an_empty_segment_left_by_a_crash_is_taken_away(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    append(spool, [frame(T0)])
    spool.cut(T0 + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Spool, "_commit", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            spool.append([frame(T0 + 2)])
    assert len(list(folder.glob("*.sqlite"))) == 2
    spool.close()
    again = new(folder)
    opened.append(again)
    assert len(list(folder.glob("*.sqlite"))) == 1
    append(again, [frame(T0 + 2)])
    check(folder)


def test_an_empty_segment_is_never_sealed(folder: Path, opened: list[Spool]) -> None:
    spool = new(folder)
    opened.append(spool)
    append(spool, [frame(T0), frame(T0 + 10 * SECOND_NS)])
    spool.cut(T0 + 11 * SECOND_NS)
    for end in (spool.tick, spool.cut):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Spool, "_commit", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space"):
                spool.append([frame(T0 + 11 * SECOND_NS)])
        assert end(T0 + HOUR_NS) is None
        assert spool.segment is None
    append(spool, [frame(T0 + 11 * SECOND_NS)])
    check(folder)


def test_periods_of_another_length_after_a_change_of_the_configuration(folder: Path, opened: list[Spool]) -> None:
    short = new(folder)
    append(short, [frame(T0), frame(T0 + 10 * SECOND_NS, b'{"event":"stopped"}', mt=5)])
    short.close()
    assert seal_left_open(folder, T0 + HOUR_NS)
    hours = new(folder, Period(HOUR_NS))
    append(hours, [frame(T0 + 21 * SECOND_NS, b"in the long period")])
    assert hours.last_seq == 5
    hours.close()
    again = new(folder, Period(HOUR_NS))
    opened.append(again)
    assert again.recovered.last_seq == 5
    assert not again.recovered.clean, "the newest row is not the stop in the older segment that sorts behind"
    append(again, [frame(T0 + 25 * SECOND_NS)])
    assert [r.seq for r in read_rows(folder)] == [1, 2, 3, 4, 5, 6]


def limit_pages(spool: Spool, pages: int) -> None:
    """Let the open segment's disk be full but for so many pages."""
    assert spool._db is not None
    used = spool._db.execute("PRAGMA page_count").fetchone()[0]
    spool._db.execute(f"PRAGMA max_page_count={used + pages}")


@pytest.mark.parametrize("count", [1, 8, 40, 600])
def test_a_full_disk_loses_nothing_and_repeats_nothing(folder: Path, opened: list[Spool], count: int) -> None:
    spool = new(folder)
    opened.append(spool)
    append(spool, [frame(T0, b"before")])
    limit_pages(spool, 1)
    frames = [frame(T0 + n, b"%06d" % n + b"x" * 9000) for n in range(count)]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        spool.append(frames)
    assert (spool.last_seq, spool.last_rx) == (1, T0)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        spool.append(frames)
    assert [r.m for r in check(folder)] == [b"before"]
    limit_pages(spool, 1 << 20)
    append(spool, frames)
    spool.cut(T0 + SECOND_NS)
    assert [r.m for r in check(folder)][:-1] == [b"before", *(f.m for f in frames)]


@pytest.mark.parametrize("step", ["INSERT INTO rows", "INSERT INTO meta", "COMMIT", "PRAGMA wal_checkpoint"])
def test_sealing_can_fail_anywhere_and_be_done_again(folder: Path, opened: list[Spool], step: str) -> None:
    spool = new(folder)
    opened.append(spool)
    append(spool, [frame(T0, b"1"), frame(T0 + 1, b"2")])
    assert spool._db is not None
    real = spool._db
    spool._db = _Failing(real, step)  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="injected"):
            spool.tick(T0 + HOUR_NS)
    spool._db = real
    assert append(spool, [frame(T0 + HOUR_NS, b"next")]).seq == [4]
    rows = check(folder)
    assert [r.m.startswith(b'{"event":"sealed"') for r in rows] == [False, False, True, False]


class _Failing:
    """A connection on which one kind of statement fails."""

    def __init__(self, db: sqlite3.Connection, step: str) -> None:
        self._db = db
        self._step = step
        self._wrote = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if sql.startswith(self._step) and (self._wrote or sql != "COMMIT"):
            raise sqlite3.OperationalError("injected: disk I/O error")
        self._wrote = self._wrote and sql != "ROLLBACK"
        return self._db.execute(sql, *values)

    def executemany(self, sql: str, values: Any) -> Any:
        if sql.startswith(self._step):
            raise sqlite3.OperationalError("injected: disk I/O error")
        self._wrote = True
        return self._db.executemany(sql, values)


@pytest.mark.parametrize("step", ["put_meta", "link", "sync_folder", "connect_writer"])
def test_making_a_segment_can_fail_anywhere_and_be_done_again(
    folder: Path, opened: list[Spool], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    spool = new(folder)
    opened.append(spool)
    append(spool, [frame(T0)])
    target: Any = os if step == "link" else segment

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(target, step, refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="injected"):
                append(spool, [frame(T0 + 10 * SECOND_NS)])
    append(spool, [frame(T0 + 10 * SECOND_NS)])
    assert [r.seq for r in check(folder)] == [1, 2, 3]
    assert [p.name for p in folder.glob(".*")] == []


class SpoolMachine(RuleBasedStateMachine):
    """Any order of frames with any clock, ticks, cuts, crashes, restarts, sealing by export, exporting and pruning."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="spool-", dir=MEMORY)) / "btc"
        self.folder.mkdir()
        self.now = T0
        self.sent: list[bytes] = []
        self.pruned = 0
        self.exports: set[str] = set()
        self.spool: Spool | None = new(self.folder)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            if self.spool is not None:
                self.spool.close()
            shutil.rmtree(self.folder.parent)

    @rule(
        jump=st.sampled_from([0, 1, 10**6, SECOND_NS, 9 * SECOND_NS, 10 * SECOND_NS, HOUR_NS, -1, -SECOND_NS, -HOUR_NS])
    )
    def the_clock_moves(self, jump: int) -> None:
        self.now += jump

    @precondition(lambda self: self.spool is not None)
    @rule(jumps=st.lists(st.sampled_from([0, 1, 10**6, 3 * SECOND_NS, -SECOND_NS, -HOUR_NS]), min_size=1, max_size=12))
    def frames_come(self, jumps: list[int]) -> None:
        frames = []
        for jump in jumps:
            self.now += jump
            self.sent.append(b"%d" % len(self.sent))
            frames.append(frame(self.now, self.sent[-1], mt=1 + len(self.sent) % 4))
        assert self.spool is not None
        block = append(self.spool, frames)
        assert block.m == [f.m for f in frames]

    @precondition(lambda self: self.spool is not None)
    @rule()
    def tick(self) -> None:
        assert self.spool is not None
        self.spool.tick(self.now)

    @precondition(lambda self: self.spool is not None)
    @rule()
    def cut(self) -> None:
        assert self.spool is not None
        self.spool.cut(self.now)
        assert self.spool.segment is None

    @precondition(lambda self: self.spool is not None)
    @rule()
    def stop(self) -> None:
        assert self.spool is not None
        self.spool.close()
        self.spool = None

    @precondition(lambda self: self.spool is None)
    @rule(cut=st.booleans())
    def export_seals(self, cut: bool) -> None:
        for sealed in seal_left_open(self.folder, self.now, cut):
            assert sealed.state == "closed"

    @precondition(lambda self: self.spool is None)
    @rule()
    def start(self) -> None:
        last = self._last()
        self.spool = new(self.folder, known_seq=last, exports=self.exports)
        assert self.spool.last_seq == last

    @rule()
    def export(self) -> None:
        for found in read_segments(self.folder):
            if found.meta["state"] == "closed":
                path = self.folder / found.file
                self.exports.add(info(path).file)
                mark_exported(path, {"at_ns": self.now})

    @rule()
    def prune(self) -> None:
        before = read_segments(self.folder)
        gone = {p.name for p in lifecycle.prune(self.folder, self.now, HOUR_NS)}
        assert not before or before[-1].file not in gone
        for found in before:
            if found.file in gone:
                assert found.meta["state"] == "exported"
                self.pruned += sum(r.mt != 5 for r in found.rows)

    def _last(self) -> int:
        rows = read_rows(self.folder)
        return rows[-1].seq if rows else 0

    @invariant()
    def everything_holds(self) -> None:
        if not hasattr(self, "folder"):
            return
        segments = read_segments(self.folder)
        rows = check(self.folder, segments[0].rows[0].seq if segments else 1)
        assert [r.m for r in rows if r.mt != 5] == self.sent[self.pruned :]
        assert len({s.file for s in segments}) == len(segments)
        if self.spool is not None:
            assert self.spool.last_seq == (rows[-1].seq if rows else 0)


SpoolMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestSpool = SpoolMachine.TestCase
