"""A child's end when its supervisor ends, however that happens.

The supervisor keeps the write end of a pipe and never writes; each child watches the read end. The kernel closes the
write end when the supervisor is gone, also after ``kill -9``, and the child sees end of file.
"""

from __future__ import annotations

import os
import signal
import threading
import time

GRACE_S = 0.8
"""From SIGTERM to the hard end; a child is gone within a second of its supervisor."""


def watch(fd: int, grace_s: float = GRACE_S) -> threading.Thread:
    """Watch the read end ``fd`` in a daemon thread: at end of file SIGTERM to this process, then its hard end.

    OSError where ``fd`` is not open.
    """
    os.set_inheritable(fd, False)  # what this process starts must not be mistaken for its supervisor
    thread = threading.Thread(target=_wait, args=(fd, grace_s), name="lifeline", daemon=True)
    thread.start()
    return thread


def _wait(fd: int, grace_s: float) -> None:
    while os.read(fd, 1):  # the supervisor never writes; only end of file matters
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os._exit(1)
