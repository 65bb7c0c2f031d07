"""Opens the spool: asks files and tables for the last seq, and tries until the folder lets itself be written.

On a thread of its own, for as long as it takes: what is received meanwhile is pending.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from typing import Any

from mexc_pipeline import config
from mexc_pipeline.control import ControlError
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.events import SeqRepeated
from mexc_pipeline.rows import Mt
from mexc_pipeline.spool.last_seq import ask_last_seq, given_elsewhere, own_ids
from mexc_pipeline.spool.segment import NewerFormatError, SegmentError
from mexc_pipeline.spool.writer import Spool

log = logging.getLogger("mexc_pipeline.collector")

AGAIN_S, AGAIN_MOST_S = 0.5, 2.0
"""Between two tries, at first and later: each starts a process that looks at the files, for every symbol of a host that
boots before its ClickHouse has."""
UNKNOWN_S, UNKNOWN_MOST_S = 30.0, 600.0
"""Between two questions to those who have not answered yet: at first, and later."""
LATE_S = 60.0
"""After which a spool that is not open yet is a fault: longer than anybody is waited for."""


@dataclass(frozen=True, slots=True)
class OpeningState:
    """What opening says of itself to the others at one moment: ``trouble``, what is in the way for the time being;
    ``unknown``, what could not be asked for the last seq."""

    trouble: str | None = None
    unknown: tuple[str, ...] = ()


class Opening:
    """Opens one symbol's spool on a thread of its own. ``next_rx``: the time (Unix ns) of the first row that it will be
    given; ``note`` takes events (``mt``, ``m``)."""

    def __init__(
        self, settings: config.Config, symbol: config.Symbol, next_rx: int, note: Callable[[int, bytes], None]
    ) -> None:
        self._settings = settings
        self._symbol = symbol
        self._folder = settings.spool_dir / symbol.id
        self._next_rx = next_rx
        self._note = note
        self._began = time.monotonic()
        self._given_up = threading.Event()
        self._said = OpeningState()
        self.spool: Future[Spool] = Future()
        """Set once it is open; UserError where nothing is to be recorded here."""
        threading.Thread(target=self._run, name="opening", daemon=True).start()

    @property
    def state(self) -> OpeningState:
        """What it says at this moment, to be taken once and read whole. That it takes long its thread may be unable to
        say: it is in the middle of it."""
        said, took_s = self._said, time.monotonic() - self._began
        if said.trouble is None and took_s >= LATE_S and not self.spool.done():
            late = f"the spool {self._folder} is not open after {took_s:.0f} s: what is received is kept without a seq"
            return replace(said, trouble=late)
        return said

    def within(self, seconds: float) -> Spool | None:
        """The spool where it is open so long after it was begun to be opened, None where it is not yet. UserError where
        it never will be."""
        try:
            return self.spool.result(max(0.0, self._began + seconds - time.monotonic()))
        except FutureTimeout:
            return None

    def give_up(self) -> None:
        """Try no more."""
        self._given_up.set()

    def settle(self, within_s: float) -> None:
        """Wait a moment for what is under way after :meth:`give_up`, so that nothing is left pending without need."""
        try:
            self.spool.exception(within_s)
        except FutureTimeout:
            log.info("spool not opened before the end", extra={"fields": {"symbol": self._symbol.id}})

    def _run(self) -> None:
        try:
            pause = AGAIN_S
            while (spool := self._once()) is None:
                if self._given_up.wait(pause):
                    return
                pause = min(2 * pause, AGAIN_MOST_S)
        except UserError as error:
            self.spool.set_exception(error)
        except Exception as error:  # nothing would ever be numbered; it is logged whole
            log.exception("spool cannot be opened")
            said = f"the spool {self._folder} cannot be opened: {type(error).__name__}: {error}"
            self.spool.set_exception(UserError(said))
        else:
            self._say(trouble=None)
            for problem in self._said.unknown:
                fields = {"symbol": self._symbol.id, "why": problem}
                log.warning("not asked for the last seq", extra={"fields": fields})
            self.spool.set_result(spool)
            self._ask_again(spool)

    def _say(self, **changes: Any) -> None:
        """From its own thread alone."""
        self._said = replace(self._said, **changes)

    def _ask_again(self, spool: Spool) -> None:
        """Whoever did not answer in time may know of rows whose seq has been given here once more: then both are
        there, and no later step can tell which is meant."""
        pause = UNKNOWN_S
        while self._said.unknown and not self._given_up.wait(pause):
            pause = min(2 * pause, UNKNOWN_MOST_S)
            asked = ask_last_seq(self._settings, self._symbol.id, own_ids(self._folder))
            unknown = asked.unknown
            given = spool.last_seq  # looked at last: what others have of these rows is not more
            twice = asked.seq if asked.seq > given else 0
            if not twice and not asked.unknown:  # their rows may be fewer than were given here meanwhile
                try:
                    found = given_elsewhere(self._settings, self._symbol.id, self._folder)
                except ControlError as error:
                    unknown = (f"tables: {error}",)
                else:
                    twice = max((repeat.last_seq for repeat in found), default=0)
            if not twice:
                self._say(unknown=unknown)
            else:
                trouble = (
                    f"seq is given twice: up to {twice} is known elsewhere, where nobody answered at first; "
                    f"here {given} was given last. Stop, and set one of the two apart"
                )
                self._say(unknown=unknown, trouble=trouble)
                self._note(Mt.EVENT, SeqRepeated(given=given, known=twice).m)
                log.error("seq is given twice", extra={"fields": {"given": given, "known": twice}})
                return

    def _once(self) -> Spool | None:
        symbol, folder = self._symbol, self._folder
        ids = own_ids(folder)
        asked = ask_last_seq(self._settings, symbol.id, ids)
        self._say(unknown=asked.unknown)
        if asked.writer is not None:
            raise UserError(f"{symbol.name} is being recorded already by {asked.writer}; stop that one first")
        if not asked.is_enough(bool(ids), time.monotonic() - self._began):
            return None
        try:
            return Spool(
                folder,
                symbol.id,
                symbol.name,
                self._settings.period,
                known_seq=asked.seq,
                exports=asked.exports,
                next_rx=self._next_rx,
            )
        except NewerFormatError as error:
            raise ConfigError(str(error)) from error  # the wrong version is installed
        except (sqlite3.Error, OSError, RuntimeError, SegmentError) as error:  # RuntimeError: no thread to be had
            self._say(trouble=f"spool cannot be opened: {error}")
            log.error("spool cannot be opened, trying again", extra={"fields": {"error": str(error)}})
            return None
