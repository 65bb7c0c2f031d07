"""The probe as a whole: threads that look, one that gathers, judges and keeps."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mexc_pipeline.config import Config, Symbol
from mexc_pipeline.egress.dial import Dial
from mexc_pipeline.egress.way import dial
from mexc_pipeline.exchange.protocol import Classifier, subscriptions
from mexc_pipeline.probe.bundle import BundleWriter
from mexc_pipeline.probe.judge import ProbeReport, judge
from mexc_pipeline.probe.observe import Observer
from mexc_pipeline.probe.records import Record
from mexc_pipeline.probe.session import ProbeSession, configured, others
from mexc_pipeline.text import clean

GOODBYE_S = 2.5
"""For an orderly end when the probe is stopped early."""
WAIT_S = 0.2
"""For a record, and between two words of progress."""


def probe(
    config: Config,
    symbols: Sequence[Symbol],
    seconds: float,
    save: Path | None = None,
    progress: Callable[[float, int], None] = lambda _left, _frames: None,
    stop: threading.Event | None = None,
    dialler: Dial = dial,
) -> ProbeReport:
    """Listen for ``seconds`` and compare what came with what is expected. ``progress`` is told the seconds left and
    the frames so far, a few times a second. ``stop``, once set, ends it early, with what was seen until then.
    Touches no spool; attempts to connect are counted with those of a recorder that shares the folders.

    Raises UserError where the bundle cannot be begun.
    """
    stop = threading.Event() if stop is None else stop
    names = [symbol.name for symbol in symbols]
    arrived: queue.SimpleQueue[Record] = queue.SimpleQueue()
    session = ProbeSession(config.exchange, seconds, arrived.put, dialler, config.control_dir / "attempts")
    observer = Observer(
        {s.name: Classifier(s.name, subscriptions(s.name, s.channels)) for s in symbols}, time.time() * 1000
    )
    began = next_word = time.monotonic()
    give_up: float | None = None
    with BundleWriter(save, names, seconds) as bundle:
        session.start([*(configured(symbol) for symbol in symbols), others(symbols[0])])
        while True:
            running = session.running  # asked before the queue is: what it put there last is then seen
            try:
                record = arrived.get(timeout=WAIT_S) if running else arrived.get_nowait()
            except queue.Empty:
                if not running:
                    break
            else:
                observer.see(record)
                bundle.keep(record)
            now = time.monotonic()
            if stop.is_set() and give_up is None:
                give_up = now + GOODBYE_S
                session.stop()
            if give_up is not None and now >= give_up:
                break  # a step of connecting that has a deadline of its own is not waited for
            if now >= next_word:
                next_word = now + WAIT_S
                progress(began + seconds - now, observer.frames)
    listened = min(seconds, time.monotonic() - began)
    way = symbols[0].egress.mode
    exchange = config.exchange
    report = judge(
        observer, ", ".join(exchange.websocket_urls), ", ".join(exchange.rest_urls), way, names, listened, stop.is_set()
    )
    report = replace(report, unsaved=bundle.trouble)
    if session.uncounted is not None:
        report.notes.append(clean(f"attempts to connect were not counted with the recorder's: {session.uncounted}"))
    return report
