"""``run``: examine the machine, supervise the parts until told to stop, end in order, say what was proven."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from mexc_pipeline import doctor, logs, signals
from mexc_pipeline.config import Config
from mexc_pipeline.errors import UserError
from mexc_pipeline.paths import make_folder, not_allowed
from mexc_pipeline.run.account import Closing
from mexc_pipeline.run.children import Lifeline
from mexc_pipeline.run.display import Display
from mexc_pipeline.run.supervisor import TICK_S, Stop, Supervisor
from mexc_pipeline.run.watch import Watcher

log = logging.getLogger("mexc_pipeline.run")


def run(config: Config, duration_s: float | None = None, level: str = "INFO") -> Closing:
    """Record until the first SIGINT, SIGTERM or SIGHUP, or for ``duration_s`` seconds from the start of the collectors.

    UserError where a hard check fails or no symbol can be recorded.
    """
    logs.setup(level)
    with contextlib.ExitStack() as held:
        if was_there := os.access(config.data_dir, os.R_OK | os.X_OK):
            held.enter_context(_alone(config.data_dir))  # before anything else: what follows takes its time
        _examine(config)
        _make_folders(config)
        if not was_there:
            held.enter_context(_alone(config.data_dir))
        stop = Stop()
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # in the background of a terminal, what is shown must not stop us
        with signals.handled(stop.actions()):
            return _run(config, stop, duration_s, level)


@contextlib.contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Keep any other ``run`` from this folder, whatever its symbols: one would take the other's collectors for its own.
    UserError where one is there. The folder itself is locked: that needs no room, and ends with this process."""
    try:
        fd = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(not_allowed(data_dir) or f"cannot use {data_dir}: {error.strerror or error}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise UserError(f"another run records into {data_dir}: stop it first, or set another data_dir") from error
    try:
        yield
    finally:
        os.close(fd)


def _run(config: Config, stop: Stop, duration_s: float | None, level: str) -> Closing:
    display = Display()
    lifeline = Lifeline()
    display.start()
    logs.setup(level)  # on a terminal standard error now belongs to the live table
    watcher = Watcher(config)
    try:
        supervisor = Supervisor(config, lifeline, stop, display.lines, debug=level == "DEBUG")
        try:
            supervisor.start()
            watcher.start()
            _record(supervisor, watcher, display, duration_s)
            display.close()  # from here on plain lines, also on a terminal
            logs.setup(level)
            return supervisor.finish(display.say, {view.id: view for view in watcher.snapshot.views})
        finally:
            watcher.close()
            supervisor.close()
    finally:
        display.close()
        logs.setup(level)
        lifeline.close()


def _record(supervisor: Supervisor, watcher: Watcher, display: Display, duration_s: float | None) -> None:
    began = time.monotonic()
    while supervisor.recording:
        ran = time.monotonic() - began
        if duration_s is not None and ran >= duration_s:
            return
        if supervisor.stop.event.wait(TICK_S):
            return
        supervisor.tick()
        rest = f" of {duration_s:.0f} s" if duration_s is not None else " s, Ctrl-C ends"
        display.show(watcher.snapshot, supervisor.exported(), f"recording for {ran:.0f}{rest}")
    log.error("no symbol can be recorded")


def _examine(config: Config) -> None:
    diagnosis = doctor.examine(config)
    for check in diagnosis.checks:
        if not check.ok and (check.passes or not check.hard):
            fields = {"check": check.name, "found": check.text, "advice": check.advice}
            log.warning("check failed", extra={"fields": fields})
    failed = [check for check in diagnosis.checks if check.hard and not check.ok and not check.passes]
    if failed:
        raise UserError("; ".join(check.sentence() for check in failed))


def _make_folders(config: Config) -> None:
    for folder, make in ((config.data_dir, make_folder), (config.export_dir, _make_for_all)):
        try:
            make(folder)
        except OSError as error:
            raise UserError(f"cannot make {folder}: {error.strerror or error}") from error


def _make_for_all(folder: Path) -> None:
    """Files are for others to read, as far as the user's mask lets them."""
    folder.mkdir(parents=True, exist_ok=True)
