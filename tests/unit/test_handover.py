"""A recording handed from one host to another: seq goes on, no two files have one name, and nothing is guessed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline import config
from mexc_pipeline.errors import UserError
from mexc_pipeline.export.job import run as export
from mexc_pipeline.handover import Handover, give, take
from mexc_pipeline.periods import HOUR_NS, PINNED_NS
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool.last_seq import LastSeq
from mexc_pipeline.spool.lock import LockedError, SpoolLock
from mexc_pipeline.spool.pending import Pending
from mexc_pipeline.spool.walk import in_order
from mexc_pipeline.spool.writer import Spool
from mexc_pipeline.verify.acknowledge import acknowledged
from support.examples import examples
from support.spooled import read_segments
from support.spools import event

SYMBOL = "BTC_USDT"


class Machine:
    """A host's folders, and its collector as far as the spool sees it."""

    def __init__(self, folder: Path) -> None:
        text = f'symbols = ["{SYMBOL}"]\ndata_dir = "{folder}"\nexport_dir = "{folder}/exports"\nperiod = "1h"\n'
        folder.mkdir()
        self.file = folder / "config.toml"
        self.file.write_text(f'{text}[symbol.{SYMBOL}]\nid = "btc"\n')
        self.settings = config.load(self.file)
        self.folder = self.settings.spool_dir / "btc"

    def record(self, rows: int, *, known_seq: int = 0, stops: bool = True) -> None:
        with SpoolLock(self.folder):
            spool = Spool(self.folder, "btc", SYMBOL, self.settings.period, known_seq=known_seq)
            frames = [Frame(max(time.time_ns(), spool.last_rx), 5, Mt.DEAL, b"{}") for _ in range(rows)]
            while frames:
                frames = frames[len(spool.append(frames)) :]
            if stops:
                spool.append([Frame(max(time.time_ns(), spool.last_rx), None, Mt.EVENT, event("stopped"))])
            spool.close()

    def seqs(self) -> list[int]:
        return [row.seq for segment in read_segments(self.folder) for row in segment.rows]

    def files(self) -> list[str]:
        """Export everything; the names of all files."""
        self.settings.export_dir.mkdir(exist_ok=True)  # as a deployment makes it
        report = export(self.settings, once=True)
        assert report.failures == []
        return sorted(path.name for path in self.settings.export_dir.glob("*.parquet"))


@pytest.fixture
def old(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "old")


@pytest.fixture
def new(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "new")


@pytest.mark.slow
@settings(max_examples=examples(20), deadline=None)
@given(moves=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 2)), min_size=1, max_size=5))
def test_there_and_back_again(tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, bool, int]]) -> None:
    """Whatever is recorded between moves among three hosts, exported at once or later: every seq once, every name once,
    and what a host has not is acknowledged there."""
    folder = tmp_path_factory.mktemp("moves")
    machines = [Machine(folder / name) for name in "abc"]
    at = 0
    machines[at].record(1)
    for rows, exports, target in moves:
        if target == at:
            continue
        given_over = give(machines[at].settings, "btc")
        if exports:
            machines[at].files()
        take(machines[target].settings, "btc", given_over)
        at = target
        machines[at].record(rows)
    names = [name for machine in machines for name in machine.files()]
    assert len(set(names)) == len(names)
    seqs = sorted(seq for machine in machines for seq in machine.seqs())
    assert seqs == list(range(1, len(seqs) + 1))
    for machine in machines:
        here = machine.seqs()
        holes = {(a + 1, b - 1) for a, b in pairwise(here) if b > a + 1}
        assert {(e.first_seq, e.last_seq) for e in acknowledged(machine.settings).entries} == holes


def test_an_orderly_end_stays_one(old: Machine, new: Machine) -> None:
    """The next start follows an orderly stop, or it does not, as on the host it came from."""
    for stops in (True, False):
        old.record(2, known_seq=0, stops=stops)
        take(new.settings, "btc", give(old.settings, "btc"))
        spool = Spool(new.folder, "btc", SYMBOL, new.settings.period)
        spool.close()
        assert spool.clean == stops
        old, new = new, old


def test_a_clock_that_was_ahead_here_is_not_followed(old: Machine, new: Machine) -> None:
    """The first row had the time of the newest one here, and a whole period of files was of the future."""
    new.record(2)
    spool = Spool(new.folder, "btc", SYMBOL, new.settings.period)
    spool.append([Frame(time.time_ns() + 3 * HOUR_NS, 5, Mt.DEAL, b"{}")])
    spool.close()
    take(old.settings, "btc", give(new.settings, "btc"))
    old.record(1)
    before = time.time_ns()
    take(new.settings, "btc", give(old.settings, "btc"))
    *_, newest = read_segments(new.folder)
    assert [row.m.partition(b",")[0] for row in newest.rows] == [b'{"event":"clock"', b'{"event":"moved"']
    assert all(before <= row.rx <= time.time_ns() for row in newest.rows)
    assert new.seqs()[-2:] == [newest.rows[0].seq, newest.rows[0].seq + 1]


def test_a_clock_that_is_little_behind_leaves_the_moved_row_at_the_last_ones_time(old: Machine, new: Machine) -> None:
    ahead = time.time_ns() + PINNED_NS // 2
    new.folder.mkdir(parents=True)
    spool = Spool(new.folder, "btc", SYMBOL, new.settings.period)
    spool.append([Frame(ahead, 5, Mt.DEAL, b"{}")])
    spool.close()
    take(old.settings, "btc", give(new.settings, "btc"))
    take(new.settings, "btc", give(old.settings, "btc"))
    *_, newest = read_segments(new.folder)
    assert newest.rows[-1].rx >= ahead


def test_what_has_no_seq_yet_gets_it_first(old: Machine, new: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that is stopped at its start may leave rows without a seq: they are the old host's to number."""
    old.record(3)
    pending = Pending(old.folder, SYMBOL)
    pending.append([Frame(time.time_ns(), 5, Mt.DEAL, b"pending")])
    pending.close()
    with pytest.raises(UserError, match="last seq is not known"):
        give(old.settings, "btc")  # no store answers
    monkeypatch.setattr("mexc_pipeline.handover.ask_last_seq", lambda *_: LastSeq(0, (), None, ()))
    given_over = give(old.settings, "btc")
    assert given_over.last_seq == max(old.seqs()) == 6  # with the sealed row
    take(new.settings, "btc", given_over)
    assert new.seqs() == [7]


@pytest.mark.slow
def test_a_collector_that_runs_gives_nothing_away(old: Machine, new: Machine) -> None:
    old.record(1)
    with SpoolLock(old.folder), pytest.raises(LockedError):
        give(old.settings, "btc")
    assert in_order(old.folder).readable[-1].state == "open"


def test_made_twice_it_is_made_once(old: Machine, new: Machine) -> None:
    """A play that broke off is run again."""
    old.record(1)
    take(new.settings, "btc", give(old.settings, "btc"))
    before = new.seqs()
    said = take(new.settings, "btc", give(old.settings, "btc"))
    assert "handed over before" in said
    assert new.seqs() == before


def test_what_cannot_be_known_is_refused(old: Machine, new: Machine) -> None:
    with pytest.raises(UserError, match="is BTC_USDT here and ETH_USDT on a"):
        take(new.settings, "btc", Handover("ETH_USDT", 5, "x", (), True, "a"))
    old.record(1)
    (segment,) = old.folder.glob("*.sqlite")
    segment.write_bytes(b"no database")
    with pytest.raises(UserError, match="the last seq is not known"):
        give(old.settings, "btc")


def test_what_a_lost_disk_gave_is_not_given_again(old: Machine, new: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder does not say that nothing was recorded: only files and tables can tell."""
    new.record(3)
    take(old.settings, "btc", give(new.settings, "btc"))
    old.record(5)
    last = max(old.seqs())
    shutil.rmtree(old.settings.data_dir / "spool")
    with pytest.raises(UserError, match="btc has no row here, and the last seq is not known: tables: "):
        give(old.settings, "btc")  # no store answers
    running = LastSeq(0, (), "process 5 on a", ())
    monkeypatch.setattr("mexc_pipeline.handover.ask_last_seq", lambda *_: running)
    with pytest.raises(UserError, match="is recorded by process 5 on a; stop that one first"):
        give(old.settings, "btc")
    monkeypatch.setattr("mexc_pipeline.handover.ask_last_seq", lambda *_: LastSeq(last, (), None, ()))
    said = take(new.settings, "btc", give(old.settings, "btc"))
    assert f"up to seq {last} on " in said
    assert new.seqs()[-1] == last + 1
    assert [(e.first_seq, e.last_seq) for e in acknowledged(new.settings).entries] == [(new.seqs()[-2] + 1, last)]


def test_nothing_recorded_yet(old: Machine, new: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mexc_pipeline.handover.ask_last_seq", lambda *_: LastSeq(0, (), None, ()))
    assert "nothing was recorded" in take(new.settings, "btc", give(old.settings, "btc"))
    assert not list(new.folder.glob("*.sqlite"))


def test_the_two_commands(old: Machine, new: Machine) -> None:
    """As the playbook runs them."""
    old.record(2)
    command = [sys.executable, "-m", "mexc_pipeline.handover"]
    gave = subprocess.run([*command, "give", old.file, "btc"], check=True, capture_output=True, env=os.environ)
    assert json.loads(gave.stdout)["last_seq"] == 4
    took = subprocess.run([*command, "take", new.file, "btc"], check=True, capture_output=True, input=gave.stdout)
    assert b"up to seq 4" in took.stdout
    wrong = subprocess.run([*command, "take", new.file, "btc"], check=False, capture_output=True, input=b"{}")
    assert wrong.returncode == 1
    assert len(wrong.stderr.splitlines()) == 1


@pytest.mark.parametrize("is_damaged", [True, False])
def test_a_folder_that_is_none_is_one_line(old: Machine, is_damaged: bool) -> None:
    """What the play shows is the reason, not where in the program it was found."""
    old.record(1)
    if is_damaged:
        (old.folder / "pending.db").write_bytes(b"SQLite format 3\0" + b"\xa5" * 5000)
        (old.folder / "pending.db-wal").mkdir()
    else:
        shutil.rmtree(old.folder)
        old.folder.touch()
    command = [sys.executable, "-m", "mexc_pipeline.handover", "give", str(old.file), "btc"]
    gave = subprocess.run(command, check=False, capture_output=True, text=True)
    assert gave.returncode == 1
    assert "Traceback" not in gave.stderr
    assert len(gave.stderr.splitlines()) == 1, gave.stderr
