"""Builds the preloaded library, and says in Python what it understands: kill points, disk errors, a slow disk, a
false clock."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import shutil
import struct
import subprocess
import time
from dataclasses import dataclass
from enum import IntEnum
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parent / "shim" / "faults.c"
SETTING_NS = 10_000_000
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mexc-pipeline-faults"
_CONTROL = struct.Struct("<qqqiIIIqqqqIIqqq")


class Op(IntEnum):
    """Calls that count, as in faults.c."""

    WRITE = 1
    TRUNCATE = 2
    SYNC = 3
    DIRSYNC = 4
    CREATE = 5
    LINK = 6
    UNLINK = 7
    RENAME = 8
    MKDIR = 9
    CRASH = 10
    OPEN = 11


class Where(IntEnum):
    """At which moment of the call the process dies; MIDDLE is for writes, elsewhere it means AFTER."""

    BEFORE = 0
    AFTER = 1
    MIDDLE = 2


class NoCompilerError(Exception):
    """The library cannot be built here."""


def library() -> Path:
    """The compiled library, from the cache where the source has not changed. NoCompilerError without gcc."""
    target = CACHE / f"faults-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"
    if target.exists():
        return target
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoCompilerError("the fault campaign needs a C compiler: apt install gcc libc6-dev")
    CACHE.mkdir(parents=True, exist_ok=True)
    making = target.with_suffix(f".{os.getpid()}")
    subprocess.run(
        [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", str(making), str(SOURCE), "-ldl", "-lpthread"], check=True
    )
    making.rename(target)
    return target


@dataclass(frozen=True, slots=True)
class Kill:
    """Die at the ``nth`` call of these kinds below the prefixes (positions) on a path with that ending."""

    ops: tuple[Op, ...]
    nth: int
    where: Where = Where.BEFORE
    ending: str = ""
    prefixes: tuple[int, ...] = (0, 1)

    def __str__(self) -> str:
        ops = sum(1 << op for op in self.ops)
        return f"{ops}:{sum(1 << p for p in self.prefixes)}:{self.nth}:{self.where.value}:{self.ending}"


@dataclass(frozen=True, slots=True)
class Crash:
    """One line of the crash file: which process died in which call on which path, when (CLOCK_MONOTONIC ns)."""

    pid: int
    op: Op
    where: Where
    time_ns: int
    path: str

    @property
    def step(self) -> str:
        """The step in words, without the parts of the path that differ from run to run."""
        name = Path(self.path).name
        kinds = {
            "-wal": "write-ahead log",
            "-journal": "rollback journal",
            ".sqlite.new": "new segment",
            ".sqlite": "segment",
            ".tmp": "temporary file",
            ".parquet": "file",
            "lock": "lock",
        }
        kind = next((text for end, text in kinds.items() if name.endswith(end)), "folder")
        where = Where.AFTER if self.where == Where.MIDDLE and self.op != Op.WRITE else self.where
        return f"{where.name.lower()} {self.op.name.lower()} of {kind}"


def crashes(path: Path) -> list[Crash]:
    """What has died so far."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        pid, op, where, time_ns, name = line.split(" ", 4)
        found.append(Crash(int(pid), Op(int(op)), Where(int(where)), int(time_ns), name))
    return found


class _Clock(NamedTuple):
    """A setting of the false clock, from a true moment (Unix ns) on."""

    since_ns: int
    offset_ns: int
    slew_ppb: int

    def shows(self, at_ns: int) -> int:
        return at_ns + self.offset_ns + (at_ns - self.since_ns) * self.slew_ppb // 10**9


class Control:
    """The memory shared with running processes: disk errors, slowness and the clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(_CONTROL.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _CONTROL.size)
        self._clocks = [_Clock(0, 0, 0)]

    def close(self) -> None:
        self._map.close()

    def fail(
        self,
        number: int,
        ops: tuple[Op, ...],
        prefixes: tuple[int, ...],
        *,
        skip: int = 0,
        count: int = -1,
        short: bool = False,
    ) -> None:
        """From the ``skip``-th matching call on, ``count`` calls (-1: all) fail with that errno."""
        mask = sum(1 << op for op in ops)
        where = sum(1 << p for p in prefixes)
        # The errno last: the other side looks at it first.
        struct.pack_into("<IIIqqq", self._map, 28, mask, where, int(short), skip, count, 0)
        struct.pack_into("<i", self._map, 24, number)

    def heal(self) -> int:
        """Nothing fails any more; how many calls did."""
        struct.pack_into("<i", self._map, 24, 0)
        return self.failed

    @property
    def failed(self) -> int:
        return int(struct.unpack_from("<q", self._map, 56)[0])

    def slow(self, length_ns: int, ops: tuple[Op, ...], prefixes: tuple[int, ...], *, skip: int, count: int) -> None:
        """From the ``skip``-th matching call on, ``count`` calls take so much longer."""
        mask = sum(1 << op for op in ops)
        where = sum(1 << p for p in prefixes)
        struct.pack_into("<IIqqq", self._map, 72, mask, where, skip, count, 0)
        struct.pack_into("<q", self._map, 64, length_ns)

    def quicken(self) -> int:
        """Nothing is slow any more; how many calls were, those included that are not over yet."""
        struct.pack_into("<q", self._map, 64, 0)
        return self.slowed

    @property
    def slowed(self) -> int:
        return int(struct.unpack_from("<q", self._map, 96)[0])

    def clock(self, offset_ns: int, slew_ppb: int = 0) -> None:
        """Set the false clock: an offset, and how fast it runs away from now on."""
        since = time.time_ns()
        struct.pack_into("<qqq", self._map, 0, offset_ns, slew_ppb, time.monotonic_ns())
        self._clocks.append(_Clock(since, offset_ns, slew_ppb))

    def shown(self, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
        """What the false clock showed from one true moment to another (Unix ns): a first and a last value for each of
        its settings that held within them, in any order where it ran backwards."""
        found = []
        for clock, following in zip_longest(self._clocks, self._clocks[1:]):
            first = max(start_ns, clock.since_ns)
            # The next one was set a moment after the time that is noted for it.
            last = end_ns if following is None else min(end_ns, following.since_ns + SETTING_NS)
            if first <= last:
                found.append((clock.shows(first), clock.shows(last)))
        return found


DISK_FULL, READ_ONLY, IO_ERROR = errno.ENOSPC, errno.EROFS, errno.EIO
CHANGES = (Op.WRITE, Op.TRUNCATE, Op.SYNC, Op.DIRSYNC, Op.CREATE, Op.LINK, Op.UNLINK, Op.RENAME, Op.MKDIR)
