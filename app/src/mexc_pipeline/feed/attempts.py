"""How often one address asks the exchange for a connection: a budget of all processes of this host that leave by it.

:class:`Budget` is pure. :class:`Attempts` keeps it in a small file under a lock, with times of the clock since the
machine's start, which all processes share and which no setting of the wall clock moves.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import queue
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from mexc_pipeline import config
from mexc_pipeline.egress.patience import PATIENCE_MOST_S
from mexc_pipeline.files import own_lock
from mexc_pipeline.paths import make_folder

log = logging.getLogger("mexc_pipeline.feed")

MOST = 20
WINDOW_S = 60.0
"""So many attempts in this time, besides the one that follows a session that delivered."""
BURST = 8
SPREAD_S = 8.0
"""After so many that came to nothing the others follow one by one, so far apart: many symbols that lose the exchange
together would use up the minute's attempts within seconds, and then none of them would see it come back."""
REFUSED_S = 1.0
REFUSED_MOST_S = 30.0
"""Patience after refusals that ask for none: doubling from the first to the second."""
FORGOTTEN_S = 3600.0
"""Refusals so long ago count no more."""
LOCK_S = 0.2
"""How long the file may be in use by another process."""

T = TypeVar("T")


class Hold(msgspec.Struct):
    """Patience with one host of the exchange: no attempt before ``not_before``, by ``why``; ``refusals`` so far without
    a session that delivered."""

    not_before: float = 0.0
    refusals: int = 0
    why: str = ""


class Budget(msgspec.Struct):
    """What one address may ask of the exchange. ``attempts``: times of those that count, whatever host they were made
    to, in seconds of one clock; ``failed`` those of them that came to nothing since a session last delivered."""

    boot: str = ""
    attempts: list[float] = []
    failed: list[float] = []
    holds: dict[str, Hold] = {}

    def wait_s(self, now: float, host: str, *, free: bool) -> float:
        """Seconds until an attempt may be made; 0: now, and it is counted. ``free``: it follows a session that
        delivered, so that only the exchange's own wish for patience binds it, and it does not count."""
        self.attempts = _within(self.attempts, now)
        self.failed = _within(self.failed, now)
        self.holds = {name: hold for name, hold in self.holds.items() if hold.not_before > now - FORGOTTEN_S}
        hold = self.holds.get(host)
        if hold is not None:
            hold.not_before = min(hold.not_before, now + PATIENCE_MOST_S)
            if now < hold.not_before:
                return hold.not_before - now
        if free:
            return 0.0
        if len(self.attempts) >= MOST:
            return max(0.001, self.attempts[-MOST] + WINDOW_S - now)
        if len(self.failed) >= BURST and now < (next_at := max(self.attempts, default=0.0) + SPREAD_S):
            return next_at - now
        self.attempts.append(now)
        return 0.0

    def why(self, now: float, host: str) -> str:
        """What an attempt has to wait for."""
        hold = self.holds.get(host)
        if hold is not None and hold.not_before > now:
            return hold.why
        if len(self.attempts) < MOST and len(self.failed) >= BURST:
            return f"{len(self.failed)} attempts within {WINDOW_S:.0f} s came to nothing"
        return f"{MOST} attempts were made within {WINDOW_S:.0f} s"

    def refused(self, now: float, host: str, retry_after_s: float | None, why: str) -> None:
        """The host answered that it will not have us. Answers to attempts made before the first of them was known count
        as one."""
        hold = self.holds.setdefault(host, Hold())
        if now >= hold.not_before:
            hold.refusals += 1
        patience = min(REFUSED_MOST_S, REFUSED_S * 2.0 ** min(max(hold.refusals - 1, 0), 30))
        if retry_after_s is not None:
            patience = min(retry_after_s, PATIENCE_MOST_S)
        if now + patience >= hold.not_before:
            hold.not_before, hold.why = now + patience, why

    def delivered(self, host: str) -> None:
        """A session delivers: the host takes us. Patience that it asked for holds all the same."""
        self.failed = []
        if host in self.holds:
            self.holds[host].refusals = 0

    def forget(self, at: float) -> None:
        """The attempt made at that time counts no more: its session has lasted, or it reached nobody."""
        if at in self.attempts:
            self.attempts.remove(at)

    def came_to_nothing(self, at: float) -> None:
        """The attempt made at that time is over without a frame."""
        if at in self.attempts:
            self.failed.append(at)


def _within(times: list[float], now: float) -> list[float]:
    return [at for at in times if now - WINDOW_S < at <= now]  # of a clock that began anew none


def key(symbol: config.Symbol) -> str:
    """Names the address that a symbol's connections leave by: this host's, the proxy's, or its own set of exits."""
    mode = symbol.egress.mode
    return f"tor-{symbol.id}" if mode == "tor" else re.sub(r"[^A-Za-z0-9.]+", "-", mode.rpartition("@")[2])


class Attempts:
    """The budget as one reader uses it. ``path`` None, or a file that cannot be used: a budget of this process alone,
    ``own`` where it has several readers, which then take turns.

    Before an attempt, nothing is being received and the file is waited for. What a session has to say of its attempt
    comes while frames do: that is left to a thread of its own, because the file may be another process's or on a disk
    that is slow.
    """

    def __init__(
        self, path: Path | None = None, clock: Callable[[], float] | None = None, own: Budget | None = None
    ) -> None:
        self._path = path
        self._clock = clock or (lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
        self._boot = boot_id()
        self._own = Budget(self._boot) if own is None else own
        self._alone_lock = threading.Lock()
        self._later: queue.SimpleQueue[Callable[[Budget], None]] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._counted_at: float | None = None
        self.trouble: str | None = None
        """Why the other processes' attempts are not known."""

    def wait_s(self, host: str, *, free: bool) -> tuple[float, str]:
        """Seconds until an attempt may be made, as by :meth:`Budget.wait_s`, and why."""
        now = self._clock()
        wait, why = self._with(lambda budget: (budget.wait_s(now, host, free=free), budget.why(now, host)))
        if not wait and not free:
            self._counted_at = now
        return wait, why

    def refused(self, host: str, retry_after_s: float | None, why: str) -> None:
        """Note a refusal, as :meth:`Budget.refused` does."""
        now = self._clock()
        self._with(lambda budget: budget.refused(now, host, retry_after_s, why))

    def delivered(self, host: str) -> None:
        """Note that a session delivers, as :meth:`Budget.delivered` does; never waits."""
        self._soon(lambda budget: budget.delivered(host))

    def came_to_nothing(self) -> None:
        """Note that the newest attempt brought no frame, as :meth:`Budget.came_to_nothing` does."""
        at, self._counted_at = self._counted_at, None
        if at is not None:
            self._with(lambda budget: budget.came_to_nothing(at))

    def forget(self) -> None:
        """Count the newest attempt no more, as :meth:`Budget.forget` does; never waits."""
        at, self._counted_at = self._counted_at, None
        if at is not None:
            self._soon(lambda budget: budget.forget(at))

    def _soon(self, change: Callable[[Budget], None]) -> None:
        if self._path is None:
            change(self._own)
            return
        self._later.put(change)
        if self._writer is None:
            # A daemon: an end need not wait for it, as an attempt that counts for a minute too long costs nothing.
            writer = threading.Thread(target=self._write, name="attempts", daemon=True)
            try:
                writer.start()
            except RuntimeError:  # the system has no thread to give: the next change takes this one along
                return
            self._writer = writer

    def _write(self) -> None:
        while True:
            self._with(self._later.get())

    def _with(self, change: Callable[[Budget], T]) -> T:
        """Read, change and write what is shared; without the file, what this process knows."""
        if self._path is None:
            return change(self._own)
        try:
            make_folder(self._path.parent)
            fd = own_lock(self._path)
        except OSError as error:
            return self._alone(error, change)
        try:
            _lock(fd)
            budget = self._read(fd)
        except OSError as error:
            os.close(fd)
            return self._alone(error, change)
        answer = change(budget)
        self._own = budget
        try:
            os.ftruncate(fd, os.pwrite(fd, msgspec.json.encode(budget), 0))
            self.trouble = None
        except OSError as error:
            self._say(error)
        finally:
            os.close(fd)
        return answer

    def _alone(self, error: OSError, change: Callable[[Budget], T]) -> T:
        self._say(error)
        with self._alone_lock:
            return change(self._own)

    def _say(self, error: OSError) -> None:
        if self.trouble is None:
            log.warning("attempts of this process alone are counted", extra={"fields": {"why": str(error)}})
        self.trouble = f"attempts to connect are counted for this process alone: {error.strerror or error}"

    def _read(self, fd: int) -> Budget:
        try:
            budget = msgspec.json.decode(os.pread(fd, 1 << 16, 0), type=Budget)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return Budget(self._boot)  # new, damaged or half written by one that was killed
        times = (*budget.attempts, *budget.failed, *(hold.not_before for hold in budget.holds.values()))
        if budget.boot != self._boot or not all(map(math.isfinite, times)):
            return Budget(self._boot)
        return budget


def _lock(fd: int) -> None:
    until = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.005)
        else:
            return


def boot_id() -> str:
    """What names this start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
