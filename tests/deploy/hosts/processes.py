"""Processes that this package started, remembered across runs so that nothing else is ever ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.hosts.errors import HostsError


@dataclass(frozen=True, slots=True)
class Process:
    """A process by id and start time (clock ticks since boot), so that a reused id is not mistaken for it."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this id now. Raises ProcessLookupError."""
        started = _started(pid)
        if started is None:
            raise ProcessLookupError(pid)
        return cls(pid, started)

    @classmethod
    def read(cls, file: Path) -> Process | None:
        """What ``write`` left there; None without such a file."""
        try:
            pid, started = file.read_text().split()
        except FileNotFoundError:
            return None
        return cls(int(pid), int(started))

    def write(self, file: Path) -> None:
        file.write_text(f"{self.pid} {self.started}\n")

    def alive(self) -> bool:
        return _started(self.pid) == self.started

    def signal(self, number: int) -> None:
        """Send a signal if it is still the same process."""
        if self.alive():
            os.kill(self.pid, number)

    def first_child(self) -> int | None:
        """The id of its oldest child, or None."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except FileNotFoundError:
            return None
        return int(children[0]) if children else None


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for the condition. Raises HostsError when it takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise HostsError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)


def _started(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])
