"""Wires a symbol's recording, its process and the signals together."""

from __future__ import annotations

import signal
import threading

from mexc_pipeline import config, signals
from mexc_pipeline.collector.process import Process
from mexc_pipeline.collector.recording import Recording
from mexc_pipeline.egress.dial import check_files
from mexc_pipeline.spool.label import check_label
from mexc_pipeline.spool.lock import SpoolLock

LOCK_WAIT_S = 2.0


def main(settings: config.Config, symbol: config.Symbol) -> int:
    """Record one symbol until SIGTERM or SIGINT. 0 after an orderly stop, 1 where frames could not be committed. Raises
    LockedError and UserError where another writer is alive or what must be mounted is not, ConfigError where a later
    version wrote the spool or a configured file is missing.

    SIGHUP: repartition Tor's exits by the configuration's present list of symbols."""
    stop, repartition = threading.Event(), threading.Event()
    asked: dict[int, signals.Action] = {
        signal.SIGTERM: stop.set,
        signal.SIGINT: stop.set,
        signal.SIGHUP: repartition.set,
    }
    check_files(symbol.egress, settings.exchange.ca_file)
    config.check_mounted(settings)
    # An export takes the lock for a moment to close what a collector left open; that is worth waiting for.
    with signals.handled(asked), SpoolLock(settings.spool_dir / symbol.id, wait_s=LOCK_WAIT_S) as lock:
        check_label(settings, symbol)
        with Process(settings, [Recording(settings, symbol, lock)], stop, repartition) as process:
            return process.run()
