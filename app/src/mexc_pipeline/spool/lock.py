"""One writer per spool folder: advisory locks that name their holder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from mexc_pipeline.errors import UserError
from mexc_pipeline.files import own_anew
from mexc_pipeline.paths import identity, make_folder, not_allowed, regular

FILE = "lock"


class LockedError(UserError):
    """Somebody else holds the lock; the message says who."""


class SpoolLock:
    """Holds ``folder`` and the file ``folder/lock`` for as long as the context is open; the kernel frees both when the
    process ends.

    The folder, because a file can be removed while its holder stands still, and the next writer would make and hold
    another; the file, because it names the holder, and because earlier versions hold nothing else.

    Raises LockedError where another process holds one of them, and still does after ``wait_s`` seconds; UserError where
    this process may not use them. ``whose``: what the holder is called for others, such as ``a query``.
    """

    def __init__(self, folder: Path, what: str = "spool", wait_s: float = 0.0, whose: str = "") -> None:
        self.folder = folder
        self._what = what
        self._whose = whose
        self._wait_s = wait_s
        self._where = self._fd = -1
        self._is_replaced = False
        self._keeping = threading.Lock()

    def __enter__(self) -> SpoolLock:
        path = self.folder / FILE
        try:
            make_folder(self.folder, private=True)
            where = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._hold(where)
            with contextlib.ExitStack() as undo:
                undo.callback(os.close, where)
                self._fd = self._hold_file()
                undo.pop_all()
        except PermissionError as error:
            why = not_allowed(path, write=True) or not_allowed(self.folder, write=True) or str(error)
            raise UserError(why) from error
        except IsADirectoryError as error:
            raise UserError(f"{path} is a folder, where a file is the lock: move it away") from error
        self._where = where
        return self

    def keep(self) -> bool:
        """See that folder and file still have their names, and take what is there now where they have not, or another
        writer would. False from the time on that the folder itself was removed or replaced; it is there then. Raises as
        entering does. Any thread may call."""
        with self._keeping:
            try:
                in_place = _is(self.folder, self._where), _is(self.folder / FILE, self._fd)
            except OSError:  # they cannot be looked at, which says nothing of what they are
                return not self._is_replaced
            before = self._where, self._fd
            if not in_place[0]:
                self.__enter__()
                self._is_replaced = True
                os.close(before[0])
                os.close(before[1])
            elif not in_place[1]:
                self._fd = self._hold_file()
                os.close(before[1])
            return not self._is_replaced

    def _hold_file(self) -> int:
        fd = own_anew(self.folder / FILE, os.O_RDWR, 0o640)
        self._hold(fd)
        entry = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time()), "as": self._whose}
        said = json.dumps(entry).encode()
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same; only its holder's name is old
            os.pwrite(fd, said, 0)
            os.ftruncate(fd, len(said))
        return fd

    def _hold(self, fd: int) -> None:
        """Lock what is open there, or close it."""
        end = time.monotonic() + self._wait_s
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            while not (taken := _take(fd)) and time.monotonic() < end:
                time.sleep(0.05)  # the kernel tells of a lock given free only to those who wait without end
            if taken:
                undo.pop_all()
                return
        raise LockedError(f"{self._what} {self.folder} is in use by {self._holder()}; stop it first")

    def _holder(self) -> str:
        if holder(self.folder) is None:
            return f"a process whose lock file was removed (fuser {self.folder} says which)"
        return named(self.folder)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        os.close(self._where)


def _is(path: Path, fd: int) -> bool:
    """Whether a name is that of what is open there. OSError where it cannot be looked at."""
    found = os.fstat(fd)
    return identity(path) == (found.st_dev, found.st_ino)


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(folder: Path) -> dict[str, Any] | None:
    """What the last holder wrote (pid, host, since in Unix seconds, as: what it is called); None where nobody ever
    held it.

    The process may be gone: only the lock itself tells.
    """
    try:
        with open(folder / FILE, "rb", opener=regular) as file:
            entry: Any = json.loads(file.read(4096))
    except (OSError, ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def named(folder: Path) -> str:
    """The last holder, for a message."""
    who = holder(folder) or {}
    called = f"{who['as']}, " if who.get("as") else ""
    return f"{called}process {who.get('pid', '?')} on {who.get('host', '?')}"
