"""One writer per spool folder: an advisory lock that names its holder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from mexc_pipeline.errors import UserError

FILE = "lock"


class LockedError(UserError):
    """Somebody else holds the lock; the message says who."""


class SpoolLock:
    """Holds ``folder/lock`` for as long as the context is open; the kernel frees it when the process ends.

    Raises LockedError where another process holds it.
    """

    def __init__(self, folder: Path, what: str = "spool") -> None:
        self.folder = folder
        self._what = what
        self._fd = -1

    def __enter__(self) -> SpoolLock:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        fd = os.open(self.folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            who = holder(self.folder) or {}
            raise LockedError(
                f"{self._what} {self.folder} is in use by process {who.get('pid', '?')} on {who.get('host', '?')}; "
                "stop it first"
            ) from None
        entry = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(entry).encode(), 0)
        self._fd = fd
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def holder(folder: Path) -> dict[str, Any] | None:
    """What the last holder wrote (pid, host, since in Unix seconds); None where nobody ever held it.

    The process may be gone: only the lock itself tells.
    """
    try:
        entry: dict[str, Any] = json.loads((folder / FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return entry
