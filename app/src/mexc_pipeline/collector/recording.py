"""The recording of one symbol: its feed, its inbox, its recorder and the spool they fill."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from mexc_pipeline import __version__, config
from mexc_pipeline.collector import resume
from mexc_pipeline.collector.exits import Exits
from mexc_pipeline.collector.inbox import Inbox
from mexc_pipeline.collector.opening import Opening
from mexc_pipeline.collector.preflight import Listing, ask_listing, ask_time, until_listed
from mexc_pipeline.collector.recorder import Recorder
from mexc_pipeline.collector.statistics import Statistics
from mexc_pipeline.egress.dial import EgressError, dial
from mexc_pipeline.egress.http import RestClient
from mexc_pipeline.egress.tor import Tor
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.events import Stopped
from mexc_pipeline.exchange.protocol import subscriptions
from mexc_pipeline.feed import attempts, telling
from mexc_pipeline.feed.attempts import Attempts
from mexc_pipeline.feed.clock import HostClock
from mexc_pipeline.feed.feed import Feed
from mexc_pipeline.paths import not_allowed
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool.lifecycle import prune
from mexc_pipeline.spool.lock import SpoolLock
from mexc_pipeline.spool.pending import Pending, completed, is_left, started
from mexc_pipeline.spool.segment import NewerFormatError
from mexc_pipeline.spool.writer import FOLDER_LOST, Spool, last_rx

log = logging.getLogger("mexc_pipeline.collector")

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
CUT_S = 30.0


class Recording:
    """The recording of one symbol: begun, started, watched and ended by its process, on one thread; what is asked of it
    may come from any.

    ``lock`` is held on the symbol's spool folder as long as this exists. ``stop`` ends what waits here; it is set by
    the recording itself where the symbol is not to be recorded.
    """

    def __init__(self, settings: config.Config, symbol: config.Symbol, lock: SpoolLock, stop: threading.Event) -> None:
        self.symbol = symbol
        self.folder = settings.spool_dir / symbol.id
        self._last_row = Stopped().m
        self._settings = settings
        self._lock = lock
        self._stop = stop
        self._inbox = Inbox()
        wanted = subscriptions(symbol.name, symbol.channels)
        self._statistics = Statistics(symbol.name, {s.channel: s.mt for s in wanted})
        self._tor = tor = Tor(symbol.egress) if symbol.egress.mode == "tor" else None
        self._rest = RestClient(symbol.egress, settings.exchange, tor.request if tor else dial)
        address = attempts.key(symbol)
        self._attempts = Attempts(settings.control_dir / "attempts" / address)
        self._feed = Feed(
            symbol,
            settings.exchange,
            self._inbox,
            tor.dial if tor else dial,
            self._rest,
            resume.read_resumption(self.folder),
            self._attempts,
            sum(attempts.key(other) == address for other in settings.symbols),
        )
        self._exits = Exits(settings, symbol, self._feed, tor) if tor else None
        self._listing = Listing("unknown", "not asked yet")
        self._spool: Spool | None = None
        self._recorder: Recorder | None = None
        self._opening: Opening | None = None
        self._reading: threading.Thread | None = None
        self._writing: threading.Thread | None = None
        self._next_ask = 0.0

    # -- its beginning

    def begin(self, words: Sequence[bytes]) -> None:
        """Prepare all that a commit needs, so that the first frame waits for nothing and nobody. Where the spool can be
        had at once rows go there, otherwise they are pending. ``words``: events that are to stand near the beginning.
        ConfigError where a later version wrote the spool, UserError where it cannot be written."""
        folder, name = self.folder, self.symbol.name
        try:
            before = last_rx(folder)
            pending = Pending(folder, name) if is_left(folder) else None
            before = max(before, pending.last_rx() if pending is not None else 0)
            self._inbox.follow(before)
            self._feed.clock.followed(before)
            with self._inbox.lock:
                now = self._inbox.stamp()
            next_rx = pending.first_rx() if pending is not None else None
            self._opening = opening = Opening(self._settings, self.symbol, next_rx or now, self._inbox.note)
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
            self._lock.keep,
            lambda: self._feed.clock.trusted_ns(time.time_ns(), time.monotonic_ns()),
            self._feed.segment_opened,
        )
        if spool is not None:
            self._recorder.number(spool)
        if words:
            self._inbox.put([(Mt.EVENT, m) for m in words], wait=False)

    def start(self) -> None:
        """Let everything run that :meth:`begin` prepared."""
        self._writing = _started("recorder", self._begun.run)
        self._reading = _started("feed", self._feed.run)
        assert self._opening is not None
        self._opening.spool.add_done_callback(self._opened)
        _started("listing", self._ask_listing)
        if (exits := self._exits) is not None:
            _started("exits", lambda: exits.watch(self._stop))

    def _opened(self, opened: Future[Spool]) -> None:
        """The spool is open, or never will be."""
        if opened.exception() is not None:
            self._stop.set()
            return
        self._spool = spool = opened.result()
        fields = {
            "symbol": self.symbol.name,
            "last_seq": spool.last_seq,
            "pending": self._begun.pending,  # rows that get their seq from now on, this start's `started` among them
            "egress": self.symbol.egress.mode,
            "spool_id": spool.spool_id,
        }
        self._begun.number(spool)
        log.info("recording", extra={"fields": fields})

    def _ask_listing(self) -> None:
        def take(listing: Listing) -> None:
            self._listing = listing

        until_listed(
            self.symbol.name,
            lambda: ask_listing(self._rest, self.symbol.name),
            take,
            self._stop,
            lambda: self._rest.patience_s,
        )

    def prune_for_room(self) -> None:
        """Delete proven segments as the recorder does: only by a clock that is known to be right."""
        clock = HostClock(time.time_ns(), time.monotonic_ns())
        try:
            for _ in range(2):
                clock.compare(*ask_time(self._rest))
        except EgressError as error:
            log.info("nothing pruned, clock not compared", extra={"fields": {"why": str(error)}})
        if (now_ns := clock.trusted_ns(time.time_ns(), time.monotonic_ns())) is not None:
            prune(self.folder, now_ns, self._settings.spool_keep_ns)

    # -- while it runs

    @property
    def has_begun(self) -> bool:
        """Whether :meth:`begin` has prepared everything."""
        return self._recorder is not None

    @property
    def beat(self) -> float:
        """The last sign of life (``time.monotonic``) of the loop that gave none for longer. While a connection through
        Tor is made, the reading loop's is that connection's."""
        reading = max(self._feed.beat, self._tor.beat) if self._tor else self._feed.beat
        return min(reading, self._begun.beat)

    @property
    def refused_s(self) -> float:
        """Seconds for which the disk has refused commits."""
        return self._begun.refused_s

    @property
    def refusal(self) -> str | None:
        """Why the disk refuses commits, where it is not for want of room."""
        return self._begun.refusal

    def is_alive(self) -> bool:
        """Whether both loops run; where one has ended it is logged."""
        alive = {"feed": _is_alive(self._reading), "writer": _is_alive(self._writing)}
        if not all(alive.values()):
            log.error("a loop has ended", extra={"fields": alive})
        return all(alive.values())

    def keep_folder(self) -> bool:
        """Whether the spool folder is still the one that was opened. False where it was removed or replaced: what this
        process holds and has received goes into the one that is there now; all else that was beside it is made by the
        next start."""
        try:
            if self._lock.keep():
                return True
            why = "it was removed or replaced"
        except (UserError, OSError) as error:
            why = str(error)
        log.error("spool folder lost, ending", extra={"fields": {"folder": str(self.folder), "why": why}})
        self._last_row = FOLDER_LOST
        return False

    def hold(self, reason: str) -> None:
        """Receive nothing until :meth:`resume`; ``reason`` stands in the ``stopped`` row."""
        self._feed.hold(reason)

    def resume(self) -> None:
        """Receive again after :meth:`hold`."""
        self._feed.resume()

    def note(self, mt: int, m: bytes) -> None:
        """Queue an event (row type and JSON text) for the spool; never waits."""
        self._inbox.put([(mt, m)], wait=False)

    def repartition(self) -> config.Config | None:
        """Repartition Tor's exits by the present configuration, which is returned; None where there is nothing to
        partition, or it cannot be read."""
        return self._exits.repartition() if self._exits is not None else None

    def ask_time(self, now: float) -> None:
        """Ask the exchange's time where the clock has not been compared with it lately, every 30 s (``now``:
        ``time.monotonic``)."""
        if now >= self._next_ask and not self._feed.clock.is_known(time.monotonic_ns()):
            self._next_ask = now + ASK_TIME_S
            _started("time", self._ask_time)

    def _ask_time(self) -> None:
        """The first pong proves nothing alone; with this answer it does."""
        try:
            answer = ask_time(self._rest)
        except EgressError as error:
            log.info("exchange's time unknown", extra={"fields": {"symbol": self.symbol.id, "why": str(error)}})
            return
        said = self._feed.clock.compare(*answer)
        self._inbox.put([(Mt.EVENT, m) for m in said], wait=False)

    # -- what is asked of it

    def rows(self) -> dict[str, int]:
        """Rows committed since the start, by type."""
        rows: dict[str, int] = self._statistics.snapshot()["rows"]
        return rows

    def status(self) -> dict[str, Any]:
        """The fields of the control socket's ``status``."""
        spool, recorder = self._spool, self._recorder
        feed = self._feed.status()
        troubles = self._troubles()
        return {
            "id": self.symbol.id,
            "symbol": self.symbol.name,
            "spool_id": spool.spool_id if spool is not None else "",
            "last_seq": spool.last_seq if spool is not None else 0,
            "last_rx_ns": spool.last_rx if spool is not None else 0,
            "segment": spool.segment if spool is not None else None,
            "inbox_bytes": self._inbox.bytes,
            "pending": recorder.pending if recorder is not None else 0,
            **feed,
            **self._statistics.snapshot(),
            "rest": self._rest.status(),
            "listing": self._listing.said,
            "trouble": troubles[0] if troubles else None,
            "warnings": [*troubles, *self._warnings(feed)],
        }

    def _troubles(self) -> list[str]:
        """What keeps rows from the spool."""
        parts = [part for part in (self._recorder, self._opening) if part is not None]
        return [trouble for part in parts if (trouble := part.trouble)]

    def _warnings(self, feed: dict[str, Any]) -> list[str]:
        found = [warning] if (warning := feed["clock"]["warning"]) else []
        if feed["state"] == telling.UNLISTED:
            found.append(telling.unlisted(self.symbol.name))
        else:
            told = telling.given_up(feed["channels"]) + telling.silent(feed["channels"], feed["unasked"])
            told += telling.cannot_follow(feed["unversioned"], feed["gaps"])
            found += [text for text, _, _ in told]
        found += telling.not_asked_for(feed["unasked"])
        found += telling.paused(feed["paused"])
        if self._listing.verdict != "listed" and not self._feed.state.proven:
            found.append(f"{self.symbol.name} not confirmed by the exchange's REST: {self._listing.said}")
        if feed["waits"] is not None:
            found.append(f"connects in {feed['waits']['for_s']:.0f} s at the earliest: {feed['waits']['why']}")
        elif feed["refusal"] is not None:
            found.append(feed["refusal"]["said"])
        if (patience_s := self._rest.patience_s) > 0:
            found.append(f"{self._rest.url} asks for patience: nothing is asked of it for {patience_s:.0f} s")
        if self._attempts.trouble is not None:
            found.append(self._attempts.trouble)
        if feed["not_connected"] is not None:
            found.append(f"not connected: {feed['not_connected']}")
        if self._opening is not None:
            found += [f"not asked for the last seq: {problem}" for problem in self._opening.last_seq.unknown]
        return found

    def cut(self) -> dict[str, Any]:
        """End the running period now. UserError where it takes longer than 30 s."""
        try:
            cut = self._begun.cut(CUT_S)
        except FutureTimeout as error:
            raise UserError("the spool could not be cut within 30 s; see the collector's log") from error
        spool = self._spool
        assert spool is not None  # or nothing could have been cut
        return {"segment": cut.path.name if cut else None, "last_seq": spool.last_seq}

    def rotate(self, request: dict[str, Any]) -> dict[str, Any]:
        """Leave by another of Tor's exits. UserError where there are none to change."""
        if self._exits is None:
            raise UserError(f"{self.symbol.id} leaves by {self.symbol.egress.mode}; only mode tor has exits to change")
        return self._exits.rotate(request)

    # -- its end

    def end(self, make_room: Callable[[], None]) -> None:
        """Say goodbye to the exchange and commit what was received, within :data:`END_S`. ``make_room`` frees some of
        the disk: it may have filled up since the last look, and these are the last words."""
        assert self._reading is not None
        assert self._writing is not None
        assert self._opening is not None
        feed, writer = self._reading, self._writing
        self._feed.stop()
        began = time.monotonic()
        feed.join(CONNECTING_END_S)
        while (
            feed.is_alive()
            and self._feed.state.connected_since_ns is not None
            and time.monotonic() - began < FEED_END_S
        ):
            feed.join(0.05)  # until the exchange has answered our goodbye
        self._opening.give_up(COMMIT_END_S)
        self._inbox.close((Mt.EVENT, self._last_row))
        writer.join(COMMIT_END_S / 2)
        if writer.is_alive():
            make_room()
            writer.join(max(COMMIT_END_S, began + END_S - time.monotonic()))  # a slow disk is waited for
        if writer.is_alive():
            self._begun.give_up()
            writer.join(0.3)

    def verdict(self) -> int:
        """The exit status after the end: 0 where it was told to end and everything received is committed, else 1.
        UserError with what forbids recording here: whatever was received before stays pending."""
        assert self._opening is not None
        recorder = self._begun
        fields: dict[str, Any] = {"symbol": self.symbol.id, "pending": recorder.pending or None}
        if self._spool is not None:
            fields["last_seq"] = self._spool.last_seq
        lost = recorder.lost + self._inbox.refused
        if lost or _is_alive(self._writing):
            log.error("frames not committed at the end", extra={"fields": {"frames": lost or "unknown"}})
            return 1
        log.info("stopped", extra={"fields": {key: value for key, value in fields.items() if value is not None}})
        if self._opening.spool.done():
            self._opening.spool.result()
        return 0 if self._stop.is_set() else 1

    @property
    def _begun(self) -> Recorder:
        assert self._recorder is not None
        return self._recorder


def _started(name: str, run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _is_alive(thread: threading.Thread | None) -> bool:
    return thread is not None and thread.is_alive()
