"""How full the spool's file system may become: what is said, and when recording stops and goes on. Pure but for
:meth:`Usage.of`.

While a collector records it holds a reserve, a file whose blocks are allocated. Where there is no room beside the
reserve, it is freed for the last words.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from mexc_pipeline.config import LEAST_RESERVE_MIB

REFUSED_S = 5.0
"""Writes refused for this long mean that nothing can be recorded, whatever room the file system says it has (a quota,
no inodes, a limit, a file system that became read-only): what is received is in memory only, which no kill survives."""
LEAST_FREE = 256 << 20
"""Bytes below which recording does not start, and files may not fit where they are put."""
STEADY = 1.0
"""Percent points below its threshold at which a level ends."""


class Level(IntEnum):
    """How full the disk is; from ``FULL`` on nothing is recorded and the reserve is free."""

    OK = 0
    WARN = 1
    ALERT = 2
    FULL = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a level: ``warn`` and ``alert`` in percent used, ``reserve`` in bytes."""

    warn: float
    alert: float
    reserve: int

    @property
    def low(self) -> int:
        """Bytes that must be free beside the reserve; with fewer recording stops."""
        return self.reserve // 4

    @property
    def again(self) -> int:
        """Bytes that must be free without the reserve before recording goes on: it is made again, and then as much as
        it holds must be left, or one busy minute would stop it anew."""
        return 2 * self.reserve + self.low

    def too_small(self, usage: Usage) -> str | None:
        """How large the file system is and what to do, where it can never have :attr:`again` free; else None."""
        total = usage.used + usage.free
        if total >= self.again:
            return None
        mib = max(LEAST_RESERVE_MIB, (total * 2 // 9) >> 20)  # half of the file system is then room enough
        less = f", or set spool.reserve_mib to {mib}" if Limits(0, 0, mib << 20).again <= total else ""
        return f"this disk has {total >> 20} MiB in all: record on a larger one{less}"


@dataclass(frozen=True, slots=True)
class Usage:
    """A file system's bytes, as df counts them: ``free`` to ordinary users."""

    used: int
    free: int

    @property
    def percent(self) -> float:
        """Percent used, as df counts it."""
        return 100 * self.used / (self.used + self.free) if self.used + self.free else 100.0

    @classmethod
    def of(cls, folder: Path) -> Usage:
        """The bytes of the file system that holds the folder. Raises OSError."""
        found = os.statvfs(folder)
        return cls((found.f_blocks - found.f_bfree) * found.f_frsize, found.f_bavail * found.f_frsize)


def judge(before: Level, usage: Usage, limits: Limits, refused_s: float = 0.0) -> Level:
    """The level after ``before``. ``refused_s``: for how long writes have been refused, 0 for not.

    Before and after agree on whether the reserve is held, so ``usage`` is without it where ``before`` is FULL.
    """
    if before is Level.FULL:
        if refused_s > 0 or usage.free < limits.again:
            return Level.FULL
    elif usage.free < limits.low or refused_s >= REFUSED_S:
        return Level.FULL
    for level, threshold in ((Level.ALERT, limits.alert), (Level.WARN, limits.warn)):
        if usage.percent >= threshold - (STEADY if level <= before < Level.FULL else 0.0):
            return level
    return Level.OK


def no_room(error: BaseException) -> bool:
    """Whether a write failed for want of room."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
