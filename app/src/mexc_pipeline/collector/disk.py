"""Watches the file system of one spool folder and owns its reserve."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mexc_pipeline.events import SpoolLow
from mexc_pipeline.spool.disk_level import Level, Limits, Usage, judge, no_room
from mexc_pipeline.spool.reserve import Reserve
from mexc_pipeline.text import with_advice

log = logging.getLogger("mexc_pipeline.collector")

NO_ROOM = "spool full"
REFUSED = "spool refuses"
"""Why the feed is held; they stand in ``disconnected`` and ``stopped`` rows."""
_MIB = 1 << 20


class Disk:
    """Watches the disk under one spool folder and holds its reserve; used by one thread, :meth:`status` and
    :meth:`warning` also by others.

    The reserve is held exactly while the level is below FULL, until :meth:`close`.
    """

    def __init__(self, folder: Path, limits: Limits, usage: Callable[[Path], Usage] = Usage.of) -> None:
        self._folder = folder
        self._limits = limits
        self._usage_of = usage
        self._reserve = Reserve(folder, limits.reserve)
        self._trouble: str | None = None
        self._refusal: str | None = None
        self._said = Level.OK
        self._usage = usage(folder)
        self.level = Level.OK if self._reserve.is_held() else Level.FULL
        self.look(0.0)

    @property
    def roomy(self) -> bool:
        """Whether a spool can be opened here: segments are read through files that SQLite must be able to make."""
        return self._usage.free >= self._limits.low

    @property
    def reason(self) -> str:
        """Why nothing is recorded while the level is FULL."""
        return NO_ROOM if self._refusal is None else REFUSED

    def look(self, refused_s: float, refusal: str | None = None) -> Level:
        """Measure, and hold or free the reserve by what is found; ``refused_s`` see :func:`judge`, ``refusal`` is why
        where that is not for want of room. Some microseconds, but for the moment in which the reserve is made."""
        before = self.level
        if refused_s > 0 or before is not Level.FULL:
            self._refusal = refusal
        try:
            self._usage = self._usage_of(self._folder)
        except OSError as error:
            self._say_trouble(f"cannot be measured: {error.strerror or error}")
            return before
        self.level = judge(before, self._usage, self._limits, refused_s)
        if before is Level.FULL and self.level is not Level.FULL:
            self._make()
        if self.level is Level.FULL:
            self._release()
        if self.level is not self._said:
            self._say()
        return self.level

    def close(self) -> None:
        """Give the reserve back, from any thread: what is recorded here will soon be over, and nobody looks again."""
        self._release()

    def move(self, folder: Path) -> None:
        """Look at another folder of the file system from now on, and hold the reserve there."""
        self._folder = folder
        self._reserve.move(folder)
        if self.level is not Level.FULL and not self._reserve.is_held():
            self._make()

    def _make(self) -> None:
        try:
            self._reserve.make()
            self._usage = self._usage_of(self._folder)
        except OSError as error:
            trouble = f"the reserve cannot be made: {error.strerror or error}"
            self._say_trouble(trouble)
            self.level, self._refusal = Level.FULL, None if no_room(error) else trouble
        else:
            self._trouble = None
            self.level = judge(Level.OK, self._usage, self._limits)

    def _release(self) -> None:
        try:
            self._reserve.release()
            self._usage = self._usage_of(self._folder)
        except OSError as error:  # tried again at the next look
            self._say_trouble(f"the reserve cannot be freed: {error.strerror or error}")

    def _say_trouble(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.error("spool disk", extra={"fields": {"folder": str(self._folder), "trouble": trouble}})
        self._trouble = trouble

    def _say(self) -> None:
        self._said = self.level
        severity = {Level.OK: logging.INFO, Level.WARN: logging.WARNING}.get(self.level, logging.ERROR)
        figures = self._figures()
        fields = {"folder": str(self._folder), "room": figures.pop("level"), **figures}
        log.log(severity, "spool disk", extra={"fields": fields})

    def _figures(self) -> dict[str, Any]:
        usage = self._usage
        return {
            "level": "refused" if self.level is Level.FULL and self._refusal else self.level.name.lower(),
            "used_percent": round(usage.percent, 1),
            "free_mib": usage.free // _MIB,
        }

    def event(self) -> bytes:
        """The ``spool_low`` row that tells of the present level."""
        return SpoolLow(**self._figures()).m

    def status(self) -> dict[str, Any]:
        """``level``, ``used_percent``, ``free_mib``, ``reserve_mib`` (0 while it is free), ``warning`` for people, None
        while there is nothing, and ``todo``: what to do then."""
        held = 0 if self.level is Level.FULL else self._limits.reserve // _MIB
        warning, todo = self._told()
        return {**self._figures(), "reserve_mib": held, "warning": warning, "todo": todo}

    def warning(self) -> str | None:
        """What a user should know and do, as one line; None while there is nothing."""
        text, todo = self._told()
        return None if text is None else with_advice(text, todo)

    def _told(self) -> tuple[str | None, str]:
        usage, trouble = self._usage, f"; {self._trouble}" if self._trouble else ""
        if self.level is Level.FULL and self._refusal is not None:
            text = f"recording has stopped: {self._folder} refuses what is written to it ({self._refusal})"
            return text, "mend that, and recording goes on by itself"
        if self.level is Level.FULL:
            figures = f"{usage.free // _MIB} MiB free{trouble}"
            return f"recording has stopped: the file system of {self._folder} is full ({figures})", self._room()
        if self.level is Level.OK:
            return (f"spool disk: {self._trouble}" if self._trouble else None), ""
        return (
            f"the file system of {self._folder} is {usage.percent:.0f} % full ({usage.free // _MIB} MiB free); "
            f"recording stops with less than {self._limits.low // _MIB} MiB"
        ), "free some"

    def _room(self) -> str:
        """What makes recording go on, where that can be on a file system of this size."""
        again = self._limits.again // _MIB
        if (too_small := self._limits.too_small(self._usage)) is not None:
            return f"recording needs {again} MiB free, and {too_small}"
        return f"free some: with {again} MiB free recording goes on by itself"
