"""What the machine's scheduling holds back, measured beside a test: only that is forgiven to what must be in time."""

from __future__ import annotations

import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from support.waiting import until

HOPS = 3
"""How often a frame waits for a processor on its way to the disk: to be sent, to be read, to be committed."""
EVERY_NS = 5_000_000
_MEASURE = """
import os, sys, time
every_ns = int(sys.argv[1])
page = os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY) if sys.argv[2:] else None
while True:
    due = time.time_ns() + every_ns
    time.sleep(every_ns / 1e9)
    if page is not None:
        os.pwrite(page, bytes(4096), 0)
        os.fsync(page)
    print(due, time.time_ns(), flush=True)
"""


class Wait(NamedTuple):
    """From when to when (Unix ns) the machine kept a process from going on."""

    since_ns: int
    until_ns: int


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """So many processes that compute without an end."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        started += [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        yield
    finally:
        for process in started:
            process.kill()
            process.wait(10)


class Scheduling:
    """The waits of a process that is to be woken each few milliseconds, as it writes them down at ``said``. With
    ``synced``, a file, also those for a page to be on the disk."""

    def __init__(self, said: Path, synced: Path | None = None) -> None:
        self._said = said
        command = [sys.executable, "-c", _MEASURE, str(EVERY_NS), *([str(synced)] if synced is not None else [])]
        with said.open("wb") as to:
            self._process = subprocess.Popen(command, stdout=to)
        until(self.waits, 60, "a first wait")

    def waits(self) -> list[Wait]:
        whole = self._said.read_text().rpartition("\n")[0]
        return [Wait(*map(int, line.split())) for line in whole.splitlines()]

    def finish(self) -> list[Wait]:
        """All waits up to now, one that is going on at this moment too."""
        now = time.time_ns()
        until(lambda: self.waits()[-1].until_ns > now, 60, "the measuring process")
        self.close()
        return self.waits()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)


@contextmanager
def measured(said: Path, synced: Path | None = None) -> Iterator[Scheduling]:
    """Measuring as long as it lasts."""
    scheduling = Scheduling(said, synced)
    try:
        yield scheduling
    finally:
        scheduling.close()


def held_ns(waits: Sequence[Wait], since_ns: int, until_ns: int, hops: int = HOPS) -> int:
    """How much later than on an idle machine what came at the one moment may be done at the other: as often as a frame
    waits, the longest of the waits that lie between them, be it in part."""
    first = bisect_right(waits, since_ns, key=lambda wait: wait.until_ns)
    there = takewhile(lambda wait: wait.since_ns < until_ns, (waits[n] for n in range(first, len(waits))))
    return hops * max((wait.until_ns - wait.since_ns for wait in there), default=0)


def due(sent_ns: Sequence[int], end_ns: int, bound_ns: int, waits: Sequence[Wait]) -> int:
    """How many of the frames sent at these moments, one after the other, must be on the disk where the process was
    killed at ``end_ns``: all up to the last that had longer than the bound and what scheduling held back since."""
    for n in range(len(sent_ns), 0, -1):
        if end_ns - sent_ns[n - 1] > bound_ns + held_ns(waits, sent_ns[n - 1], end_ns):
            return n
    return 0
