"""The recording of one symbol: its feed, its inbox, its recorder and the spool they fill."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from typing import Any

from mexc_pipeline import __version__, config, running
from mexc_pipeline.collector import resume
from mexc_pipeline.collector.exits import Exits
from mexc_pipeline.collector.inbox import Inbox
from mexc_pipeline.collector.opening import Opening, OpeningState
from mexc_pipeline.collector.preflight import AGAIN_MOST_S, ask_time, until_listed
from mexc_pipeline.collector.recorder import Recorder, RecorderState
from mexc_pipeline.collector.refusals import RefusedCommits
from mexc_pipeline.collector.state import RecordingState
from mexc_pipeline.collector.statistics import Statistics
from mexc_pipeline.egress.dial import EgressError, dial
from mexc_pipeline.egress.http import RestClient
from mexc_pipeline.egress.tor import Tor
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.events import Stopped
from mexc_pipeline.exchange.contracts import is_part, pushed_specification
from mexc_pipeline.exchange.protocol import subscriptions
from mexc_pipeline.exchange.rest import Listing
from mexc_pipeline.feed import attempts
from mexc_pipeline.feed.attempts import Attempts
from mexc_pipeline.feed.candles import Candles
from mexc_pipeline.feed.clock import HostClock
from mexc_pipeline.feed.contracts import HostContracts
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
"""How long after it is opened connecting may be put off so that rows need not be pending."""
CUT_S = 30.0


class Recording:
    """The recording of one symbol: opened, begun, started, watched and told to end by its process, on one thread; what
    is asked of it may come from any. Whatever becomes of it concerns no other recording of that process.

    ``lock`` is held on the symbol's spool folder as long as this exists.
    """

    def __init__(self, settings: config.Config, symbol: config.Symbol, lock: SpoolLock) -> None:
        self.symbol = symbol
        self.folder = settings.spool_dir / symbol.id
        self.running = running.report(settings, symbol)
        self._repartitioned: dict[str, Any] = {}
        """What it was started with, for ``status``."""
        self.is_held = False
        """Whether nothing is to be received for the time being."""
        self.is_ending = False
        self.ended: Future[int] = Future()
        """Set once it has ended. 0: it was told to end, and everything received is committed; else 1. UserError where
        it is not to be recorded here, or not any more; whatever was received before stays pending."""
        self._over = threading.Event()  # ends what waits here: it was told to end, or is not to be recorded here
        self._is_broken = False  # it ends of itself
        self._has_folder = True  # False once the spool folder was found to be removed or replaced
        self._settings = settings
        self._lock = lock
        self._inbox = Inbox()
        wanted = subscriptions(symbol.name, symbol.channels)
        self._statistics = Statistics(symbol.name, {s.channel: s.mt for s in wanted})
        self._tor = tor = Tor(symbol.egress) if symbol.egress.mode == "tor" else None
        self._rest = RestClient(symbol.egress, settings.exchange, tor.request if tor else dial)
        address = attempts.key(symbol)
        self._attempts = Attempts(settings.control_dir / "attempts" / address)
        self._contracts = HostContracts(settings.control_dir / "contracts", self._rest, settings.exchange.rest_urls)
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
        self._pushed_at = 0.0
        """When the exchange pushed the contract: what was asked for before (s since the machine's start) is older."""
        self._began_ns = 0
        self._pending: Pending | None = None
        self._recorder: Recorder | None = None
        self._opening: Opening | None = None
        self._reading: threading.Thread | None = None
        self._writing: threading.Thread | None = None
        self._next_ask = 0.0

    # -- its beginning

    def open(self) -> None:
        """Have the spool opened, beside what the caller does next."""
        folder = self.folder
        with self._or_not_at_all():
            before = last_rx(folder)
            self._pending = pending = Pending(folder, self.symbol.name) if is_left(folder) else None
            before = max(before, pending.last_rx() if pending is not None else 0)
            self._inbox.follow(before)
            self._feed.clock.followed(before)
            with self._inbox.lock:
                self._began_ns = now = self._inbox.stamp()
            next_rx = pending.first_rx() if pending is not None else None
            self._opening = Opening(self._settings, self.symbol, next_rx or now, self._inbox.note)

    def begin(self, words: Sequence[bytes]) -> None:
        """Prepare all that a commit needs, so that the first frame waits for nothing and nobody. Where the spool can be
        had at once rows go there, otherwise they are pending. ``words``: events that are to stand near the beginning.
        """
        if not self.ended.done():
            with self._or_not_at_all():
                self._begin(words)

    @contextmanager
    def _or_not_at_all(self) -> Iterator[None]:
        """What prevents the beginning is the end, with ConfigError where a later version wrote the spool and UserError
        where it cannot be written."""
        try:
            try:
                yield
            except NewerFormatError as error:
                raise ConfigError(str(error)) from error  # the wrong version is installed: trying again would not help
            except (sqlite3.Error, OSError) as error:
                denied = not_allowed(self.folder, write=True)
                raise UserError(denied or f"the spool {self.folder} cannot be written: {error}") from error
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this recording's alone
            if self._opening is not None:
                self._opening.give_up()
            self.ended.set_exception(error)

    def _begin(self, words: Sequence[bytes]) -> None:
        now, pending, opening = self._began_ns, self._pending, self._opening
        assert opening is not None
        spool = opening.within(AT_ONCE_S) if pending is None else None
        if spool is not None:
            spool.make_way(now)
            spool.append([Frame(now, None, Mt.EVENT, completed(started(__version__, None), spool))])
        else:
            pending = pending or Pending(self.folder, self.symbol.name)
            pending.append([Frame(now, None, Mt.EVENT, started(__version__, pending.set_apart))])
        self._recorder = Recorder(
            pending,
            self._inbox,
            self._statistics,
            self._settings.spool_keep_ns,
            self._lock.keep,
            lambda: self._feed.clock.trusted_ns(time.time_ns(), time.monotonic_ns()),
            self._feed.segment_opened,
            self._contract_pushed,
        )
        if spool is not None:
            self._recorder.number(spool)
        if words:
            self._inbox.put([(Mt.EVENT, m) for m in words], wait=False)

    def start(self) -> None:
        """Let everything run that :meth:`begin` prepared, where it could."""
        if self.ended.done():
            return
        self._writing = _started("recorder", self._begun.run)
        self._reading = _started("feed", self._feed.run)
        assert self._opening is not None
        self._opening.spool.add_done_callback(self._opened)
        _started("contract", self._follow_contract)
        if self._settings.candles_s is not None and self.symbol.channels.deal != "off":
            candles = Candles(
                self.symbol.name,
                self.symbol.id,
                self._rest,
                lambda m: self.note(Mt.REPAIRED, m),
                lambda: self._feed.state.connected_since_ns is not None,
                self._settings.candles_s,
            )
            _started("candles", lambda: candles.run(self._over))
        if (exits := self._exits) is not None:
            _started("exits", lambda: exits.watch(self._over))

    def _opened(self, opened: Future[Spool]) -> None:
        """The spool is open, or never will be."""
        if opened.exception() is not None:
            self._over.set()
            return
        spool = opened.result()
        fields = {
            "symbol": self.symbol.name,
            "last_seq": spool.last_seq,
            "pending": self._begun.state.pending,  # they get their seq from now on, this start's `started` among them
            "egress": self.symbol.egress.mode,
            "spool_id": spool.spool_id,
        }
        self._begun.number(spool)
        log.info("recording", extra={"fields": fields})

    def _follow_contract(self) -> None:
        """Ask whether the symbol is listed until it is, and from then on, each hour, what its contract is."""
        name = self.symbol.name

        def ask() -> Listing:
            found = self._contracts.ask(name, self._over)
            if found.at >= self._pushed_at:
                self._begun.specify(found.m)
            return found.listing

        def take(listing: Listing) -> None:
            self._listing = listing

        until_listed(name, ask, take, self._over, lambda: self._rest.patience_s)
        while not self._over.wait(self._contracts.due_s(name)):
            take(ask())
            if self._contracts.due_s(name) <= 0 and self._over.wait(AGAIN_MOST_S):
                return

    def _contract_pushed(self, m: bytes) -> None:
        specification = pushed_specification(self.symbol.name, m)
        if specification is not None and is_part(specification):
            return  # what is known says more, the size above all
        self._pushed_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._begun.specify(specification)

    def ask_clock(self) -> int | None:
        """The time (Unix ns) by which something may be deleted for its age, where the exchange's shows this host's
        clock to be right; before anything is recorded."""
        clock = HostClock(time.time_ns(), time.monotonic_ns())
        try:
            for _ in range(2):
                clock.compare(*ask_time(self._rest))
        except EgressError as error:
            log.info("nothing pruned, clock not compared", extra={"fields": {"why": str(error)}})
        return clock.trusted_ns(time.time_ns(), time.monotonic_ns())

    def prune(self, now_ns: int) -> None:
        """Delete proven segments as the recorder does; before anything is recorded."""
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
    def refusal(self) -> RefusedCommits:
        """For how long, and why, commits are refused."""
        state = self._begun.state
        return RefusedCommits(state.refused_s(time.monotonic()), state.refusal)

    def is_over(self) -> bool:
        """Whether it cannot go on and is to be ended: it is not to be recorded here, one of its loops has ended, or its
        folder is lost. What the opening has not said is logged."""
        if not self._over.is_set():
            self._is_broken = not (self._is_alive() and self._keep_folder())
        return self._is_broken or self._over.is_set()

    def _is_alive(self) -> bool:
        alive = {"feed": _is_alive(self._reading), "writer": _is_alive(self._writing)}
        if not all(alive.values()):
            log.error("a loop has ended", extra={"fields": alive})
        return all(alive.values())

    def _keep_folder(self) -> bool:
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
        self._has_folder = False
        return False

    def hold(self, reason: str) -> None:
        """Receive nothing until :meth:`resume`; ``reason`` stands in the ``stopped`` row."""
        self.is_held = True
        self._feed.hold(reason)

    def resume(self) -> None:
        """Receive again after :meth:`hold`."""
        self.is_held = False
        self._feed.resume()

    def note(self, mt: int, m: bytes) -> None:
        """Queue a row (its type and JSON text), such as an event, for the spool; never waits."""
        self._inbox.put([(mt, m)], wait=False)

    def repartition(self) -> None:
        """Repartition Tor's exits by the present configuration, where there are any and it can be read."""
        settings = self._exits.repartition() if self._exits is not None else None
        if settings is not None:
            now = running.report(settings, settings.symbol(self.symbol.id))
            self._repartitioned = {key: now[key] for key in now if key == "deployment"}
        self.note_repartitioned()

    def note_repartitioned(self) -> None:
        """Report the list of symbols that was read again, once an exit that is another's by it has been left: whoever
        starts that other symbol waits for it."""
        if self._repartitioned and not (self._exits is not None and self._exits.is_leaving):
            self.running = self.running | self._repartitioned
            self._repartitioned = {}

    def ask_time(self, now: float) -> None:
        """Ask the exchange's time where the clock has not been compared with it lately, every 30 s (``now``:
        ``time.monotonic``)."""
        if now >= self._next_ask and not self._feed.clock.is_known(time.monotonic_ns()):
            self._next_ask = now + ASK_TIME_S
            try:
                _started("time", self._ask_time)
            except RuntimeError as error:
                log.info("exchange's time unknown", extra={"fields": {"symbol": self.symbol.id, "why": str(error)}})

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
        return RecordingState(
            recorder=self._recorder.state if self._recorder is not None else RecorderState(),
            opening=self._opening.state if self._opening is not None else OpeningState(),
            feed=self._feed.status(),
            proven=self._feed.state.proven,
            statistics=self._statistics.snapshot(),
            rest=self._rest.state(),
            listing=self._listing,
            shared_troubles=tuple(
                part.trouble for part in (self._attempts, self._contracts) if part.trouble is not None
            ),
            inbox_bytes=self._inbox.bytes,
        ).describe(self.symbol)

    def cut(self) -> dict[str, Any]:
        """End the running period now. UserError where it takes longer than 30 s."""
        try:
            cut = self._begun.cut(CUT_S)
        except FutureTimeout as error:
            raise UserError("the spool could not be cut within 30 s; see the collector's log") from error
        return {"segment": cut.path.name if cut else None, "last_seq": self._begun.state.last_seq}

    def rotate(self, request: dict[str, Any]) -> dict[str, Any]:
        """Leave by another of Tor's exits. UserError where there are none to change."""
        if self._exits is None:
            raise UserError(f"{self.symbol.id} leaves by {self.symbol.egress.mode}; only mode tor has exits to change")
        return self._exits.rotate(request)

    # -- its end

    def end(self, make_room: Callable[[], None] = lambda: None) -> None:
        """Say goodbye to the exchange and commit what was received, within :data:`END_S`; beside whatever the caller
        does next, until :attr:`ended` is set. ``make_room``, from any thread, frees some of the disk: it may have
        filled up since the last look, and these are the last words."""
        if self.is_ending or self.ended.done():
            return
        self.is_ending = True
        self._over.set()
        self._feed.stop()
        try:
            _started("ending", lambda: self._end(make_room))
        except RuntimeError:  # one after another, then
            self._end(make_room)

    def _end(self, make_room: Callable[[], None]) -> None:
        try:
            self._commit_the_rest(make_room)
            status = self._verdict()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            self.ended.set_exception(error)
        else:
            self.ended.set_result(status)

    def _commit_the_rest(self, make_room: Callable[[], None]) -> None:
        assert self._reading is not None
        assert self._writing is not None
        assert self._opening is not None
        feed, writer = self._reading, self._writing
        began = time.monotonic()
        feed.join(CONNECTING_END_S)
        while (
            feed.is_alive()
            and self._feed.state.connected_since_ns is not None
            and time.monotonic() - began < FEED_END_S
        ):
            feed.join(0.05)  # until the exchange has answered our goodbye
        self._opening.give_up()
        self._opening.settle(COMMIT_END_S)
        self._inbox.close((Mt.EVENT, Stopped().m if self._has_folder else FOLDER_LOST))
        writer.join(COMMIT_END_S / 2)
        if writer.is_alive():
            make_room()
            writer.join(max(COMMIT_END_S, began + END_S - time.monotonic()))  # a slow disk is waited for
        if writer.is_alive():
            self._begun.give_up()
            writer.join(0.3)

    def _verdict(self) -> int:
        assert self._opening is not None
        recorder = self._begun
        state = recorder.state
        fields: dict[str, Any] = {"symbol": self.symbol.id, "pending": state.pending or None}
        if state.spool_id:
            fields["last_seq"] = state.last_seq
        lost = recorder.lost + self._inbox.refused
        if lost or _is_alive(self._writing):
            log.error("frames not committed at the end", extra={"fields": {"frames": lost or "unknown"}})
            return 1
        log.info("stopped", extra={"fields": {key: value for key, value in fields.items() if value is not None}})
        if self._opening.spool.done():
            self._opening.spool.result()
        return 1 if self._is_broken else 0

    @property
    def _begun(self) -> Recorder:
        assert self._recorder is not None
        return self._recorder


def _started(name: str, run: Callable[[], None]) -> threading.Thread:
    """A thread. RuntimeError where the system has none to give."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _is_alive(thread: threading.Thread | None) -> bool:
    return thread is not None and thread.is_alive()
