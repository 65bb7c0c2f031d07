"""Wires one symbol's feed, inbox, recorder, control socket and signals into the collector process."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sqlite3
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from mexc_pipeline import __version__, config, logs, notify, running, signals
from mexc_pipeline.collector import resume
from mexc_pipeline.collector.disk import REASON, Disk
from mexc_pipeline.collector.exits import Exits
from mexc_pipeline.collector.heap import Heap
from mexc_pipeline.collector.inbox import Inbox
from mexc_pipeline.collector.opening import Opening
from mexc_pipeline.collector.preflight import Listing, ask_listing, ask_time, until_listed
from mexc_pipeline.collector.recorder import PRUNE_S, Recorder
from mexc_pipeline.collector.statistics import Statistics
from mexc_pipeline.control import ControlServer
from mexc_pipeline.egress.dial import EgressError, check_files, dial
from mexc_pipeline.egress.tor import Tor
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.exchange.protocol import subscriptions
from mexc_pipeline.feed import attempts, telling
from mexc_pipeline.feed.attempts import Attempts
from mexc_pipeline.feed.clock import Clock
from mexc_pipeline.feed.feed import Feed
from mexc_pipeline.paths import not_allowed
from mexc_pipeline.rows import Frame, Mt, event
from mexc_pipeline.spool.label import check_label
from mexc_pipeline.spool.lifecycle import prune
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.pending import Pending, completed, is_left, started
from mexc_pipeline.spool.room import Level, Limits
from mexc_pipeline.spool.segment import NewerFormatError
from mexc_pipeline.spool.writer import Spool, last_rx

log = logging.getLogger("mexc_pipeline.collector")

LOCK_WAIT_S = 2.0
TRIM_S = 30.0
STATISTICS_S = 15.0
STUCK_S = 20.0
"""A loop without a sign of life for this long no longer feeds the watchdog."""
ASK_TIME_S = 30.0
"""Between two requests for the exchange's time while this host's clock has not been compared with it."""
END_S = 4.5
"""From being told to end to giving up on what is not committed: a process told to end has five seconds."""
FEED_END_S = 3.0
CONNECTING_END_S = 0.5
COMMIT_END_S = 1.0
"""At least, also where the goodbye took its time."""
AT_ONCE_S = 0.1
"""How long connecting may be put off so that rows need not be pending."""


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
    with signals.handled(asked), SpoolLock(settings.spool_dir / symbol.id, wait_s=LOCK_WAIT_S) as lock:
        check_label(settings, symbol)
        collector = _Collector(settings, symbol, stop, share_anew, lock)
        try:
            return collector.run()
        finally:
            collector.close()


class _Collector:
    def __init__(
        self,
        settings: config.Config,
        symbol: config.Symbol,
        stop: threading.Event,
        share_anew: threading.Event,
        lock: SpoolLock,
    ) -> None:
        self._lock = lock
        self._share_anew = share_anew
        self._settings = settings
        self._symbol = symbol
        self._stop = stop
        self._folder = settings.spool_dir / symbol.id
        self._running = running.report(settings, symbol)
        self._heap = Heap()
        self._inbox = Inbox()
        wanted = subscriptions(symbol.name, symbol.channels)
        self._statistics = Statistics(symbol.name, {s.channel: s.mt for s in wanted})
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
        self._opening: Opening | None = None

    def close(self) -> None:
        """Let go of what is held on the disk."""
        self._disk.close()

    def run(self) -> int:
        self._heap.share()
        if not self._wait_for_room():
            return self._nothing_recorded()
        opening, recorder = self._begin()
        writer = threading.Thread(target=recorder.run, name="recorder", daemon=True)
        writer.start()
        if self._disk.level is Level.FULL:
            self._feed.hold(REASON)
        feed = threading.Thread(target=self._feed.run, name="feed", daemon=True)
        feed.start()
        opening.spool.add_done_callback(self._opened)
        threading.Thread(target=self._ask_listing, name="listing", daemon=True).start()
        server = self._serve()
        if self._exits is not None:
            threading.Thread(target=self._exits.watch, args=(self._stop,), name="exits", daemon=True).start()
        try:
            notify.ready()
            self._watch(feed, writer)
            notify.stopping()
        finally:
            self._end(feed, writer, opening)
            server.close()
        return self._verdict(writer, recorder, opening)

    def _begin(self) -> tuple[Opening, Recorder]:
        """All that a commit needs is there when this returns: the first frame waits for nothing and nobody. Where the
        spool can be had at once rows go there, otherwise they are pending."""
        folder, name = self._folder, self._symbol.name
        try:
            before = last_rx(folder)
            pending = Pending(folder, name) if is_left(folder) else None
            before = max(before, pending.last_rx() if pending is not None else 0)
            self._inbox.follow(before)
            self._feed.clock.followed(before)
            with self._inbox.lock:
                now = self._inbox.stamp()
            next_rx = pending.first_rx() if pending is not None else None
            self._opening = opening = Opening(self._settings, self._symbol, next_rx or now, self._inbox.note)
            spool = opening.within(AT_ONCE_S) if pending is None else None
            if spool is not None:
                spool.make_way(now)
                spool.append([Frame(now, None, Mt.EVENT, completed(started(__version__, None), spool))])
            else:
                pending = pending or Pending(folder, name)
                pending.append([Frame(now, None, Mt.EVENT, started(__version__, pending.set_apart))])
        except NewerFormatError as error:
            raise ConfigError(str(error)) from error  # the wrong version is installed: trying again would not help
        except (sqlite3.Error, OSError) as error:
            denied = not_allowed(folder, write=True)
            raise UserError(denied or f"the spool {folder} cannot be written: {error}") from error
        self._recorder = Recorder(
            pending,
            self._inbox,
            self._statistics,
            self._settings.spool_keep_ns,
            self._feed.segment_opened,
            self._feed.clock.is_trusted,
        )
        if spool is not None:
            self._recorder.number(spool)
        if self._disk.level is not Level.OK:
            self._inbox.put([(Mt.EVENT, self._disk.event())], wait=False)
        return opening, self._recorder

    def _opened(self, opened: Future[Spool]) -> None:
        """The spool is open, or never will be."""
        if opened.exception() is not None:
            self._stop.set()
            return
        self._spool = spool = opened.result()
        fields = {
            "symbol": self._symbol.name,
            "next_seq": spool.last_seq + 1,
            "clean": spool.recovered.clean,
            "egress": self._symbol.egress.mode,
            "spool_id": spool.spool_id,
        }
        self._require_recorder().number(spool)
        log.info("recording", extra={"fields": fields})

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
                server = self._serve()
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
            answer = ask_time(self._settings, self._symbol, self._request)
        except EgressError as error:
            log.info("exchange's time unknown", extra={"fields": {"symbol": self._symbol.id, "why": str(error)}})
            return
        said = self._feed.clock.compare(*answer)
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
            if not self._keep_folder():
                return
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

    def _keep_folder(self) -> bool:
        """False where the folder was removed or replaced: what this process holds and has received goes into the one
        that is there now; all else that was beside it is made by the next start."""
        try:
            if self._lock.keep():
                return True
            why = "it was removed or replaced"
        except (UserError, OSError) as error:
            why = str(error)
        log.error("spool folder lost, ending", extra={"fields": {"folder": str(self._folder), "why": why}})
        return False

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
        recorder, opening = self._recorder, self._opening
        troubles = (recorder.trouble if recorder else None, opening.trouble if opening else None)
        warnings = [w for w in (self._disk.warning(), *troubles, self._feed.clock.warning()) if w]
        feed = self._feed.status()
        if feed["state"] == telling.UNLISTED:
            warnings.append(telling.unlisted(self._symbol.name))
        else:
            told = telling.given_up(feed["channels"]) + telling.silent(feed["channels"], feed["unasked"])
            warnings += [text for text, _, _ in told]
        warnings += telling.not_asked_for(feed["unasked"])
        if self._listing.verdict != "listed" and not self._feed.proven:
            warnings.append(f"{self._symbol.name} not confirmed by the exchange's REST: {self._listing.said}")
        if feed["waits"] is not None:
            warnings.append(f"connects in {feed['waits']['for_s']:.0f} s at the earliest: {feed['waits']['why']}")
        elif feed["refusal"] is not None:
            warnings.append(feed["refusal"]["said"])
        if self._attempts.trouble is not None:
            warnings.append(self._attempts.trouble)
        if feed["not_connected"] is not None:
            warnings.append(f"not connected: {feed['not_connected']}")
        if opening is not None:
            warnings += [f"not asked for the last seq: {problem}" for problem in opening.known.unknown]
        return {
            "id": self._symbol.id,
            "symbol": self._symbol.name,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "version": __version__,
            "running": self._running,
            "spool_id": spool.spool_id if spool is not None else "",
            "last_seq": spool.last_seq if spool is not None else 0,
            "last_rx_ns": spool.last_rx if spool is not None else 0,
            "segment": spool.segment if spool is not None else None,
            "inbox_bytes": self._inbox.bytes,
            "pending": recorder.pending if recorder is not None else 0,
            **feed,
            **({"state": f"stopped: {REASON}"} if recorder is None else {}),
            **self._statistics.snapshot(),
            "disk": self._disk.status(),
            "listing": self._listing.said,
            "trouble": next((trouble for trouble in troubles if trouble), None),
            "log_lines_lost": logs.lost(),
            "warnings": warnings,
        }

    def _cut(self, _: dict[str, Any]) -> dict[str, Any]:
        try:
            cut = self._require_recorder().cut(30.0)
        except FutureTimeout as error:
            raise UserError("the spool could not be cut within 30 s; see the collector's log") from error
        spool = self._spool
        assert spool is not None  # or nothing could have been cut
        return {"segment": cut.path.name if cut else None, "last_seq": spool.last_seq}

    def _rotate(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._exits is None:
            raise UserError(
                f"{self._symbol.id} leaves by {self._symbol.egress.mode}; only mode tor has exits to change"
            )
        return self._exits.rotate(request)

    # -- ending

    def _end(self, feed: threading.Thread, writer: threading.Thread, opening: Opening) -> None:
        self._feed.stop()
        began = time.monotonic()
        feed.join(CONNECTING_END_S)
        while feed.is_alive() and self._feed.connected_since_ns is not None and time.monotonic() - began < FEED_END_S:
            feed.join(0.05)  # until the exchange has answered our goodbye
        opening.give_up(COMMIT_END_S)
        self._inbox.close((Mt.EVENT, event("stopped")))
        writer.join(COMMIT_END_S / 2)
        if writer.is_alive():
            self._disk.close()  # the disk may have filled up since the last look: these are the last words
            writer.join(max(COMMIT_END_S, began + END_S - time.monotonic()))  # a slow disk is waited for
        if writer.is_alive():
            self._require_recorder().give_up()
            writer.join(0.3)

    def _verdict(self, writer: threading.Thread, recorder: Recorder, opening: Opening) -> int:
        died = not self._stop.is_set()
        fields: dict[str, Any] = {"symbol": self._symbol.id, "pending": recorder.pending or None}
        if self._spool is not None:
            fields["last_seq"] = self._spool.last_seq
        lost = recorder.lost + self._inbox.refused
        if lost or writer.is_alive():
            log.error("frames not committed at the end", extra={"fields": {"frames": lost or "unknown"}})
            return 1
        log.info("stopped", extra={"fields": {key: value for key, value in fields.items() if value is not None}})
        if opening.spool.done():
            opening.spool.result()  # raises what forbids recording here: whatever was received before stays pending
        return 1 if died else 0
