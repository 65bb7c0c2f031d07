"""One writer per spool folder: an advisory lock that names its holder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from mexc_pipeline.errors import UserError
from mexc_pipeline.paths import not_allowed, regular
from mexc_pipeline.spool.segment import sync_folder

FILE = "lock"


class LockedError(UserError):
    """Somebody else holds the lock; the message says who."""


class SpoolLock:
    """Holds ``folder/lock`` for as long as the context is open; the kernel frees it when the process ends.

    Raises LockedError where another process holds it, and still does after ``wait_s`` seconds; UserError where this
    process may not use it.
    """

    def __init__(self, folder: Path, what: str = "spool", wait_s: float = 0.0) -> None:
        self.folder = folder
        self._what = what
        self._wait_s = wait_s
        self._fd = -1

    def __enter__(self) -> SpoolLock:
        path = self.folder / FILE
        try:
            _make(self.folder)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except PermissionError as error:
            why = not_allowed(path, write=True) or not_allowed(self.folder, write=True) or str(error)
            raise UserError(why) from error
        except IsADirectoryError as error:
            raise UserError(f"{path} is a folder, where a file is the lock: move it away") from error
        self._hold(fd)
        return self

    def keep(self) -> bool:
        """See that the lock is still the file of that name, and take the one that is there now where it is not, or
        another writer would. False where the folder itself was removed or replaced; it is there then. Raises as
        entering does."""
        try:
            if os.path.samestat((self.folder / FILE).stat(), os.fstat(self._fd)):
                return True
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:  # it cannot be looked at, which says nothing of what it is
            return True
        before, where = self._fd, self._where
        self.__enter__()
        os.close(before)
        return os.path.samestat(where, self._where)

    def _hold(self, fd: int) -> None:
        end = time.monotonic() + self._wait_s
        while not (taken := _take(fd)) and time.monotonic() < end:
            time.sleep(0.05)  # the kernel tells of a lock given free only to those who wait without end
        if not taken:
            os.close(fd)
            who = holder(self.folder) or {}
            raise LockedError(
                f"{self._what} {self.folder} is in use by process {who.get('pid', '?')} on {who.get('host', '?')}; "
                "stop it first"
            )
        entry = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
        said = json.dumps(entry).encode()
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same; only its holder's name is old
            os.pwrite(fd, said, 0)
            os.ftruncate(fd, len(said))
        self._fd, self._where = fd, self.folder.stat()

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make(folder: Path) -> None:
    """Make a folder and what is missing above it, each entry durable: a segment must not vanish with its folder when
    the power fails."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True, mode=0o750)
        sync_folder(path.parent)


def holder(folder: Path) -> dict[str, Any] | None:
    """What the last holder wrote (pid, host, since in Unix seconds); None where nobody ever held it.

    The process may be gone: only the lock itself tells.
    """
    try:
        with open(folder / FILE, "rb", opener=regular) as file:
            entry: Any = json.loads(file.read(4096))
    except (OSError, ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
