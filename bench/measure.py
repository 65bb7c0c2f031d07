"""What processes cost, as the kernel counts it: CPU as scheduler run time of every thread, and resident memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


def threads_ns(pid: int) -> dict[str, int]:
    """Scheduler run time in ns by thread id, of the threads the process has now; empty for a process that is gone."""
    found: dict[str, int] = {}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found[task.name] = int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):  # the thread ended between the listing and the reading
            continue
    return found


def cpu_ns(pid: int) -> int:
    """Scheduler run time of all threads the process has now, in ns; 0 for a process that is gone.

    Threads that ended take theirs along: measure processes whose threads live on. Those that answer a status request
    do not, so that asking is not in the figures.
    """
    return sum(threads_ns(pid).values())


def rss_mb(pid: int, field: str = "VmRSS") -> float:
    """Resident memory in MB (``VmHWM``: the most it ever was); 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds per process name and the seconds that passed."""

    cpu_s: dict[str, float]
    seconds: float

    def of(self, *names: str) -> float:
        """CPU seconds of the processes whose name begins with one of these."""
        return sum(cpu for name, cpu in self.cpu_s.items() if name.startswith(names))


class Window:
    """From its making to :meth:`close`."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._before = {name: cpu_ns(pid) for name, pid in pids.items()}
        self._began = time.monotonic()

    def close(self) -> Spent:
        seconds = time.monotonic() - self._began
        return Spent({n: (cpu_ns(p) - self._before[n]) / 1e9 for n, p in self._pids.items()}, seconds)


@dataclass(frozen=True, slots=True)
class Spread:
    """Several takes of one figure."""

    median: float
    low: float
    high: float
    takes: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """ValueError where there is none."""
        every = list(values)
        if not every:
            raise ValueError("nothing was measured")
        return cls(median(every), min(every), max(every), len(every))


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
