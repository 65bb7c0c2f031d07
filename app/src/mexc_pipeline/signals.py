"""Signals are acted on by a thread of their own, never in the middle of what they interrupt.

The interpreter writes the number of a signal to a pipe; a thread that waits at its other end does what is asked. The
interrupted code may hold any lock, and the main thread may be deep in a library: neither matters.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Action = Callable[[], None]


def ending(action: Action) -> dict[int, Action]:
    """``action`` for each signal that asks a process to end: SIGTERM, SIGINT, and SIGHUP, which a terminal that is
    closed sends; under ``nohup`` that one stays ignored."""
    asked = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        asked.append(signal.SIGHUP)
    return dict.fromkeys(asked, action)


@contextmanager
def handled(actions: Mapping[int, Action]) -> Iterator[None]:
    """Call the action of each of these signals that arrives, one at a time, in a thread that waits for them.

    To be used in the main thread. What was there before comes back afterwards.
    """
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    thread = threading.Thread(target=_act, args=(read_fd, actions), name="signals", daemon=True)
    thread.start()
    fd_before = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _nothing) for number in actions}
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, actions)  # whoever started us may have blocked them
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(fd_before)
        os.close(write_fd)
        thread.join(timeout=5)


def _nothing(*_: object) -> None:
    """The interpreter needs a handler; what counts is the byte it writes."""


def _act(read_fd: int, actions: Mapping[int, Action]) -> None:
    while number := os.read(read_fd, 1):
        action = actions.get(number[0])
        if action is not None:
            action()
    os.close(read_fd)
