"""Child processes: started in their own session with a lifeline, restarted with backoff when they die."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import IO

from mexc_pipeline.backoff import Backoff

log = logging.getLogger("mexc_pipeline.run")

Lines = Callable[[str, str], None]
"""Takes a child's name and one line it wrote to standard error."""


class Lifeline:
    """The pipe whose write end only this process holds: its end of file tells children that we are gone."""

    def __init__(self) -> None:
        self.read_fd, self._write_fd = os.pipe()  # neither is inherited unless a child is given the read end

    def close(self) -> None:
        """Close the write end: children see end of file, and end."""
        os.close(self._write_fd)
        os.close(self.read_fd)


REFUSED = 2
"""Exit status of a child whose configuration is refused."""
HELD_S = 0.5
"""Between two looks at what another process holds."""
LONG_S = 60.0
"""A child that has lived so long is started again as after a first death."""
MAX_LINE = 64 << 10
"""Characters after which a line of a child's is passed on in pieces."""
NOT_NOW = (OSError, RuntimeError)
"""What a machine raises that has no process, file handle, memory or thread to give (``threading`` says the last by a
RuntimeError). None of it lasts."""


class Child:
    """One child process; ``lines`` gets its standard error line by line and must not wait: whatever becomes of our own
    standard error, a child can write on."""

    def __init__(self, name: str, args: Sequence[str], lifeline: Lifeline, lines: Lines) -> None:
        self.name = name
        self.started = time.monotonic()
        self.overdue = False
        """Whether it had to be killed because it did not end in time."""
        # Its own session, so that Ctrl-C on the terminal reaches the supervisor alone, which ends them in order.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mexc_pipeline", *args, "--parent-fd", str(lifeline.read_fd)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(lifeline.read_fd,),
            start_new_session=True,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            encoding="utf-8",
            errors="replace",
        )
        assert self.process.stderr is not None
        self._reader = threading.Thread(
            target=_pass_on, args=(name, self.process.stderr, lines), name=f"log-{name}", daemon=True
        )
        try:
            self._reader.start()
        except RuntimeError:  # nobody would hear what it says, and nobody end it
            self.kill()
            self.process.wait()
            self.process.stderr.close()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def lived_s(self) -> float:
        """Seconds since the child was started."""
        return time.monotonic() - self.started

    def poll(self) -> int | None:
        """Exit status once it has ended (negative: the signal), None while it runs."""
        return self.process.poll()

    def terminate(self) -> None:
        """Ask the child to end, by SIGTERM."""
        self.process.terminate()  # does nothing where it has been waited for

    def kill(self) -> None:
        """End the child and whatever it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self, timeout_s: float) -> int:
        """Wait for the exit status; a child that does not end in time is killed."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            log.error(
                "child did not end in time and was killed", extra={"fields": {"child": self.name, "pid": self.pid}}
            )
            self.overdue = True
            self.kill()
            status = self.process.wait()
        self._reader.join(timeout=5)
        return status


def _pass_on(name: str, stream: IO[str], lines: Lines) -> None:
    with stream:
        while line := stream.readline(MAX_LINE):
            lines(name, line.rstrip("\n"))


def how_it_ended(status: int) -> str:
    """``exit 1`` or ``SIGKILL``, for a message."""
    if status >= 0:
        return f"exit {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def in_order(status: int) -> bool:
    """Whether a child ended as it was told to. By SIGTERM itself it ends only before it has begun: from then on it
    takes the signal and ends in order."""
    return status in (0, -signal.SIGTERM)


class Keeper:
    """Keeps one child running: starts it, and starts it again after it died, until told otherwise.

    ``refusal`` says, for an exit status, why starting again is pointless (None: it is not); ``given_up`` holds that
    reason. A configuration that is refused after the child has run with it is being edited: the child is tried again,
    and ``refused`` says why it does not run. ``held`` says what somebody else has that the child needs (None: nothing):
    it is started once that is free, and ``waits`` says so meanwhile.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Child],
        refusal: Callable[[int], str | None],
        held: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.name = name
        self.child: Child | None = None
        self.given_up = ""
        self.refused = ""
        self.waits = ""
        self.ends: Counter[str] = Counter()
        """How it ended by itself, and how often: what it had in hand then may be gone."""
        self._ran = False
        self.restarts = 0
        self._start = start
        self._refusal = refusal
        self._held = held
        self._backoff = Backoff(random.Random())  # noqa: S311 - spreads restarts, keeps no secret
        self._next_start = 0.0

    def tend(self) -> None:
        """Look after the child once: notice its end, start it when its time has come. Call a few times a second. Raises
        one of :data:`NOT_NOW` where that cannot be done now; the next call tries again."""
        if self.given_up:
            return
        now = time.monotonic()
        if self.child is not None:
            status = self.child.poll()
            if status is None:
                return
            self._died(self.child, status, now)
        elif now >= self._next_start:
            held = self._held()
            if held is None:
                self.child = self._start()
            elif held != self.waits:
                log.warning("child is started once it can be", extra={"fields": {"child": self.name, "why": held}})
            self.waits = held or ""
            self._next_start = now + HELD_S

    def _died(self, child: Child, status: int, now: float) -> None:
        reason = self._refusal(status)  # it may not be known for want of a file handle: it is asked for again then
        self.child = None
        fields = {"child": self.name, "pid": child.pid, "ended": how_it_ended(status)}
        self._ran |= status != REFUSED or child.lived_s >= LONG_S
        if reason is not None and not (status == REFUSED and self._ran):
            self.given_up = reason
            log.error("child cannot run and is not started again", extra={"fields": {**fields, "reason": reason}})
            return
        if child.lived_s >= LONG_S:
            self._backoff.reset()
        wait = self._backoff.next_s()
        self._next_start = now + wait
        self.restarts += 1
        if reason is None:
            if not in_order(status):
                self.ends[how_it_ended(status)] += 1
            log.warning("child died and will be restarted", extra={"fields": {**fields, "in_s": round(wait, 2)}})
        elif reason != self.refused:
            log.error("child does not run and is tried again", extra={"fields": {**fields, "reason": reason}})
        self.refused = reason or ""

    def tell_to_end(self) -> None:
        """Tell the child to end, and start it no more; :meth:`wait` says how it ended."""
        if self.child is not None:
            self.child.terminate()

    def wait(self, timeout_s: float) -> str | None:
        """How the child ended where that was not in order; it is killed where it does not end in time. None too where
        it did not run, or could not: ``refused`` says so."""
        child, self.child = self.child, None
        if child is None:
            return None
        status = child.wait(timeout_s)
        if in_order(status):
            return None
        how = (
            f"did not end within {timeout_s:.0f} s and was killed"
            if child.overdue
            else f"ended with {how_it_ended(status)}"
        )
        log.warning("child did not end in order", extra={"fields": {"child": self.name, "what": how}})
        reason = self._refusal(status)
        self.refused = reason or self.refused
        return None if reason else how
