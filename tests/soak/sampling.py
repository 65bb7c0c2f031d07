"""What the recorder's processes and folders take, read from /proc and the file system."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mexc_pipeline.control import ControlError, ask

COLUMNS = ("seconds", "what", "rss", "pss", "handles", "threads", "bytes", "rows")
"""Of the CSV. ``seconds`` since the start; ``what``: a process (with rss and pss in bytes, handles, threads), a folder
(with bytes, as allocated) or a symbol's backlog (with rows)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One line; what does not belong to its kind is None."""

    seconds: float
    what: str
    rss: int | None = None
    pss: int | None = None
    handles: int | None = None
    threads: int | None = None
    bytes: int | None = None
    rows: int | None = None


def descendants(root: int) -> dict[int, str]:
    """Process id and name of everything below a process: ``collect btc``, ``store``; exports come and go as
    ``export``."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
            parents[int(entry.name)] = int(stat[stat.rindex(")") + 2 :].split()[1])
    found: dict[int, str] = {}
    for pid in parents:
        above = pid
        while above in parents and above != root:
            above = parents[above]
        if above == root and pid != root:
            found[pid] = _name(pid)
    return {pid: name for pid, name in found.items() if name}


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    if "collect" in words:
        return f"collector {words[words.index('collect') + 1]}"
    return next((word for word in ("store", "export") if word in words), "")


def process(seconds: float, pid: int, name: str) -> Sample | None:
    """Memory, handles and threads of a process; None where it has just ended."""
    folder = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        rollup = dict(line.split(":", 1) for line in (folder / "smaps_rollup").read_text().splitlines()[1:])
        return Sample(
            seconds,
            name,
            rss=int(rollup["Rss"].split()[0]) * 1024,
            pss=int(rollup["Pss"].split()[0]) * 1024,
            handles=len(os.listdir(folder / "fd")),  # noqa: PTH208 - names alone, of links that may lead nowhere
            threads=int(status["Threads"]),
        )
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return None  # a process that is ending has no memory map any more


def allocated(folder: Path) -> int:
    """Bytes that the files below a folder take on the disk; files that vanish meanwhile take none."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(f"{where}/{name}").st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def backlogs(control: Path) -> dict[str, int]:
    """Per symbol the rows that ClickHouse does not have yet; none while the store does not answer."""
    try:
        answer = ask(control / "store.sock", "status", timeout_s=5)
    except ControlError:
        return {}
    return {symbol_id: int(loaded["backlog"]) for symbol_id, loaded in answer["symbols"].items()}


def look(seconds: float, pids: dict[str, int], data: Path, exports: Path) -> Iterator[Sample]:
    """One round of samples. ``pids``: processes to look at beside what the one named ``run`` has below it."""
    processes = {pid: name for name, pid in pids.items()} | descendants(pids["run"])
    for pid, name in processes.items():
        sample = process(seconds, pid, name)
        if sample is not None:
            yield sample
    for name, folder in (("spool", data / "spool"), ("clickhouse", data / "clickhouse"), ("exports", exports)):
        yield Sample(seconds, name, bytes=allocated(folder))
    for symbol_id, rows in backlogs(data / "control").items():
        yield Sample(seconds, f"backlog {symbol_id}", rows=rows)


class Table:
    """The CSV of a run, written line by line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._writer = csv.writer(file)
        self._writer.writerow(COLUMNS)

    def add(self, samples: Iterator[Sample]) -> None:
        for sample in samples:
            self._writer.writerow([getattr(sample, name) for name in COLUMNS])
        self._file.flush()


def read(path: Path) -> list[Sample]:
    """The samples of a CSV."""

    def number(text: str) -> int | None:
        return int(text) if text else None

    with path.open(newline="") as file:
        return [
            Sample(float(row["seconds"]), row["what"], *(number(row[name]) for name in COLUMNS[2:]))
            for row in csv.DictReader(file)
        ]
