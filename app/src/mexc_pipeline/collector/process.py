"""What a collector process has whatever it records: its heap, its disk, its watchdog, its control socket."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Self

from mexc_pipeline import __version__, config, health, logs, notify, running
from mexc_pipeline.collector.disk import Disk
from mexc_pipeline.collector.recorder import PRUNE_S
from mexc_pipeline.collector.recording import Recording
from mexc_pipeline.control import ControlServer
from mexc_pipeline.errors import UserError
from mexc_pipeline.heap import Heap
from mexc_pipeline.rows import Mt
from mexc_pipeline.spool.disk_level import Level, Limits

log = logging.getLogger("mexc_pipeline.collector")

TRIM_S = 30.0
STATISTICS_S = 15.0
STUCK_S = 20.0
"""A loop without a sign of life for this long no longer feeds the watchdog."""


class Process:
    """Lets its recording run from the moment there is room for it until ``stop``; gives the reserve back at the end.

    ``repartition``: set where Tor's exits are to be repartitioned by the present configuration.
    """

    def __init__(
        self, settings: config.Config, recording: Recording, stop: threading.Event, repartition: threading.Event
    ) -> None:
        self._settings = settings
        self._recording = recording
        self._stop = stop
        self._repartition = repartition
        self._running = running.report(settings, recording.symbol)
        self._heap = Heap()
        limits = settings.spool
        self._disk = Disk(recording.folder, Limits(limits.warn_percent, limits.alert_percent, limits.reserve_mib << 20))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close()

    def run(self) -> int:
        """Record; returns the process's exit status. UserError and ConfigError where nothing is to be recorded here."""
        self._heap.share()
        if not self._wait_for_room():
            log.info("stopped before anything was recorded", extra={"fields": {"symbol": self._recording.symbol.id}})
            return 0
        self._recording.begin([] if self._disk.level is Level.OK else [self._disk.event()])
        if self._disk.level is Level.FULL:
            self._recording.hold(self._disk.reason)
        self._recording.start()
        server = self._serve()
        try:
            notify.ready()
            self._watch()
            notify.stopping()
        finally:
            self._recording.end(self._disk.close)
            server.close()
        return self._recording.verdict()

    def _serve(self) -> ControlServer:
        return ControlServer(
            self._settings.control_dir / f"{self._recording.symbol.id}.sock",
            {"status": self._status, "cut": self._cut, "rotate": self._recording.rotate},
            for_group=("status",),
        )

    def _wait_for_room(self) -> bool:
        """Wait until there is room enough to open the spool at all, alive and saying so; False where the process is
        told to stop before."""
        server: ControlServer | None = None
        next_prune = 0.0
        while not self._disk.roomy:
            if server is None:
                server = self._serve()
                notify.ready()
            notify.status(f"stopped: {self._disk.reason}")
            notify.watchdog()
            if time.monotonic() >= next_prune:
                next_prune = time.monotonic() + PRUNE_S
                self._recording.prune_for_room()
            if self._stop.wait(1.0):
                break
            self._disk.look(0.0)
        if server is not None:
            server.close()
        return not self._stop.is_set()

    def _watch(self) -> None:
        """Feed the watchdog while the recording's loops live; one line of statistics every 15 s."""
        next_line = time.monotonic() + STATISTICS_S
        next_trim = time.monotonic() + TRIM_S
        before = self._recording.rows()
        while not self._stop.wait(1.0):
            now = time.monotonic()
            self._recording.ask_time(now)
            if not self._recording.is_alive():
                return
            if now - self._recording.beat < STUCK_S:
                notify.watchdog()
            if not self._recording.keep_folder():
                return
            self._look_at_disk()
            if self._repartition.is_set():
                self._repartition.clear()
                self._repartition_exits()
            if now >= next_trim:
                next_trim = now + TRIM_S
                self._heap.give_back()
            if now >= next_line:
                next_line = now + STATISTICS_S
                before = self._line(before)

    def _repartition_exits(self) -> None:
        settings = self._recording.repartition()
        if settings is not None:
            now = running.report(settings, settings.symbol(self._recording.symbol.id))
            self._running = self._running | {key: now[key] for key in now if key == "deployment"}

    def _look_at_disk(self) -> None:
        """Say when the spool's disk fills up; stop the feed where it is full, start it again where there is room."""
        before = self._disk.level
        level = self._disk.look(self._recording.refused_s, self._recording.refusal)
        if level is before:
            return
        self._recording.note(Mt.EVENT, self._disk.event())
        if level is Level.FULL:
            self._recording.hold(self._disk.reason)
        elif before is Level.FULL:
            self._recording.resume()

    def _line(self, before: dict[str, int]) -> dict[str, int]:
        status = self._status({})
        fields, text = in_a_line(status, before, STATISTICS_S, self._recording.symbol.silent_s)
        log.info("statistics", extra={"fields": fields})
        notify.status(text)
        rows: dict[str, int] = status["rows"]
        return rows

    # -- what is asked over the control socket

    def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        said = self._recording.status()
        warning = self._disk.warning()
        return {
            **said,
            **({} if self._recording.has_begun else {"state": f"stopped: {self._disk.reason}"}),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "version": __version__,
            "running": self._running,
            "disk": self._disk.status(),
            "log_lines_lost": logs.lost(),
            "warnings": [*([warning] if warning else []), *said["warnings"]],
        }

    def _cut(self, _: dict[str, Any]) -> dict[str, Any]:
        if not self._recording.has_begun:
            why = self._disk.warning() or "it has just started"
            raise UserError(f"{self._recording.symbol.id} is not recording: {why}")
        return self._recording.cut()


def in_a_line(
    status: Mapping[str, Any], before: Mapping[str, int], seconds: float, silent_s: float | None
) -> tuple[dict[str, Any], str]:
    """The fields of the line of statistics, and what systemd shows. ``before``: the rows by type at the line before;
    ``silent_s`` as configured."""
    rows: Mapping[str, int] = status["rows"]
    state = health.of_symbol(status, silent_s=silent_s).state
    rates = {name: round((rows[name] - before[name]) / seconds, 2) for name in rows}
    frames_s = (health.market_frames(rows) - health.market_frames(before)) / seconds
    fields = {
        "symbol": status["id"],
        "state": state,
        "last_seq": status["last_seq"],
        **{f"{name}_s": rate for name, rate in rates.items() if rate},
        "reconnects": status["reconnects"],
        "delay_ms": status["delay_ms"],
        "durable_ms": status["durable_ms"],
        "disk_used_percent": status["disk"]["used_percent"],
    }
    return fields, f"{state}, seq {status['last_seq']}, {frames_s:.1f} frames/s"
