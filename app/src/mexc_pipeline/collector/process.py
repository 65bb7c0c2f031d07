"""What a collector process has whatever it records: its heap, its disk, its watchdog, its control sockets."""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

from mexc_pipeline import __version__, config, logs, notify
from mexc_pipeline.collector.disk import REFUSED, Disk
from mexc_pipeline.collector.line import StatisticsLine, for_systemd, in_a_line
from mexc_pipeline.collector.recorder import PRUNE_S
from mexc_pipeline.collector.recording import Recording
from mexc_pipeline.collector.refusals import holds_alone, of_the_disk
from mexc_pipeline.control import ControlServer
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.heap import Heap
from mexc_pipeline.rows import Mt
from mexc_pipeline.spool.disk_level import Level, Limits
from mexc_pipeline.spool.segment import UnavailableError
from mexc_pipeline.spool.unexported import Unexported

log = logging.getLogger("mexc_pipeline.collector")

TRIM_S = 30.0
STATISTICS_S = 15.0
STUCK_S = 20.0
"""A loop without a sign of life for this long no longer feeds the watchdog."""


class Process:
    """Lets its recordings (at least one) run from the moment there is room for them until ``stop``, or until none is
    left; gives the reserve back at the end. One that ends before the others is parted with, and they go on.

    ``repartition``: set where Tor's exits are to be repartitioned by the present configuration.
    """

    def __init__(
        self,
        settings: config.Config,
        recordings: Sequence[Recording],
        stop: threading.Event,
        repartition: threading.Event,
    ) -> None:
        self._settings = settings
        self._recordings = tuple(recordings)
        self._left = list(recordings)
        """Those that have not ended."""
        self._servers: dict[Recording, ControlServer] = {}
        self._rows: dict[Recording, dict[str, int]] = {}
        """Rows by type at the last line of statistics."""
        self._stop = stop
        self._repartition = repartition
        self._heap = Heap()
        limits = settings.spool
        self._unexported = {recording: Unexported(recording.folder) for recording in self._recordings}
        self._keeper = self._recordings[0]
        """In whose folder the reserve is."""
        self._disk = Disk(
            self._keeper.folder, Limits(limits.warn_percent, limits.alert_percent, limits.reserve_mib << 20)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close()

    def run(self) -> int:
        """Record; returns the exit status that tells most of what is to be done: 1 where any recording lost rows or
        ended of itself, 0 where all were told to end. UserError and ConfigError where something is not to be recorded
        here: the latter where to start again would help none of them."""
        self._heap.share()
        if not self._wait_for_room():
            for recording in self._recordings:
                log.info("stopped before anything was recorded", extra={"fields": {"symbol": recording.symbol.id}})
            return 0
        self._begin()
        self._part()
        if self._left:
            self._serve()
            try:
                notify.ready()
                self._watch()
                notify.stopping()
            finally:
                self._end()
        return self._verdict()

    def _serve(self) -> None:
        for recording in self._left:
            self._servers[recording] = ControlServer(
                self._settings.control_dir / f"{recording.symbol.id}.sock",
                {
                    "status": partial(self._asked, recording),
                    "cut": partial(self._cut, recording),
                    "rotate": recording.rotate,
                },
                for_group=("status",),
            )

    def _wait_for_room(self) -> bool:
        """Wait until there is room enough to open a spool at all, alive and saying so; False where the process is told
        to stop before."""
        next_prune = 0.0
        in_turn = itertools.cycle(self._recordings)
        while not self._disk.roomy:
            if not self._servers:
                self._serve()
                notify.ready()
            notify.status(f"stopped: {self._disk.reason}")
            notify.watchdog()
            if time.monotonic() >= next_prune:
                next_prune = time.monotonic() + PRUNE_S
                prune_for_room(next(in_turn), self._recordings)
            if self._stop.wait(1.0):
                break
            self._disk.look(0.0)
        while self._servers:
            self._servers.popitem()[1].close()
        return not self._stop.is_set()

    def _begin(self) -> None:
        """All spools are on their way before the first is waited for; each recording starts as soon as it can."""
        words = [] if self._disk.level is Level.OK else [self._disk.event()]
        for recording in self._recordings:
            recording.open()
        for recording in self._recordings:
            recording.begin(words)
            if self._disk.level is Level.FULL:
                recording.hold(self._disk.reason)
            recording.start()

    def _part(self) -> None:
        """Part with those that have ended. Where there are others, it is said why: they go on, maybe for months."""
        for recording in [recording for recording in self._left if recording.ended.done()]:
            self._left.remove(recording)
            if (server := self._servers.pop(recording, None)) is not None:
                server.close()
            error = recording.ended.exception()
            if len(self._recordings) > 1 and (error is not None or recording.ended.result()):
                fields = {"symbol": recording.symbol.id, "left": len(self._left)}
                log.error(
                    "a recording has ended",
                    extra={"fields": {**fields, **({"why": str(error)} if error is not None else {})}},
                )

    def _end(self) -> None:
        """Tell all to end, then wait for them: they end side by side."""
        for recording in self._left:
            recording.end(self._disk.close)
        concurrent.futures.wait([recording.ended for recording in self._left])
        self._part()

    def _verdict(self) -> int:
        errors = [error for recording in self._recordings if (error := recording.ended.exception()) is not None]
        statuses = [recording.ended.result() for recording in self._recordings if recording.ended.exception() is None]
        again = [error for error in errors if not isinstance(error, ConfigError)]
        if again:
            raise again[0]
        if errors and not any(statuses):
            raise errors[0]
        return max(statuses)

    def _watch(self) -> None:
        """Part with recordings that have ended, feed the watchdog while the others' loops live, one line of statistics
        for each every 15 s; until told to stop, or until there is none left to watch."""
        next_line = time.monotonic() + STATISTICS_S
        next_trim = time.monotonic() + TRIM_S
        self._rows = {recording: recording.rows() for recording in self._left}
        while not self._stop.wait(1.0):
            now = time.monotonic()
            going = self._still_going(now)
            if not going:
                return
            if all(now - recording.beat < STUCK_S for recording in going):
                notify.watchdog()
            self._look_at_disk(going)
            if self._repartition.is_set():
                self._repartition.clear()
                for recording in going:
                    recording.repartition()
            for recording in going:
                recording.note_repartitioned()
            if now >= next_trim:
                next_trim = now + TRIM_S
                self._heap.give_back()
            if now >= next_line:
                next_line = now + STATISTICS_S
                lines = [self._line(recording) for recording in going]
                notify.status(for_systemd(lines, len(self._recordings)))

    def _still_going(self, now: float) -> list[Recording]:
        """The recordings that go on; where others do, one that cannot is told to end. The last ones are not: they end
        with the process."""
        self._part()
        going: list[Recording] = []
        over: list[Recording] = []
        for recording in self._left:
            if not recording.is_ending:
                recording.ask_time(now)
                (over if recording.is_over() else going).append(recording)
        if going:
            for recording in over:
                recording.end()
        return going

    def _look_at_disk(self, going: Sequence[Recording]) -> None:
        """Say when the spools' disk fills up; stop the feeds where it is full, start them again where there is room. A
        recording that alone cannot commit is stopped alone."""
        before = self._disk.level
        if self._keeper not in going:  # nobody sees any more that its folder stays
            self._keeper = going[0]
            self._disk.move(self._keeper.folder)
        refusals = [recording.refusal for recording in going]
        level = self._disk.look(*of_the_disk(refusals))
        for recording, refusal in zip(going, refusals, strict=True):
            if level is not before:
                recording.note(Mt.EVENT, self._disk.event())
            is_alone = holds_alone(refusal, recording.is_held)
            if not recording.is_held and (level is Level.FULL or is_alone):
                recording.hold(self._disk.reason if level is Level.FULL else REFUSED)
            elif recording.is_held and level is not Level.FULL and not is_alone:
                recording.resume()

    def _line(self, recording: Recording) -> StatisticsLine:
        status = self._status(recording)
        line = in_a_line(status, self._rows[recording], STATISTICS_S, recording.symbol.silent_s)
        log.info("statistics", extra={"fields": line.fields})
        self._rows[recording] = status["rows"]
        return line

    # -- what is asked over the control sockets

    def _asked(self, recording: Recording, _: dict[str, Any]) -> dict[str, Any]:
        return {**self._status(recording), "unexported_s": self._unexported_s(recording)}

    def _status(self, recording: Recording) -> dict[str, Any]:
        said = recording.status()
        disk = self._disk.status()
        warning = self._disk.warning()
        return {
            **said,
            **({} if recording.has_begun else {"state": f"stopped: {self._disk.reason}"}),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "version": __version__,
            "running": recording.running,
            "disk": disk,
            "log_lines_lost": logs.lost(),
            "warnings": [*([warning] if warning else []), *said["warnings"]],
        }

    def _unexported_s(self, recording: Recording) -> float | None:
        """For those who may ask and not look into the spool: age of the oldest period's end that has no file."""
        now = time.time_ns()
        try:
            since = self._unexported[recording].since_ns(now)
        except UnavailableError:
            return None  # its recording says so, and ends
        return None if since is None else round((now - since) / 1e9, 1)

    def _cut(self, recording: Recording, _: dict[str, Any]) -> dict[str, Any]:
        if not recording.has_begun:
            why = self._disk.warning() or "it has just started"
            raise UserError(f"{recording.symbol.id} is not recording: {why}")
        return recording.cut()


def prune_for_room(asked: Recording, recordings: Sequence[Recording]) -> None:
    """Delete proven segments of recordings that have not begun, where one of them learns by its way out that this
    host's clock is right: it is the same for all."""
    now_ns = asked.ask_clock()
    if now_ns is not None:
        for recording in recordings:
            recording.prune(now_ns)
