"""Receive to durable from the first frame of a process on: kill -9 at random moments of its first seconds, on a machine
with eight busy processes, the store answering late or not being there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mexc_pipeline.config import load
from mexc_pipeline.periods import HOUR_NS
from mexc_pipeline.simulator import SentFrame, Simulator, SimulatorConfig
from support.collecting import Collector, Site, check_whole, collecting, frames, site_of, wanted
from support.scheduling import HOPS, Scheduling, Wait, due, held_ns, measured, spinning
from support.spooled import CONTRACT, by_connection, check, named, read_segments
from support.spools import T0, fill, open_spool, some_frames
from support.standin import late_store, silent_store
from support.waiting import until

BUSY = 8
KILLS, KILLED_S, KILLED_RATE = 5, 4.0, 200.0
"""The moments of death are spread over the first seconds from a process's first frame on."""
LATE_S = 4.0
STARTS, EACH, RATE = 6, 80, 40.0
P99_S = 0.05
DURABLE_S = 0.25
"""What a frame may take to the disk on a machine that runs nothing else."""
LARGE_ROWS = 200_000
_READER = """
import glob, hashlib, pathlib, sqlite3, sys, time
opened, last = {}, {}
here = sys.argv[1] + "/*/data/spool/btc/*"
for path in glob.glob(here):
    if path.endswith(".sqlite"):
        opened[path] = sqlite3.connect(f"{pathlib.Path(path).as_uri()}?mode=ro", uri=True, timeout=0.2)
        last[path] = opened[path].execute("SELECT max(rowid) FROM rows").fetchone()[0]
print(flush=True)
while True:
    for path in glob.glob(here):
        if not path.endswith((".sqlite", "pending.db")):
            continue
        try:
            if path not in opened:
                opened[path] = sqlite3.connect(f"{pathlib.Path(path).as_uri()}?mode=ro", uri=True, timeout=0.2)
            rows = opened[path].execute("SELECT rowid, m FROM rows WHERE rowid > ?", (last.get(path, 0),)).fetchall()
        except sqlite3.Error:
            continue  # not there yet, or just being made or removed
        now = time.time_ns()
        for number, m in rows:
            last[path] = max(last.get(path, 0), number)
            print(now, hashlib.sha256(m).hexdigest(), path, flush=True)
    time.sleep(0.002)
"""
"""Sees each row that is new as soon as it is committed, numbered or pending."""


class Watch:
    """Sees each frame committed, and what the machine takes to wake a process and to sync a page in the same moment."""

    def __init__(self, looked: Path, scheduling: Scheduling) -> None:
        self._looked = looked
        self._scheduling = scheduling

    def judge(self, sent: list[SentFrame], hops: int = HOPS) -> list[str]:
        """Assert that these frames were committed in time; the file in which each was seen first."""
        digests = [_digest(frame) for frame in sent]
        until(lambda: not set(digests) - self._seen().keys(), 20, "the last frame on the disk")
        waits, seen = self._scheduling.finish(), self._seen()
        found = [seen[digest] for digest in digests]
        took = [at - frame.time_ns for frame, (at, _) in zip(sent, found, strict=True)]
        own = sorted(
            (ns - held_ns(waits, frame.time_ns, frame.time_ns + ns, hops)) / 1e9
            for frame, ns in zip(sent, took, strict=True)
        )
        for share, bound_s in ((0.99, P99_S), (1.0, DURABLE_S)):
            ours = own[int(share * (len(own) - 1))]
            assert ours <= bound_s, f"{share:.0%} of {len(own)} in {ours:.4f} s beyond what the machine takes"
        assert statistics.median(took) <= P99_S * 1e9, "the machine was too slow for this to show anything"
        return [path for _, path in found]

    def _seen(self) -> dict[str, tuple[int, str]]:
        """When (Unix ns) and in which file each row was seen first, by its frame's digest."""
        seen: dict[str, tuple[int, str]] = {}
        for line in self._looked.read_text().split("\n")[1:-1]:
            at, digest, path = line.split()
            seen.setdefault(digest, (int(at), path))
        return seen


@contextmanager
def watching(folder: Path) -> Iterator[Watch]:
    """``folder`` has the sites in it, each in one of its own."""
    looked = folder / "looked"
    command = [sys.executable, "-c", _READER, str(folder)]
    with (
        measured(folder / "waits", folder / "page") as scheduling,
        looked.open("w") as to,
        subprocess.Popen(command, stdout=to) as reader,
    ):
        try:
            until(looked.read_text, 60, "the reader")
            yield Watch(looked, scheduling)
        finally:
            reader.kill()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """On a disk: in memory, where other tests have their folders, nothing has to be synced."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def store_that_is(how: str, data: Path) -> AbstractContextManager[None]:
    """What a process finds in the store's place when it starts."""
    return late_store(data, LATE_S) if how == "late" else silent_store(data) if how == "silent" else nullcontext()


@dataclass
class Killed:
    """What came of a collector that was killed again and again: when each of its connections died at the latest, how
    many rows each process left to be numbered."""

    site: Site
    sim: Simulator
    at_ns: dict[int, int] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)

    def again_and_again(self, store: str, rng: random.Random) -> None:
        with store_that_is(store, self.site.data):
            for n in range(KILLS):
                collector, before = Collector(self.site), len(self.sim.connections)
                try:
                    until(lambda: any(self.sim.sent_on(c.number) for c in self.sim.connections[before:]), 60)  # noqa: B023
                    time.sleep((n + rng.random()) * KILLED_S / KILLS)  # the moment of death, not a wait for anything
                finally:
                    killed_at = time.time_ns()
                    collector.kill()
                self.at_ns.update({c.number: killed_at for c in self.sim.connections[before:]})
                self.left.append(_pending(self.site.spool()))

    def judge(self, waits: list[Wait]) -> None:
        """Assert that each frame is there, once and in order, that was due on the disk when its process was killed."""
        rows = check(self.site.spool())
        assert len(named(rows, "started")) == KILLS + 1
        groups = {json.loads(group[0].m)["local"]: group for group in by_connection(rows)}
        judged = 0
        for connection in self.sim.connections:
            if connection.number not in self.at_ns:
                continue
            got = frames(groups.get(connection.peer, []))
            sent = [frame for frame in self.sim.sent_on(connection.number) if wanted([frame])]
            assert got == wanted(sent)[: len(got)], "each once, in order"
            killed_ns = self.at_ns[connection.number]
            end_ns = min(killed_ns, connection.closed_ns or killed_ns)
            must = due([frame.time_ns for frame in sent], end_ns, int(DURABLE_S * 1e9), waits)
            assert len(got) >= must, f"connection {connection.number}: {must - len(got)} of {must} frames lost"
            judged += must
        assert judged > KILLS * KILLED_S * KILLED_RATE / 5, "too few frames were due for this to show anything"


@pytest.mark.timeout(300)  # starting takes long beside so many others
def test_kill_9_in_the_first_seconds_on_a_busy_machine(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """``gone``: the store has answered the first process, and is not there for the others. The three beside each
    other, for the load of the one."""
    stores = ("gone", "late", "silent")
    with contextlib.ExitStack() as stack:
        killed: dict[str, Killed] = {}
        for store in stores:
            folder = tmp_path / store
            folder.mkdir()
            sim = stack.enter_context(Simulator(SimulatorConfig(rate=KILLED_RATE)))
            killed[store] = Killed(site_of(folder, sim), sim)
        with (
            spinning(BUSY),
            measured(tmp_path / "waits") as scheduling,
            ThreadPoolExecutor(len(stores)) as beside,
        ):
            ends = [
                beside.submit(killed[store].again_and_again, store, random.Random(20261125 + n))
                for n, store in enumerate(stores)
            ]
            for end in ends:
                end.result()
            waits = scheduling.finish()
        for one in killed.values():
            with_last = Collector(one.site)
            try:
                with_last.live()
            finally:
                with_last.stop(20)
    left = killed["silent"].left
    assert left == sorted(set(left)), "each process left more rows to be numbered"
    assert left[0]
    for store, one in killed.items():
        with subtests.test(store):
            one.judge(waits)


def _pending(spool: Path) -> int:
    """How many rows wait there for their numbers."""
    path = spool / "pending.db"
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM rows").fetchone()[0])


def test_every_frame_is_committed_within_the_bounds_of_an_idle_machine(tmp_path: Path) -> None:
    """From being sent to being seen committed, from a process's first frame on, with a store that answers and without
    one. What the machine itself takes, in the same moment, comes on top."""
    sent: list[SentFrame] = []
    with Simulator(SimulatorConfig(rate=RATE)) as sim, watching(tmp_path) as watch:
        for n in range(STARTS):
            folder = tmp_path / str(n)
            folder.mkdir()
            with collecting(site_of(folder, sim), alone=n % 2 == 1) as collector:
                sent += _sent_on(sim, n + 1)
                assert collector.stop(20) == 0
        assert len(sent) >= STARTS * EACH * 0.9
        watch.judge(sent)


def test_first_frames_are_committed_while_a_large_open_segment_is_read(tmp_path: Path) -> None:
    """A process that was killed has left it: what it holds is counted anew before a row can follow."""
    folder = tmp_path / "0"
    folder.mkdir()
    with Simulator(SimulatorConfig(rate=RATE)) as sim:
        site = site_of(folder, sim, period="24h")
        spool = open_spool(load(site.config))
        left = some_frames(LARGE_ROWS, time.time_ns() - LARGE_ROWS * 1000, step_ns=1000)
        for at in range(0, LARGE_ROWS, 10_000):
            spool.append(left[at : at + 10_000])
        spool.close()
        with watching(tmp_path) as watch:
            with collecting(site) as collector:
                sent = _sent_on(sim, 1)
                collector.live()
                assert collector.stop(20) == 0
            where = watch.judge(sent, 2 * HOPS)  # for a processor, and for the thread that counts to get one
        assert any(path.endswith("pending.db") for path in where), "they came when all of it had been read"
    rows = [row for row in check(site.spool()) if row.mt != CONTRACT]
    assert [row.m for row in rows[:LARGE_ROWS]] == [frame.m for frame in left]
    check_whole(rows[LARGE_ROWS:], sim.sent)


def test_first_frames_are_committed_while_an_export_of_the_spool_hangs(tmp_path: Path) -> None:
    """It is stopped in the middle of a file, with all that it holds then: its lock, the segment, the file."""
    folder = tmp_path / "0"
    folder.mkdir()
    with Simulator(SimulatorConfig(rate=RATE)) as sim:
        site = site_of(folder, sim, period="1h")
        fill(load(site.config), rows=LARGE_ROWS, start_ns=T0 // HOUR_NS * HOUR_NS)
        (before,) = read_segments(site.spool())
        export = subprocess.Popen([sys.executable, "-m", "mexc_pipeline", "--config", str(site.config), "export"])
        try:
            until(lambda: site.exports.is_dir() and any(site.exports.iterdir()), 60, "a file that is being written")
            export.send_signal(signal.SIGSTOP)
            (unfinished,) = site.exports.iterdir()
            assert unfinished.suffix != ".parquet"
            with watching(tmp_path) as watch, collecting(site) as collector:
                sent = _sent_on(sim, 1)
                watch.judge(sent)
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


def _sent_on(sim: Simulator, connection: int) -> list[SentFrame]:
    """What became rows of the first frames sent on it, once there are so many."""
    until(lambda: len(sim.sent_on(connection)) >= EACH, 60)
    return [frame for frame in sim.sent_on(connection) if wanted([frame])]


def _digest(frame: SentFrame) -> str:
    return hashlib.sha256(frame.payload).hexdigest()
