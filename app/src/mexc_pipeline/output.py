"""Standard streams that cannot end or delay the work.

What is written for people on standard error waits in a bounded queue, and a thread of its own writes it out. Where the
stream is closed, full, hung up or read by nobody, lines are dropped and counted, and that is said once it works again.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

MAX_BYTES = 256 << 10
"""What waits for a slow reader; what comes after that is dropped."""
END_S = 1.0
"""How long the last words may take."""
_WRITE = select.PIPE_BUF
"""A pipe that polls as writable takes so many bytes without waiting."""
_POLL_MS = 200
TOO_SLOW = "its reader is too slow"

ESCAPE = "mexc_pipeline.escape"
"""Error handler of codecs: what an encoding lacks becomes ``\\uXXXX``, as JSON spells it."""

Notice = Callable[[int, str], str]
"""Makes the line that tells of so many dropped lines and why."""


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2)), error.end


codecs.register_error(ESCAPE, _escape)


def dropped_line(lines: int, reason: str) -> str:
    """The line that says how many were dropped: the default :data:`Notice`."""
    return f"mexc-pipeline: {lines} lines for this place could not be written ({reason})"


class Output(io.TextIOBase):
    """A text stream on a file descriptor; ``write`` and ``flush`` neither wait nor raise, from any thread.

    A line is written whole or, where the stream fails in its midst, counted as dropped.
    """

    def __init__(
        self, fd: int, encoding: str = "utf-8", notice: Notice = dropped_line, max_bytes: int = MAX_BYTES
    ) -> None:
        super().__init__()
        self._fd = fd
        self._encoding = encoding
        self._notice = notice
        self._max_bytes = max_bytes
        self._tty = os.isatty(fd)
        self._partial: list[str] = []
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._changed = threading.Condition()  # of everything above and below
        self._ending_by: float | None = None
        self._unsaid = 0
        self._reason = ""
        self._cut = False  # the last byte written ends no line
        self.lost = 0
        """Lines dropped since the beginning."""
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    # -- the stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        return ESCAPE

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._tty

    def fileno(self) -> int:
        return self._fd

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("a text stream takes str")  # so others find out what kind of stream this is
        with self._changed:
            self._partial.append(text)
            if "\n" in text:
                self._put()
        return len(text)

    def flush(self) -> None:
        """Hand over what is there; does not wait until it is written."""
        with self._changed:
            self._put()

    def end(self, timeout_s: float = END_S) -> None:
        """Wait a bounded time for what is queued; what is written afterwards is dropped."""
        with self._changed:
            self._put()
            self._ending_by = time.monotonic() + timeout_s
            self._changed.notify()
        self._thread.join(timeout_s + 0.1)

    @property
    def working(self) -> bool:
        """Whether anything may still be written."""
        return self._thread.is_alive()

    def _put(self) -> None:
        if not self._partial:
            return
        data = "".join(self._partial).encode(self._encoding, ESCAPE)
        self._partial.clear()
        if not data:
            return
        if self._queued + len(data) > self._max_bytes or self._ending_by is not None:
            self._drop(data, TOO_SLOW)
            return
        self._queue.append(data)
        self._queued += len(data)
        self._changed.notify()

    def _drop(self, data: bytes, reason: str) -> None:
        lines = max(1, data.count(b"\n"))
        self.lost += lines
        self._unsaid += lines
        self._reason = reason

    # -- the thread

    def _run(self) -> None:
        while (data := self._next()) is not None:
            rest, reason = self._write_out(data)
            with self._changed:
                self._queued -= len(data)
                if rest:
                    self._drop(rest, reason)
                lines, reason = self._unsaid, self._reason
                again = bool(lines) and not rest and not self._queue
            if again:
                self._say(lines, reason)

    def _next(self) -> bytes | None:
        with self._changed:
            while not self._queue:
                if self._ending_by is not None:
                    return None
                self._changed.wait()
            return self._queue.popleft()

    def _say(self, lines: int, reason: str) -> None:
        text = f"{self._notice(lines, reason)}\n".encode(self._encoding, ESCAPE)
        rest, _ = self._write_out(b"\n" + text if self._cut else text)
        if not rest:  # else it is said another time
            with self._changed:
                self._unsaid -= lines

    def _write_out(self, data: bytes) -> tuple[bytes, str]:
        """What could not be written, and why."""
        rest = data
        while rest:
            try:
                if not self._ready():
                    return rest, TOO_SLOW
                written = os.write(self._fd, rest[:_WRITE])
            except BlockingIOError:
                continue  # somebody else who has this stream made it non-blocking; the next look waits
            except OSError as error:
                return rest, error.strerror or str(error)
            self._cut = rest[written - 1 : written] != b"\n"
            rest = rest[written:]
        return b"", ""

    def _ready(self) -> bool:
        """Wait until something can be written, or an error be had; False where the end comes first."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while not poll.poll(_POLL_MS):
            if self._ending_by is not None and time.monotonic() >= self._ending_by:
                return False
        return True


def say_now(text: str) -> None:
    """A last line on standard error where it can be written without waiting; for a process that ends at once."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    try:
        if poll.poll(0):
            os.write(2, text.encode(errors="replace")[:_WRITE])
    except OSError:
        return  # nobody is there to be told


def keep_descriptors() -> None:
    """Make sure that 0, 1 and 2 are the standard streams and never a file or socket opened later.

    A closed one (``2>&-``) is opened on ``/dev/null`` such that writing to it fails, as it would have.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)  # the lowest number that is free: this one


def take_over(notice: Notice = dropped_line) -> Output:
    """Make standard error an :class:`Output`, for a process of its own; standard output says whatever it is asked to in
    whatever encoding; the caller ends the output when the process ends."""
    keep_descriptors()
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for the whole process
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=ESCAPE)
    encoding = sys.stderr.encoding if sys.stderr is not None else sys.stdout.encoding
    found = Output(2, encoding, notice)
    sys.stderr = found
    return found
