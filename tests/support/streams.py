"""Standard streams that go away: each in its own way, at the moment the test says."""

from __future__ import annotations

import fcntl
import os
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

FULL, CLOSED = "full", "closed"
WAYS = (FULL, CLOSED, "gone", "unread", "hung up", "suspended")
"""``full``: a device without room from the start; ``closed``: not open at all, from the start; ``gone``: a pipe whose
reader ends; ``unread``: one whose reader does not read on; ``hung up``: a terminal that is closed; ``suspended``: one
stopped by Ctrl-S."""


@dataclass
class Stream:
    """``fd`` is for the process; None: it is to start without it. ``go_away`` makes it unusable, ``come_back`` lets
    what waits be read again where that can be."""

    way: str
    fd: int | None
    go_away: Callable[[], None] = lambda: None
    come_back: Callable[[], None] = lambda: None
    seen: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What was read of it so far."""
        return b"".join(self.seen).decode(errors="replace")


@contextmanager
def stream(way: str) -> Iterator[Stream]:
    """A stream of that way, read until it goes away."""
    with ExitStack() as stack:
        match way:
            case "full":
                yield Stream(way, stack.enter_context(_fd(os.open("/dev/full", os.O_WRONLY))))
            case "closed":
                yield Stream(way, None)
            case "gone" | "unread":
                read_fd, write_fd = os.pipe()
                fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 4096)
                yield from _read(stack, way, read_fd, write_fd)
            case "hung up" | "suspended":
                leader, follower = os.openpty()
                yield from _read(stack, way, leader, follower)
            case _:
                raise ValueError(way)


@contextmanager
def _fd(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        with suppress(OSError):
            os.close(fd)


def _read(stack: ExitStack, way: str, ours: int, theirs: int) -> Iterator[Stream]:
    stack.enter_context(_fd(theirs))
    reading, ended = threading.Event(), threading.Event()
    reading.set()
    found = Stream(way, theirs)
    os.set_blocking(ours, False)

    def read() -> None:
        while not ended.is_set():
            if not reading.wait(0.05):
                continue
            try:
                data = os.read(ours, 65536)
            except BlockingIOError:
                ended.wait(0.005)
                continue
            except OSError:  # EIO: nobody has the other side of the terminal any more
                return
            if not data:
                return
            found.seen.append(data)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()

    def close() -> None:
        if ended.is_set():  # and its number somebody else's by now
            return
        ended.set()
        thread.join(5)
        os.close(ours)

    def go_away() -> None:
        match way:
            case "unread":
                reading.clear()
            case "suspended":
                termios.tcflow(theirs, termios.TCOOFF)
                reading.clear()
            case _:
                close()

    def come_back() -> None:
        if way == "suspended":
            termios.tcflow(theirs, termios.TCOON)
        reading.set()

    found.go_away, found.come_back = go_away, come_back
    try:
        yield found
    finally:
        with suppress(OSError, termios.error):
            come_back()  # a terminal that stays stopped would hold up its last close
        close()


def without_stream(fd: int) -> list[str]:
    """The beginning of a command line that starts the rest of it with that descriptor closed."""
    return ["/bin/sh", "-c", f'exec "$@" {fd}>&-', "sh"]
