"""Receive to durable from the first frame of a process on: kill -9 at random moments of its first seconds, on a machine
with eight busy processes, the store answering late or not being there."""

from __future__ import annotations

import contextlib
import hashlib
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mexc_pipeline.config import load
from mexc_pipeline.control import ControlServer
from mexc_pipeline.periods import HOUR_NS
from mexc_pipeline.simulator import SentFrame, Simulator, SimulatorConfig
from support.collecting import Collector, check_whole, collecting, frames, site_of, wanted
from support.scheduling import due, measured, spinning
from support.spooled import check, named, read_segments
from support.spools import T0, fill
from support.standin import silent_store
from support.waiting import until

BUSY = 8
KILLS, KILLED_S, KILLED_RATE = 6, 4.0, 200.0
"""The moments of death are spread over the first seconds from a process's first frame on."""
LATE_S = 4.0
STARTS, EACH, RATE = 6, 80, 40.0
P99_S = 0.05
DURABLE_S = 0.25
"""What a frame may take to the disk on a machine that runs nothing else."""
MOST_LATE_S = 1.5
"""More lateness than this is not forgiven, whatever the machine does."""
_BARE = """
import os, sys, time
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
while True:
    before = time.monotonic()
    time.sleep(0.02)
    os.pwrite(file, bytes(4096), 0)
    os.fsync(file)
    print(time.monotonic() - before - 0.02, flush=True)
"""
"""What the machine itself takes to wake a process and to sync a page."""
_READER = """
import glob, hashlib, sqlite3, sys, time
opened, last = {}, {}
while True:
    for path in glob.glob(sys.argv[1] + "/*/data/spool/btc/*"):
        if not path.endswith((".sqlite", "pending.db")):
            continue
        try:
            if path not in opened:
                opened[path] = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.2)
            rows = opened[path].execute("SELECT rowid, m FROM rows WHERE rowid > ?", (last.get(path, 0),)).fetchall()
        except sqlite3.Error:
            continue  # not there yet, or just being made or removed
        now = time.time_ns()
        for number, m in rows:
            last[path] = max(last.get(path, 0), number)
            print(now, hashlib.sha256(m).hexdigest(), flush=True)
    time.sleep(0.002)
"""
"""Sees each row as soon as it is committed, numbered or pending."""


@contextmanager
def saying(script: str, argument: Path, to: Path) -> Iterator[None]:
    """A process that writes down what it measures."""
    with to.open("w") as said, subprocess.Popen([sys.executable, "-c", script, str(argument)], stdout=said) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def store_that_is(how: str, data: Path) -> Iterator[None]:
    """What a process finds in the store's place when it starts: one that answers after four seconds, one that never
    answers, or nothing."""

    def late(_: dict[str, object]) -> dict[str, object]:
        over.wait(LATE_S)
        return {"last_seq": 0, "writer": None}

    over = threading.Event()
    with ExitStack() as stack:
        if how == "late":
            stack.callback(ControlServer(data / "control" / "store.sock", {"known": late}).close)
            stack.callback(over.set)
        elif how == "silent":
            stack.enter_context(silent_store(data))
        yield


@pytest.mark.parametrize("store", ["gone", "late", "silent"])
def test_kill_9_in_the_first_seconds_on_a_busy_machine(tmp_path: Path, store: str) -> None:
    """``gone``: it has answered the first process, and is not there for the others."""
    rng = random.Random(20261125)
    killed_ns: list[int] = []
    left: list[int] = []
    with (
        Simulator(SimulatorConfig(rate=KILLED_RATE)) as sim,
        spinning(BUSY),
        measured(tmp_path / "waits") as scheduling,
    ):
        site = site_of(tmp_path, sim)
        with store_that_is(store, site.data):
            for n in range(KILLS):
                collector = Collector(site)
                try:
                    until(lambda n=n: len(sim.connections) > n and sim.sent_on(n + 1), 60)  # type: ignore[misc]
                    time.sleep((n + rng.random()) * KILLED_S / KILLS)  # the moment of death, not a wait for anything
                finally:
                    killed_ns.append(time.time_ns())
                    collector.kill()
                left.append(_pending(site.spool()))
            waits = scheduling.finish()
        with_last = Collector(site)
        try:
            with_last.live()
        finally:
            with_last.stop(20)
    if store == "silent":
        assert left == sorted(set(left)), "each process left more rows to be numbered"
        assert left[0]
    rows = check(site.spool())
    starts = [event["seq"] for event in named(rows, "started")] + [rows[-1].seq + 1]
    assert len(starts) == KILLS + 2
    judged = 0
    for n, killed in enumerate(killed_ns):
        got = frames([r for r in rows if starts[n] <= r.seq < starts[n + 1]])
        sent = [frame for frame in sim.sent_on(n + 1) if wanted([frame])]
        assert got == wanted(sent)[: len(got)], "each once, in order"
        must = due([frame.time_ns for frame in sent], killed, int(DURABLE_S * 1e9), waits)
        assert len(got) >= must, f"start {n}: {must - len(got)} of {must} frames lost"
        judged += must
    assert judged > KILLS * KILLED_S * KILLED_RATE / 5, "too few frames were due for this to show anything"


def _pending(spool: Path) -> int:
    """How many rows wait there for their numbers."""
    path = spool / "pending.db"
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM rows").fetchone()[0])


def test_every_frame_is_committed_within_the_bounds_of_an_idle_machine(tmp_path: Path) -> None:
    """From being sent to being seen committed, from a process's first frame on, with a store that answers and without
    one. What the machine itself takes, in the same seconds, comes on top: a frame passes from process to process twice
    and is synced once."""
    looked, bare = tmp_path / "looked", tmp_path / "bare"
    sent: list[SentFrame] = []
    with (
        Simulator(SimulatorConfig(rate=RATE)) as sim,
        saying(_BARE, tmp_path / "synced", bare),
        saying(_READER, tmp_path, looked),
    ):
        for n in range(STARTS):
            folder = tmp_path / str(n)
            folder.mkdir()
            with collecting(site_of(folder, sim), alone=n % 2 == 1) as collector:
                until(lambda n=n: len(sim.sent_on(n + 1)) >= EACH, 60)  # type: ignore[misc]
                sent += [frame for frame in sim.sent_on(n + 1) if wanted([frame])]
                assert collector.stop(20) == 0
    committed: dict[str, int] = {}
    for line in looked.read_text().splitlines():
        at, digest = line.split()
        committed.setdefault(digest, int(at))
    took = sorted((committed[_digest(frame)] - frame.time_ns) / 1e9 for frame in sent)
    machine = sorted(map(float, bare.read_text().split()))
    assert len(sent) >= STARTS * EACH * 0.9
    assert len(machine) > 100
    for share, bound_s in ((0.99, P99_S), (1.0, DURABLE_S)):
        ours, its = (found[int(share * (len(found) - 1))] for found in (took, machine))
        assert ours <= bound_s + 2 * min(its, MOST_LATE_S), f"{share:.0%} of {len(took)} in {ours=:.4f} s, {its=:.4f} s"


def test_first_frames_are_committed_while_an_export_of_the_spool_hangs(tmp_path: Path) -> None:
    """It is stopped in the middle of a file, with all that it holds then: its lock, the segment, the file."""
    with Simulator(SimulatorConfig(rate=RATE)) as sim:
        site = site_of(tmp_path, sim, period="1h")
        fill(load(site.config), rows=200_000, start_ns=T0 // HOUR_NS * HOUR_NS)
        (before,) = read_segments(site.spool())
        export = subprocess.Popen([sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "export"])
        try:
            until(lambda: site.exports.is_dir() and any(site.exports.iterdir()), 60, "a file that is being written")
            export.send_signal(signal.SIGSTOP)
            (unfinished,) = site.exports.iterdir()
            assert unfinished.suffix != ".parquet"
            with collecting(site) as collector:
                status = collector.live(EACH)
                assert status["durable_ms"]["p99"] < (DURABLE_S + MOST_LATE_S) * 1000
                assert list(site.exports.iterdir()) == [unfinished], "it hangs all the while"
                export.send_signal(signal.SIGCONT)
                assert export.wait(60) == 0
                assert collector.stop(20) == 0
        finally:
            export.kill()
            export.wait(10)
    rows = check(site.spool())[len(before.rows) :]
    check_whole(rows, sim.sent)
    assert len(list(site.exports.glob("*.parquet"))) == 1


def _digest(frame: SentFrame) -> str:
    return hashlib.sha256(frame.payload).hexdigest()
