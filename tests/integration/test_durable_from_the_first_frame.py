"""Receive to durable from the first frame of a process on: kill -9 at random moments of its first seconds, on a machine
with eight busy processes, the store answering late or not being there."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mexc_pipeline.control import ControlServer
from mexc_pipeline.simulator import Simulator, SimulatorConfig
from support.collecting import Collector, frames, site_of, wanted
from support.spooled import check, named
from support.waiting import until

BUSY = 8
KILLS = 6
DURABLE_S = 0.25
"""What a frame may take to the disk on a machine that runs nothing else."""
MOST_LATE_S = 1.5
"""More lateness than this is not forgiven, whatever the machine does."""
_SPIN = "while True: pass"
_WITNESS = """
import sys, time
most = 0.0
while True:
    before = time.monotonic()
    sum(range(2000))
    time.sleep(0.005)
    late = time.monotonic() - before - 0.005
    if late > most:
        most = late
        print(most, flush=True)
"""


@contextmanager
def busy(count: int) -> Iterator[subprocess.Popen[str]]:
    """So many processes that compute without an end, and one that waits like a recorder: it prints how late it was
    woken at most."""
    spinning = [subprocess.Popen([sys.executable, "-c", _SPIN], text=True) for _ in range(count)]
    witness = subprocess.Popen([sys.executable, "-c", _WITNESS], stdout=subprocess.PIPE, text=True)
    try:
        yield witness
    finally:
        for process in (*spinning, witness):
            process.kill()
            process.wait(10)


def _late(_: dict[str, object]) -> dict[str, object]:
    time.sleep(4)
    return {"last_seq": 0, "writer": None}


@pytest.mark.parametrize("store", ["absent", "silent"])
def test_kill_9_in_the_first_seconds_on_a_busy_machine(tmp_path: Path, store: str) -> None:
    rng = random.Random(20261125)
    killed_ns: list[int] = []
    with Simulator(SimulatorConfig(rate=200)) as sim, busy(BUSY) as witness:
        site = site_of(tmp_path, sim)
        server = None
        if store == "silent":
            server = ControlServer(site.data / "control" / "store.sock", {"known": _late})
        for n in range(KILLS):
            collector = Collector(site)
            try:
                until(lambda n=n: len(sim.connections) > n and sim.sent_on(n + 1), 60)  # type: ignore[misc]
                time.sleep(rng.random() * 1.5)  # the moment of death, not a wait for anything
            finally:
                killed_ns.append(time.time_ns())
                collector.kill()
        if server is not None:
            server.close()
        with_last = Collector(site)
        try:
            with_last.live()
        finally:
            with_last.stop(20)
        witness.kill()
        assert witness.stdout is not None
        late_s = max(map(float, witness.stdout.read().split()), default=0.0)
    rows = check(site.spool())
    starts = [event["seq"] for event in named(rows, "started")] + [rows[-1].seq + 1]
    assert len(starts) == KILLS + 2
    allowed_ns = int((DURABLE_S + min(late_s, MOST_LATE_S)) * 1e9)
    for n, killed in enumerate(killed_ns):
        got = frames([r for r in rows if starts[n] <= r.seq < starts[n + 1]])
        sent = sim.sent_on(n + 1)
        assert got == wanted(sent)[: len(got)], "each once, in order"
        due = wanted([frame for frame in sent if frame.time_ns < killed - allowed_ns])
        assert len(got) >= len(due), f"start {n}: {len(due) - len(got)} of {len(due)} frames lost, {late_s=}"
