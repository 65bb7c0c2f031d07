"""Threads that take one step after another, survive the engine's absence and end when asked."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Protocol

from mexc_pipeline.spool.segment import SegmentError
from mexc_pipeline.store.engine import EngineError, UnreachableError

log = logging.getLogger("mexc_pipeline.store")

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0


class EngineHealth:
    """Whether the engine answers; an outage is reported once for all threads, and so is its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.error: str | None = None
        self._since = 0.0

    def failed(self, error: EngineError) -> None:
        """Note that a thread met an outage."""
        with self._lock:
            first = self.error is None
            self.error = str(error)
            if first:
                self._since = time.monotonic()
        if first:
            log.warning(
                "ClickHouse cannot be used; recording goes on, loading waits", extra={"fields": {"error": str(error)}}
            )

    def recovered(self) -> None:
        """Note that a thread which met the outage is past it."""
        with self._lock:
            was, self.error = self.error, None
        if was is not None:
            seconds = round(time.monotonic() - self._since, 1)
            log.info("ClickHouse can be used again", extra={"fields": {"after_s": seconds}})


class StoppingError(EngineError):
    """The work was left off because the store is ending."""


class Stepper(Protocol):
    """What a worker runs, one step after another."""

    def step(self) -> float:
        """Do what is next; returns the seconds until the next turn. Raises EngineError, and what its own work does."""

    def detach(self) -> None:
        """Let go of the engine; the next step connects anew."""


class Worker:
    """Runs a stepper in a thread. Trouble makes it pause, longer each time, with jitter; it never ends by itself."""

    def __init__(
        self, name: str, stepper: Stepper, stopping: threading.Event, health: EngineHealth, *, is_prompt: bool = True
    ) -> None:
        self._stepper = stepper
        self._stopping = stopping
        self._health = health
        self.name = name
        self.is_prompt = is_prompt
        self.trouble: str = ""
        self.turned_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait so many seconds for the thread; returns whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause, met_outage = _FIRST_PAUSE_S, False
        while not self._stopping.is_set():
            self.turned_at = time.monotonic()
            try:
                wait = self._stepper.step()
            except StoppingError:
                break
            except EngineError as error:
                met_outage = met_outage or isinstance(error, UnreachableError)
                wait, pause = self._failed(error, pause)
            except SegmentError as error:
                if self.trouble != str(error):
                    log.error("segment cannot be read", extra={"fields": {"worker": self.name, "error": str(error)}})
                self.trouble = str(error)
                self._stepper.detach()
                wait, pause = pause, min(pause * 2, _LONGEST_PAUSE_S)
            except Exception as error:  # one symbol's trouble must not end the others' threads or this one
                log.exception("unexpected error, starting over", extra={"fields": {"worker": self.name}})
                self.trouble = f"{type(error).__name__}: {error}"
                self._stepper.detach()
                wait, pause = pause, min(pause * 2, _LONGEST_PAUSE_S)
            else:
                if self.trouble:
                    log.info("loading goes on", extra={"fields": {"worker": self.name}})
                self.trouble = ""
                if met_outage:
                    self._health.recovered()
                met_outage = False
                pause = _FIRST_PAUSE_S
            self._stopping.wait(wait)
        self._stepper.detach()

    def _failed(self, error: EngineError, pause: float) -> tuple[float, float]:
        if isinstance(error, UnreachableError):
            self._health.failed(error)
        elif not self.trouble:
            log.warning(
                "ClickHouse refused", extra={"fields": {"worker": self.name, "code": error.code, "error": str(error)}}
            )
        self.trouble = str(error)
        return pause * random.uniform(0.5, 1.0), min(pause * 2, _LONGEST_PAUSE_S)  # noqa: S311
