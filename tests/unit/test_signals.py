"""Signals are acted on beside what they interrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from mexc_pipeline import signals


def test_the_action_runs_while_the_interrupted_code_holds_the_lock_it_needs() -> None:
    """The old handler set an event in the interrupted thread, which may hold the event's own lock."""
    lock, acted = threading.Lock(), threading.Event()

    def act() -> None:
        with lock:
            acted.set()

    with signals.handled({signal.SIGTERM: act}):
        with lock:
            os.kill(os.getpid(), signal.SIGTERM)
            assert not acted.wait(0.05), "the action waits beside us"
        assert acted.wait(5)


def test_many_signals_each_have_their_action_and_what_was_there_before_comes_back() -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    count, reached = [0], threading.Event()
    hup = threading.Event()

    def act() -> None:
        count[0] += 1
        if count[0] == 3:
            reached.set()

    with signals.handled({signal.SIGTERM: act, signal.SIGHUP: hup.set}):
        for n in range(3):
            signal.raise_signal(signal.SIGTERM)
            assert not reached.is_set() or n == 2
        assert reached.wait(5)
        assert not hup.is_set()
        os.kill(os.getpid(), signal.SIGHUP)
        assert hup.wait(5)
    assert {n: signal.getsignal(n) for n in before} == before
    assert not [t for t in threading.enumerate() if t.name == "signals"]


def test_a_main_thread_deep_in_a_library_does_not_hold_signals_up() -> None:
    script = (
        "import ctypes, os, signal, threading\n"
        "from mexc_pipeline import signals\n"
        "def act():\n    print('acted', flush=True)\n    os._exit(0)\n"
        "with signals.handled(signals.ending(act)):\n"
        "    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()\n"
        "    lib = ctypes.CDLL(None)\n"
        "    while True: lib.pause()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "acted\n", done.stderr


def test_a_signal_that_whoever_started_us_had_blocked_is_acted_on() -> None:
    """A mask is inherited over fork and exec: a process that its parent started so could only be killed."""
    acted = threading.Event()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with signals.handled({signal.SIGTERM: acted.set}):
            os.kill(os.getpid(), signal.SIGTERM)
            assert acted.wait(5)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before | {signal.SIGTERM}, "as it was"
    finally:
        if not acted.is_set():  # it would end us once it is let through
            signal.sigwait({signal.SIGTERM})
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_hangup_ends_unless_it_was_ignored_at_the_start(ignored: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        assert (signal.SIGHUP in signals.ending(lambda: None)) is not ignored
    finally:
        signal.signal(signal.SIGHUP, before)
