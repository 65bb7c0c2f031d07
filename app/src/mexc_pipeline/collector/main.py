"""Wires one symbol's feed, inbox, recorder, control socket and signals into the collector process."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from mexc_pipeline import __version__, config, notify, signals
from mexc_pipeline.collector import resume
from mexc_pipeline.collector.disk import REASON, Disk
from mexc_pipeline.collector.exits import Exits
from mexc_pipeline.collector.heap import Heap
from mexc_pipeline.collector.inbox import Inbox
from mexc_pipeline.collector.known import Known, known
from mexc_pipeline.collector.preflight import Listing, ask_listing, ask_time, until_listed
from mexc_pipeline.collector.recorder import PRUNE_S, Recorder
from mexc_pipeline.collector.statistics import Statistics
from mexc_pipeline.control import ControlServer
from mexc_pipeline.egress.dial import EgressError, check_files, dial
from mexc_pipeline.egress.tor import Tor
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.feed import attempts
from mexc_pipeline.feed.attempts import Attempts
from mexc_pipeline.feed.clock import Clock
from mexc_pipeline.feed.feed import UNLISTED, Feed
from mexc_pipeline.rows import Frame, Mt, event
from mexc_pipeline.spool.label import check_label
from mexc_pipeline.spool.lifecycle import prune
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.room import Level, Limits
from mexc_pipeline.spool.segment import NewerFormatError, SegmentError, info, segments
from mexc_pipeline.spool.writer import Spool, last_rx

log = logging.getLogger("mexc_pipeline.collector")

LOCK_WAIT_S = 2.0
TRIM_S = 30.0
STATISTICS_S = 15.0
STUCK_S = 20.0
"""A loop without a sign of life for this long no longer feeds the watchdog."""
ASK_TIME_S = 30.0
"""Between two requests for the exchange's time while this host's clock has not been compared with it."""
FEED_END_S = 3.0
COMMIT_END_S = 1.0


def main(settings: config.Config, symbol: config.Symbol) -> int:
    """Record one symbol until SIGTERM or SIGINT. 0 after an orderly stop, 1 where frames could not be committed. Raises
    LockedError and UserError where another writer is alive or what must be mounted is not, ConfigError where a later
    version wrote the spool or a configured file is missing.

    SIGHUP: share Tor's exits out anew, by the configuration's present list of symbols."""
    stop, share_anew = threading.Event(), threading.Event()
    asked: dict[int, signals.Action] = {
        signal.SIGTERM: stop.set,
        signal.SIGINT: stop.set,
        signal.SIGHUP: share_anew.set,
    }
    check_files(symbol.egress, settings.exchange.ca_file)
    config.check_mounted(settings)
    # An export takes the lock for a moment to close what a collector left open; that is worth waiting for.
    with signals.handled(asked), SpoolLock(settings.spool_dir / symbol.id, wait_s=LOCK_WAIT_S):
        check_label(settings, symbol)
        collector = _Collector(settings, symbol, stop, share_anew)
        try:
            return collector.run()
        finally:
            collector.close()


class _Collector:
    def __init__(
        self, settings: config.Config, symbol: config.Symbol, stop: threading.Event, share_anew: threading.Event
    ) -> None:
        self._share_anew = share_anew
        self._settings = settings
        self._symbol = symbol
        self._stop = stop
        self._folder = settings.spool_dir / symbol.id
        self._heap = Heap()
        self._inbox = Inbox()
        self._statistics = Statistics()
        self._tor = tor = Tor(symbol.egress) if symbol.egress.mode == "tor" else None
        self._request = tor.request if tor else dial
        limits = settings.spool
        self._disk = Disk(self._folder, Limits(limits.warn_percent, limits.alert_percent, limits.reserve_mib << 20))
        address = attempts.key(symbol)
        self._attempts = Attempts(settings.control_dir / "attempts" / address)
        self._feed = Feed(
            symbol,
            settings.exchange,
            self._inbox,
            tor.dial if tor else dial,
            self._request,
            resume.before(self._folder),
            self._attempts,
            sum(attempts.key(other) == address for other in settings.symbols),
        )
        self._exits = Exits(settings, symbol, self._feed, tor) if tor else None
        self._listing = Listing("unknown", "not asked yet")
        self._spool: Spool | None = None
        self._recorder: Recorder | None = None
        self._known = Known(0, (), None, ())

    def close(self) -> None:
        """Let go of what is held on the disk."""
        self._disk.close()

    def run(self) -> int:
        self._heap.share()
        if not self._wait_for_room():
            return self._nothing_recorded()
        before_ns = last_rx(self._folder)
        self._inbox.follow(before_ns)
        self._feed.clock.followed(before_ns)
        with self._inbox.lock:
            began_ns = self._inbox.stamp()
        if self._disk.level is Level.FULL:
            self._feed.hold(REASON)
        # The socket is made while files and tables are asked for the last seq: frames wait in the inbox meanwhile.
        feed = threading.Thread(target=self._feed.run, name="feed", daemon=True)
        feed.start()
        threading.Thread(target=self._ask_listing, name="listing", daemon=True).start()
        if not self._ask_known():
            self._feed.stop()
            return self._nothing_recorded()
        spool, recorder = self._open(began_ns)
        writer = threading.Thread(target=recorder.run, name="recorder", daemon=True)
        writer.start()
        server = self._serve()
        if self._exits is not None:
            threading.Thread(target=self._exits.watch, args=(self._stop,), name="exits", daemon=True).start()
        try:
            notify.ready()
            self._watch(feed, writer)
            notify.stopping()
        finally:
            self._end(feed, writer)
            server.close()
        return self._verdict(writer, spool, recorder)

    def _nothing_recorded(self) -> int:
        log.info("stopped before anything was recorded", extra={"fields": {"symbol": self._symbol.id}})
        return 0

    def _serve(self) -> ControlServer:
        return ControlServer(
            self._settings.control_dir / f"{self._symbol.id}.sock",
            {"status": self._status, "cut": self._cut, "rotate": self._rotate},
            for_group=("status",),
        )

    def _wait_for_room(self) -> bool:
        """Wait until there is room enough to open the spool at all, alive and saying so; False where the process is
        told to stop before."""
        server: ControlServer | None = None
        next_prune = 0.0
        while not self._disk.roomy:
            if server is None:
                try:
                    server = self._serve()
                except OSError as error:  # a socket takes room as well; the log says what is the matter
                    log.warning("no control socket", extra={"fields": {"error": str(error)}})
                notify.ready()
            notify.status(f"stopped: {REASON}")
            notify.watchdog()
            if time.monotonic() >= next_prune:
                next_prune = time.monotonic() + PRUNE_S
                self._prune_for_room()
            if self._stop.wait(1.0):
                break
            self._disk.look(0.0)
        if server is not None:
            server.close()
        return not self._stop.is_set()

    def _prune_for_room(self) -> None:
        """As the recorder does: only by a clock that is known to be right."""
        clock = Clock(time.time_ns(), time.monotonic_ns())
        try:
            for _ in range(2):
                clock.compare(*ask_time(self._settings, self._symbol, self._request))
        except EgressError as error:
            log.info("nothing pruned, clock not compared", extra={"fields": {"why": str(error)}})
        if clock.is_trusted():
            prune(self._folder, time.time_ns(), self._settings.spool_keep_ns)

    def _ask_known(self) -> bool:
        """Ask files and tables; False where the process is told to stop before they have answered."""
        answer: Future[Known] = Future()

        def ask() -> None:
            try:
                answer.set_result(known(self._settings, self._symbol, self._own_spool_ids()))
            except BaseException as error:  # noqa: BLE001 - raised again by the waiting thread
                answer.set_exception(error)

        threading.Thread(target=ask, name="known", daemon=True).start()
        while not wait([answer], timeout=0.1).done:
            if self._stop.is_set():
                return False
        self._known = answer.result()
        return True

    def _open(self, began_ns: int) -> tuple[Spool, Recorder]:
        for problem in self._known.unknown:
            log.warning("not asked for the last seq", extra={"fields": {"symbol": self._symbol.id, "why": problem}})
        if self._known.writer is not None:
            self._feed.stop()
            raise UserError(
                f"{self._symbol.name} is being recorded already by {self._known.writer}; stop that one first"
            )
        try:
            spool = Spool(
                self._folder,
                self._symbol.id,
                self._symbol.name,
                self._settings.period,
                known_seq=self._known.last_seq,
                exports=self._known.exports,
                next_rx=began_ns,
            )
        except NewerFormatError as error:
            self._feed.stop()
            raise ConfigError(str(error)) from error  # the wrong version is installed: trying again would not help
        recovered = spool.recovered
        started = event(
            "started",
            clean=recovered.clean,
            last_seq=spool.last_seq,
            last_rx=spool.last_rx,
            version=__version__,
            spool_id=spool.spool_id,
            replaced=recovered.replaced or None,
            set_apart=list(recovered.set_apart) or None,
        )
        first = [Frame(began_ns, None, Mt.EVENT, started)]
        if self._disk.level is not Level.OK:
            first.append(Frame(began_ns, None, Mt.EVENT, self._disk.event()))
        spool.append(first)
        log.info(
            "recording",
            extra={
                "fields": {
                    "symbol": self._symbol.name,
                    "next_seq": spool.last_seq + 1,
                    "clean": recovered.clean,
                    "egress": self._symbol.egress.mode,
                    "spool_id": spool.spool_id,
                }
            },
        )
        self._spool = spool
        self._recorder = Recorder(
            spool,
            self._inbox,
            self._statistics,
            self._settings.spool_keep_ns,
            self._feed.segment_opened,
            self._feed.clock.is_trusted,
        )
        return spool, self._recorder

    def _own_spool_ids(self) -> frozenset[str]:
        ids: set[str] = set()
        for _, path in segments(self._folder):
            try:
                ids.add(info(path).spool_id)
            except SegmentError:
                continue  # reported when the spool is opened
        return frozenset(ids)

    def _ask_listing(self) -> None:
        def take(listing: Listing) -> None:
            self._listing = listing

        until_listed(
            self._symbol.name,
            lambda: ask_listing(self._settings, self._symbol, self._request),
            take,
            self._stop,
        )

    def _ask_time(self) -> None:
        """The first pong proves nothing alone; with this answer it does."""
        try:
            time_ms, now_ns, took_ns = ask_time(self._settings, self._symbol, self._request)
        except EgressError as error:
            log.info("exchange's time unknown", extra={"fields": {"symbol": self._symbol.id, "why": str(error)}})
            return
        said = self._feed.clock.compare(time_ms, now_ns, took_ns)
        self._inbox.put([(Mt.EVENT, m) for m in said], wait=False)

    # -- while it runs

    def _watch(self, feed: threading.Thread, writer: threading.Thread) -> None:
        """Feed the watchdog while both loops live; one line of statistics every 15 s."""
        next_line = time.monotonic() + STATISTICS_S
        next_trim = time.monotonic() + TRIM_S
        next_time = time.monotonic()
        before = self._statistics.snapshot()["rows"]
        while not self._stop.wait(1.0):
            now = time.monotonic()
            if now >= next_time and not self._feed.clock.is_known:
                next_time = now + ASK_TIME_S
                threading.Thread(target=self._ask_time, name="time", daemon=True).start()
            if not feed.is_alive() or not writer.is_alive():
                log.error("a loop has ended", extra={"fields": {"feed": feed.is_alive(), "writer": writer.is_alive()}})
                return
            if now - min(self._feed_beat(), self._require_recorder().beat) < STUCK_S:
                notify.watchdog()
            self._look_at_disk()
            if self._share_anew.is_set():
                self._share_anew.clear()
                if self._exits is not None:
                    self._exits.share_anew()
            if now >= next_trim:
                next_trim = now + TRIM_S
                self._heap.give_back()
            if now >= next_line:
                next_line = now + STATISTICS_S
                before = self._line(before)

    def _look_at_disk(self) -> None:
        """Say when the spool's disk fills up; stop the feed where it is full, start it again where there is room."""
        before = self._disk.level
        level = self._disk.look(self._require_recorder().refused_s)
        if level is before:
            return
        self._inbox.put([(Mt.EVENT, self._disk.event())], wait=False)
        if level is Level.FULL:
            self._feed.hold(REASON)
        elif before is Level.FULL:
            self._feed.resume()

    def _feed_beat(self) -> float:
        """The reading loop's last sign of life; while it makes a connection through Tor, that connection's."""
        return max(self._feed.beat, self._tor.beat) if self._tor else self._feed.beat

    def _line(self, before: dict[str, int]) -> dict[str, int]:
        status = self._status({})
        rows: dict[str, int] = status["rows"]
        rates = {name: round((rows[name] - before[name]) / STATISTICS_S, 2) for name in rows}
        fields = {
            "symbol": status["id"],
            "state": status["state"],
            "last_seq": status["last_seq"],
            **{f"{name}_s": rate for name, rate in rates.items() if rate},
            "reconnects": status["reconnects"],
            "delay_ms": status["delay_ms"],
            "durable_ms": status["durable_ms"],
            "disk_used_percent": status["disk"]["used_percent"],
        }
        log.info("statistics", extra={"fields": fields})
        notify.status(f"{status['state']}, seq {status['last_seq']}, {sum(rates.values()):.1f} rows/s")
        return rows

    def _require_recorder(self) -> Recorder:
        if self._recorder is None:
            raise UserError(f"{self._symbol.id} is not recording: {self._disk.warning() or 'it has just started'}")
        return self._recorder

    def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        spool = self._spool
        trouble = self._recorder.trouble if self._recorder is not None else None
        warnings = [w for w in (self._disk.warning(), trouble, self._feed.clock.warning()) if w]
        feed = self._feed.status()
        if feed["state"] == UNLISTED:
            warnings.append(f"the exchange does not list {self._symbol.name} (yet); it is asked again by itself")
        if self._listing.verdict != "listed" and not self._feed.proven:
            warnings.append(f"{self._symbol.name} not confirmed by the exchange's REST: {self._listing.said}")
        warnings += [
            f"{channel} given up {said['given_up_s']:.0f} s ago, the other channels go on: {said['given_up']}"
            for channel, said in feed["channels"].items()
            if "given_up" in said
        ]
        if feed["waits"] is not None:
            warnings.append(f"connects in {feed['waits']['for_s']:.0f} s at the earliest: {feed['waits']['why']}")
        elif feed["refusal"] is not None:
            warnings.append(feed["refusal"]["said"])
        if self._attempts.trouble is not None:
            warnings.append(self._attempts.trouble)
        warnings += [f"not asked for the last seq: {problem}" for problem in self._known.unknown]
        return {
            "id": self._symbol.id,
            "symbol": self._symbol.name,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "version": __version__,
            "spool_id": spool.spool_id if spool is not None else "",
            "last_seq": spool.last_seq if spool is not None else 0,
            "last_rx_ns": spool.last_rx if spool is not None else 0,
            "segment": spool.segment if spool is not None else None,
            "inbox_bytes": self._inbox.bytes,
            **feed,
            **({"state": f"stopped: {REASON}"} if spool is None else {}),
            **self._statistics.snapshot(),
            "disk": self._disk.status(),
            "listing": self._listing.said,
            "warnings": warnings,
        }

    def _cut(self, _: dict[str, Any]) -> dict[str, Any]:
        try:
            cut = self._require_recorder().cut(30.0)
        except FutureTimeout as error:
            raise UserError("the spool could not be cut within 30 s; see the collector's log") from error
        spool = self._spool
        assert spool is not None
        return {"segment": cut.path.name if cut else None, "last_seq": spool.last_seq}

    def _rotate(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._exits is None:
            raise UserError(
                f"{self._symbol.id} leaves by {self._symbol.egress.mode}; only mode tor has exits to change"
            )
        return self._exits.rotate(request)

    # -- ending

    def _end(self, feed: threading.Thread, writer: threading.Thread) -> None:
        self._feed.stop()
        feed.join(FEED_END_S)
        self._inbox.close((Mt.EVENT, event("stopped")))
        writer.join(COMMIT_END_S / 2)
        if writer.is_alive():
            self._disk.close()  # the disk may have filled up since the last look: these are the last words
            writer.join(COMMIT_END_S)
        if writer.is_alive():
            self._require_recorder().give_up()
            writer.join(0.3)

    def _verdict(self, writer: threading.Thread, spool: Spool, recorder: Recorder) -> int:
        died = not self._stop.is_set()
        if not writer.is_alive():
            spool.close()
        lost = recorder.lost + self._inbox.refused
        if lost or writer.is_alive():
            log.error("frames not committed at the end", extra={"fields": {"frames": lost or "unknown"}})
            return 1
        log.info("stopped", extra={"fields": {"symbol": self._symbol.id, "last_seq": spool.last_seq}})
        return 1 if died else 0
