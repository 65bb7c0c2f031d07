"""Rows on their way to a seq: durable at once, numbered later, each once and in order, whatever happens on the way."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mexc_pipeline.collector.inbox import Inbox
from mexc_pipeline.periods import DAY_NS, HOUR_NS, PINNED_NS, SECOND_NS, Period
from mexc_pipeline.rows import Columns, Frame
from mexc_pipeline.spool import pending as module
from mexc_pipeline.spool.last_seq import LastSeq
from mexc_pipeline.spool.lifecycle import mark_exported, prune, seal_left_open
from mexc_pipeline.spool.pending import FILE, Pending, is_left, newest, number_left, started
from mexc_pipeline.spool.segment import NewerFormatError, info
from mexc_pipeline.spool.walk import in_order, lost_logs
from mexc_pipeline.spool.writer import Spool, last_rx
from support.examples import examples
from support.spooled import check, named, read_rows, read_segments
from support.spools import written

T0 = 2_000_001_600 * SECOND_NS
PERIOD = Period(2 * SECOND_NS)
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # hundreds of spools: fsync must cost nothing
NO_LAST_SEQ = LastSeq(0, (), None, ())


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A spool folder, which has its symbol's name."""
    (tmp_path / "btc").mkdir()
    return tmp_path / "btc"


def frames(*seconds: float) -> list[Frame]:
    return [Frame(T0 + int(s * SECOND_NS), 5, 1, b"%g" % s) for s in seconds]


def new(folder: Path, pending: Pending | None = None, known_seq: int = 0) -> Spool:
    next_rx = pending.first_rx() if pending is not None else None
    return Spool(folder, "btc", "BTC_USDT", PERIOD, known_seq=known_seq, next_rx=next_rx or T0)


def test_rows_are_durable_at_once_and_no_segment_knows_of_them(tmp_path: Path) -> None:
    pending = Pending(tmp_path, "BTC_USDT")
    block = pending.append(frames(0, 0.5))
    assert (block.rx, block.ts, block.m) == ([T0, T0 + SECOND_NS // 2], [5, 5], [b"0", b"0.5"])
    pending.append(frames(1))
    assert (pending.waiting, pending.first_rx(), pending.last_rx()) == (3, T0, T0 + SECOND_NS)
    pending.close()
    assert is_left(tmp_path)
    assert read_segments(tmp_path) == []
    again = Pending(tmp_path, "BTC_USDT")
    assert (again.waiting, again.first_rx(), again.symbol) == (3, T0, "BTC_USDT")
    again.close()
    assert newest(tmp_path, 1, 2).m == [b"0.5", b"1"]


def test_they_are_numbered_in_their_own_periods_behind_what_is_known(tmp_path: Path) -> None:
    before = new(tmp_path)
    before.append(frames(0))
    before.close()
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append(frames(1, 2, 3.5, 7))
    pending.close()
    number_left(tmp_path, "btc", PERIOD, NO_LAST_SEQ)
    assert not list(tmp_path.glob(f"{FILE}*"))
    assert [[r.m for r in s.rows if r.mt == 1] for s in read_segments(tmp_path)] == [
        [b"0", b"1"],
        [b"2", b"3.5"],
        [b"7"],
    ]
    check(tmp_path)


@pytest.mark.parametrize("rest", [b"", b" nonsense", b',"set_apart":7,"version":[]}', b',"a":' + b"[" * 20_000])
def test_whatever_has_become_of_a_start_it_is_numbered(tmp_path: Path, rest: bytes) -> None:
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append([Frame(T0, None, 5, b'{"event":"started"' + rest)])
    pending.append(frames(1))
    pending.close()
    number_left(tmp_path, "btc", PERIOD, NO_LAST_SEQ)
    rows = check(tmp_path)
    assert [row.seq for row in rows][:2] == [1, 2]
    assert named(rows, "started")[0]["last_seq"] == 0


def test_known_seqs_elsewhere_are_respected(tmp_path: Path) -> None:
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append(frames(0))
    pending.close()
    number_left(tmp_path, "btc", PERIOD, LastSeq(70, ("btc20330518040000.parquet",), None, ()))
    assert [r.seq for r in read_rows(tmp_path)] == [71]
    assert read_segments(tmp_path)[0].file == "20330518040000.part2.sqlite"


def test_a_restored_copys_open_segment_takes_no_pending_row_with_it(tmp_path: Path) -> None:
    stale = new(tmp_path)
    stale.append(frames(0))
    stale.close()
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append([Frame(T0 + 1, None, 5, started("1", None)), *frames(1)])
    pending.close()
    number_left(tmp_path, "btc", PERIOD, LastSeq(70, (), None, ()))
    rows = check(tmp_path, 71)
    assert [r.m for r in rows][1:] == [b"1"]
    (said,) = named(rows, "started")
    assert (said["replaced"], said["last_seq"], said["clean"]) == (True, 70, False)
    assert (tmp_path / said["set_apart"][0]).exists()


def test_each_start_that_is_numbered_late_says_what_it_followed(tmp_path: Path) -> None:
    first = new(tmp_path)
    first.append([*frames(0), Frame(T0, None, 5, b'{"event":"stopped"}')])
    first.close()
    pending = Pending(tmp_path, "BTC_USDT")
    for n, rest in enumerate([[b'{"event":"connected"}'], [b'{"event":"stopped"}'], []]):
        rx = T0 + (n + 1) * SECOND_NS // 2
        pending.append([Frame(rx, None, 5, m) for m in (started(str(n), None), *rest)])
    spool = new(tmp_path, pending)
    while pending.move(spool):
        pass
    pending.remove()
    spool.close()
    rows = check(tmp_path)
    found = named(rows, "started")
    assert [(e["version"], e["clean"]) for e in found] == [("0", True), ("1", False), ("2", True)]
    assert [e["last_seq"] for e in found] == [e["seq"] - 1 for e in found]
    assert [e["last_rx"] for e in found] == [rows[e["seq"] - 2].rx for e in found]
    assert {e["spool_id"] for e in found} == {spool.spool_id}


@pytest.mark.parametrize("sealed_by", ["the next start", "an export"])
def test_a_start_after_a_whole_period_names_the_time_of_the_row_it_follows(tmp_path: Path, sealed_by: str) -> None:
    first = new(tmp_path)
    first.append([*frames(0), Frame(T0, None, 5, b'{"event":"stopped"}')])
    first.close()
    if sealed_by == "an export":
        seal_left_open(tmp_path, T0 + 7200 * SECOND_NS)
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append([Frame(T0 + 7200 * SECOND_NS, None, 5, started("1", None))])
    spool = new(tmp_path, pending)
    while pending.move(spool):
        pass
    pending.remove()
    spool.close()
    rows = check(tmp_path)
    (said,) = named(rows, "started")
    before = rows[said["seq"] - 2]
    assert b"sealed" in before.m
    assert (said["last_seq"], said["last_rx"]) == (before.seq, before.rx)


def test_a_newer_files_rows_are_left_alone(tmp_path: Path) -> None:
    Pending(tmp_path, "BTC_USDT").close()
    written(tmp_path / FILE, "PRAGMA user_version=3")
    with pytest.raises(NewerFormatError, match="format 3"):
        Pending(tmp_path, "BTC_USDT")
    assert is_left(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"no database" * 1000, None])
def test_a_damaged_file_is_set_apart_and_said(tmp_path: Path, damage: bytes | None) -> None:
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append([Frame(T0, 5, 1, b"x" * 50_000)])
    pending.close()
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:20_000] if damage is None else damage)
    again = Pending(tmp_path, "BTC_USDT")
    assert again.set_apart is not None
    assert (tmp_path / again.set_apart).exists()
    assert again.waiting == 0
    again.append([Frame(T0, None, 5, started("1", again.set_apart))])
    again.close()
    number_left(tmp_path, "btc", PERIOD, NO_LAST_SEQ)
    assert named(check(tmp_path), "started")[0]["set_apart"] == [again.set_apart]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as kill -9 leaves it: five commits of pending rows in the log."""
    folder, left = tmp_path_factory.mktemp("running"), tmp_path_factory.mktemp("killed")
    pending = Pending(folder, "BTC_USDT")
    for n in range(5):
        pending.append([Frame(T0 + n, 5, 1, b"%d" % n * 3000)])
    for end in ("", "-wal"):
        shutil.copyfile(folder / f"{FILE}{end}", left / f"{FILE}{end}")
    pending.close()
    return left


def damaged(killed: Path, folder: Path, change: Callable[[bytearray], None]) -> Pending:
    shutil.copyfile(killed / FILE, folder / FILE)
    log = bytearray((killed / f"{FILE}-wal").read_bytes())
    change(log)
    (folder / f"{FILE}-wal").write_bytes(log)
    return Pending(folder, "BTC_USDT")


def rows_in(path: Path) -> int:
    return path.read_bytes().count(b"4" * 3000)


@settings(deadline=None, max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_rows_behind_a_damaged_place_of_the_log_are_not_lost_in_silence(killed: Path, where: float, bit: int) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        folder, at = Path(made), 0

        def flip(log: bytearray) -> None:
            nonlocal at
            at = int(where * len(log))
            log[at] ^= 1 << bit

        pending = damaged(killed, folder, flip)
        size = (killed / f"{FILE}-wal").stat().st_size
        last = size - 24 - 4096
        # Of the newest commit nothing tells where its own mark is what was damaged: it looks like one that was broken
        # off, or like what an earlier use of the log has left.
        if not last <= at < last + 24:
            assert (pending.waiting < 5) == (pending.set_apart is not None), f"byte {at} of {size}"
        if pending.set_apart is not None:
            assert (folder / pending.set_apart).exists()
            assert lost_logs(folder) == ([pending.set_apart] if "-wal" in pending.set_apart else [])
        pending.append(frames(1))
        pending.close()


def test_what_is_lost_behind_a_damaged_place_is_counted_and_kept(
    killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def flip(log: bytearray) -> None:
        log[log.index(b"1" * 3000)] ^= 1

    pending = damaged(killed, tmp_path, flip)
    assert pending.waiting == 1
    (record,) = [r for r in caplog.records if "rows lost" in r.message]
    assert record.__dict__["fields"] == {"file": pending.set_apart, "commits": 4}
    pending.append([Frame(T0 + 9, None, 5, started("1", pending.set_apart))])
    pending.close()
    assert pending.set_apart is not None
    assert rows_in(tmp_path / pending.set_apart) == 1, "what is there can still be taken out by hand"
    number_left(tmp_path, "btc", PERIOD, NO_LAST_SEQ)
    assert named(check(tmp_path), "started")[0]["set_apart"] == [pending.set_apart]


def test_a_commit_that_was_broken_off_is_no_loss(killed: Path, tmp_path: Path) -> None:
    pending = damaged(killed, tmp_path, lambda log: log.__delitem__(slice(-2000, None)))
    assert (pending.waiting, pending.set_apart) == (4, None)
    pending.close()


@pytest.mark.parametrize("lost", range(5))
@pytest.mark.parametrize("by_export", [False, True])
def test_rows_of_a_segment_behind_a_damaged_place_of_its_log_are_said_and_kept(
    tmp_path: Path, lost: int, by_export: bool, caplog: pytest.LogCaptureFixture
) -> None:
    running, left = tmp_path / "running" / "btc", tmp_path / "left" / "btc"
    for folder in (running, left):
        folder.mkdir(parents=True)
    spool = new(running)
    for n in range(5):
        spool.append([Frame(T0 + n, 5, 1, b"%d" % n * 3000)])
    for path in running.glob("*.sqlite*"):
        shutil.copyfile(path, left / path.name)
    spool.close()
    (log,) = left.glob("*-wal")
    (left / log.name.replace("-wal", "-shm")).unlink()
    written = bytearray(log.read_bytes())
    written[written.index(b"%d" % lost * 3000)] ^= 1
    log.write_bytes(written)
    if by_export:
        seal_left_open(left, T0 + DAY_NS)
    else:
        spool = new(left)
        assert (spool.last_seq, spool.recovered.clean) == (lost, False)
        spool.append(frames(1))
        spool.close()
        assert spool.recovered.set_apart == tuple(lost_logs(left))
    why, said = ("unfinished", "never finished") if lost == 4 else ("damaged", "rows lost")
    (kept,) = left.glob(f"*-wal.{why}-*")
    assert kept.read_bytes() == bytes(written)
    (record,) = [r for r in caplog.records if said in r.message]
    assert record.__dict__["fields"] == {"file": kept.name, "commits": 5 - lost}


@pytest.mark.parametrize("at", [*range(60), *range(64, 100)])
def test_whatever_a_header_says_rows_are_recorded(tmp_path: Path, at: int) -> None:
    """Of pending rows and of a segment left open: where it cannot be written, it is set apart. But for the number of
    the format: that of a later one is left alone."""
    Pending(tmp_path, "BTC_USDT").close()
    spool = new(tmp_path)
    spool.append(frames(0))
    spool.close()
    for path in (tmp_path / FILE, next(tmp_path.glob("2*.sqlite"))):
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        header = bytearray(path.read_bytes())
        header[at] ^= 4
        path.write_bytes(header)
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append(frames(1))
    pending.close()
    number_left(tmp_path, "btc", PERIOD, NO_LAST_SEQ)
    assert read_rows(tmp_path)[-1].m == b"1"


def test_a_log_without_its_file_is_not_taken_for_the_next_ones(tmp_path: Path) -> None:
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append(frames(0))
    (tmp_path / "kept").write_bytes((tmp_path / f"{FILE}-wal").read_bytes())
    pending.close()
    (tmp_path / FILE).unlink()
    (tmp_path / "kept").rename(tmp_path / f"{FILE}-wal")
    again = Pending(tmp_path, "BTC_USDT")
    assert again.waiting == 0
    again.close()


def test_what_was_moved_to_a_segment_that_is_damaged_is_moved_once_more(tmp_path: Path) -> None:
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append(frames(0, 0.1, 0.2, 0.3, 0.4))
    spool = new(tmp_path, pending)
    assert pending.move(spool) == 5
    spool.close()
    pending.close()
    db = sqlite3.connect(next(tmp_path.glob("2*.sqlite")))
    db.execute("UPDATE rows SET mt = 99 WHERE seq = 1")
    db.commit()
    db.close()
    number_left(tmp_path, "btc", PERIOD, NO_LAST_SEQ)
    event, *rows = check(tmp_path, 6)
    assert (event.seq, [r.m for r in rows]) == (6, [b"0", b"0.1", b"0.2", b"0.3", b"0.4"])
    assert named([event], "clock")[0]["restarted"]


@pytest.mark.parametrize("marker", [b"2", started("1", None)])
def test_what_was_moved_stays_known_when_its_segment_is_proven_and_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marker: bytes
) -> None:
    """The clock was set back between pending rows, and the process died between the two commits that follow: the one
    that says so, and the one of the rows."""
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append(frames(0, 1))
    pending.append([Frame(T0 - DAY_NS, None, 5, marker)])
    spool = new(tmp_path, pending)
    commit = spool._commit

    def dies(block: Columns, moved: tuple[str, int] | None) -> None:
        if moved is not None and moved[1] == 2:
            raise OSError(5, "dies here")
        commit(block, moved)

    monkeypatch.setattr(spool, "_commit", dies)
    assert pending.move(spool) == 2
    with pytest.raises(OSError, match="dies here"):
        pending.move(spool)
    spool.close()
    pending.close()
    first, _ = in_order(tmp_path).readable
    mark_exported(first.path, {"at_ns": T0})
    assert prune(tmp_path, T0 + 400 * DAY_NS, 0) == [first.path]
    number_left(tmp_path, "btc", PERIOD, NO_LAST_SEQ)
    rows = read_rows(tmp_path)
    assert [r.seq for r in rows if r.m in (b"0", b"1")] == [], "they are in a file"
    assert [r.seq for r in rows] == list(range(first.last_seq + 1, first.last_seq + 1 + len(rows)))


@pytest.mark.parametrize("step", ["_empty", "close", "unlink", "sync_folder"])
def test_giving_the_file_up_can_fail_anywhere_and_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    pending = Pending(tmp_path, "BTC_USDT")
    pending.append(frames(0))
    spool = new(tmp_path, pending)
    assert pending.move(spool) == 1
    assert pending.move(spool) == 0

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "injected")

    with monkeypatch.context() as patch:
        patch.setattr({"unlink": Path, "sync_folder": module}.get(step, pending), step, refuse)
        with pytest.raises(OSError, match="injected"):
            pending.remove()
    pending.remove()
    assert not is_left(tmp_path)
    spool.close()


JUMPS = [0, 1, 10**6, SECOND_NS, 2 * SECOND_NS, HOUR_NS, 400 * DAY_NS]
JUMPS += [-1, -SECOND_NS, -PINNED_NS, -PINNED_NS - 1, -HOUR_NS, -400 * DAY_NS]


class Recording(RuleBasedStateMachine):
    """Inbox, pending rows and spool of one symbol, with any clock, in any order of receiving, committing, refusals,
    ends of segments, restarts and deaths: every row that was committed is there once, in the order and with the time
    of its stamp, in the segment of its period."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="spool-", dir=MEMORY)) / "btc"
        self.folder.mkdir()
        self.now = T0
        self.made = 0
        self.stamped: list[tuple[int, bytes]] = []
        self.committed: list[tuple[int, bytes]] = []
        self.exports: set[str] = set()
        self.inbox: Inbox | None = None
        self.pending: Pending | None = None
        self.spool: Spool | None = None
        self.hand: list[Frame] = []
        self.start()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.kill()
            shutil.rmtree(self.folder.parent)

    @precondition(lambda self: self.inbox is None)
    @rule()
    def start(self) -> None:
        before = last_rx(self.folder)
        self.pending = Pending(self.folder, "BTC_USDT")
        self.inbox = Inbox(clock=lambda: self.now)
        self.inbox.follow(max(before, self.pending.last_rx()))
        with self.inbox.lock:
            self.pending.append([Frame(self.inbox.stamp(), None, 5, started("1", None))])

    @rule(jump=st.sampled_from(JUMPS))
    def the_clock_moves(self, jump: int) -> None:
        self.now += jump

    @precondition(lambda self: self.inbox is not None)
    @rule(jumps=st.lists(st.sampled_from(JUMPS), min_size=1, max_size=6), hand_over=st.booleans())
    def rows_come(self, jumps: list[int], hand_over: bool) -> None:
        assert self.inbox is not None
        for jump in jumps:
            self.now += jump
            self.made += 1
            m = b"%d" % self.made
            with self.inbox.lock:
                rx = self.inbox.stamp()
                self.inbox.add(Frame(rx, None, 1 + self.made % 4, m))
            assert self.now <= rx <= self.now + PINNED_NS
            self.stamped.append((rx, m))
        if hand_over:
            self.inbox.hand_over()

    @precondition(lambda self: self.inbox is not None)
    @rule()
    def a_mark(self) -> None:
        assert self.inbox is not None
        self.inbox.mark()

    @precondition(lambda self: self.inbox is not None and self.pending is None)
    @rule()
    def a_cut(self) -> None:
        assert self.inbox is not None
        self.inbox.mark(Future())

    @precondition(lambda self: self.inbox is not None)
    @rule(refuse=st.booleans(), times=st.integers(1, 4))
    def commit(self, refuse: bool, times: int) -> None:
        """As the recorder does; the disk may refuse, and then what was taken stays in hand."""
        assert self.inbox is not None
        mark = None
        for _ in range(times):
            if not self.hand:
                self.hand, mark = self.inbox.take(0, 3)
            if refuse:
                self._refused()
                if mark is None:
                    return
            self._commit_hand()
            if mark is not None and self.pending is None:
                assert self.spool is not None
                end = self.spool.tick if mark.cut is None else self.spool.cut
                end(mark.rx)

    def _refused(self) -> None:
        target = self.spool if self.pending is None else self.pending
        assert target is not None
        if not self.hand:
            return
        with pytest.MonkeyPatch.context() as patch:
            if isinstance(target, Spool):
                patch.setattr(Spool, "_commit", _no_room)
            else:
                patch.setattr(target, "append", _no_room)
            with pytest.raises(OSError, match="No space"):
                target.append(self.hand)

    def _commit_hand(self) -> None:
        while self.hand:
            target = self.spool if self.pending is None else self.pending
            assert target is not None
            done = len(target.append(self.hand))
            assert done
            self.committed += [(f.rx, f.m) for f in self.hand[:done] if f.mt != 5]
            self.hand = self.hand[done:]

    @precondition(lambda self: self.pending is not None and self.spool is None)
    @rule()
    def the_last_seq_is_known(self) -> None:
        assert self.pending is not None
        next_rx = self.pending.first_rx() or self.now
        self.spool = Spool(self.folder, "btc", "BTC_USDT", PERIOD, exports=self.exports, next_rx=next_rx)

    @precondition(lambda self: self.pending is not None and self.spool is not None)
    @rule(times=st.integers(1, 5), most=st.integers(1, 5))
    def move(self, times: int, most: int) -> None:
        assert self.pending is not None
        assert self.spool is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "MOST_ROWS", most)
            for _ in range(times):
                if not self.pending.move(self.spool):
                    self.pending.remove()
                    self.pending = None
                    return

    @rule(during=st.sampled_from(["", "_empty"]))
    def kill(self, during: str = "") -> None:
        """The process ends without a word, perhaps while it gives up the file of pending rows."""
        if during and self.pending is not None and self.spool is not None:
            while self.pending.move(self.spool):
                pass
            self.pending._empty()
        for held in (self.pending, self.spool):
            if held is not None:
                held.close()
        self.inbox = self.pending = self.spool = None
        self.hand = []

    @precondition(lambda self: self.inbox is None)
    @rule(cut=st.booleans())
    def export_numbers_and_closes(self, cut: bool) -> None:
        if is_left(self.folder):
            known = LastSeq(0, tuple(self.exports), None, ())
            number_left(self.folder, "btc", PERIOD, known)
        seal_left_open(self.folder, self.now, cut)

    @rule()
    def export(self) -> None:
        for found in read_segments(self.folder):
            if found.meta["state"] == "closed":
                path = self.folder / found.file
                self.exports.add(info(path).file)
                mark_exported(path, {"at_ns": self.now})

    @invariant()
    def every_committed_row_is_there_once(self) -> None:
        if not hasattr(self, "folder"):
            return
        rows = [(r.rx, r.m) for r in check(self.folder) if r.mt != 5]
        assert rows + self._unmoved() == self.committed
        order = {m: n for n, (_, m) in enumerate(self.stamped)}
        times = {m: rx for rx, m in self.stamped}
        places = [order[m] for _, m in self.committed]
        assert places == sorted(places)
        assert all(times[m] == rx for rx, m in self.committed)
        for event in named(read_rows(self.folder), "started"):
            assert event["last_seq"] == event["seq"] - 1

    def _unmoved(self) -> list[tuple[int, bytes]]:
        if not is_left(self.folder):
            return []
        db = sqlite3.connect(f"{(self.folder / FILE).as_uri()}?mode=ro", uri=True)
        try:
            (found,) = db.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()
            rows = db.execute("SELECT n, rx, m FROM rows WHERE mt != 5 ORDER BY n").fetchall()
        finally:
            db.close()
        moved = max((s.meta.get("moved", {}).get(json.loads(found), 0) for s in read_segments(self.folder)), default=0)
        return [(rx, m) for n, rx, m in rows if n > moved]


def _no_room(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


Recording.TestCase.settings = settings(
    max_examples=examples(60), stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestRecording = Recording.TestCase
