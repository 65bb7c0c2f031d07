"""Files of ours that anything may have been done to: what is really in one, whatever size it says it has, and how one
is opened to be written, whatever else has its name."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_PIECE = 16 << 20


class SharedError(OSError):
    """A file of ours is a link, no file, or has another name besides: it might be somebody else's that is written."""


def own(path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
    """An ``opener`` for :func:`open` of a file of ours that is to be written: nothing is followed, waited for or cut
    short that is not known to be that file alone. SharedError where it is not, or the OSError of opening."""
    try:
        fd = os.open(path, (flags & ~os.O_TRUNC) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # what a link says, and a FIFO or a socket
            raise SharedError(error.errno, "is a link or no file: move it away", os.fspath(path)) from error
        raise
    if shared := _shared(os.fstat(fd)):
        os.close(fd)
        raise SharedError(errno.EEXIST, shared, os.fspath(path))
    if flags & os.O_TRUNC:
        os.ftruncate(fd, 0)
    return fd


def own_anew(path: Path, flags: int, mode: int) -> int:
    """:func:`own` of a file whose content is worth nothing: what is shared loses its name to an empty one."""
    try:
        return own(path, flags | os.O_CREAT, mode)
    except SharedError:
        path.unlink(missing_ok=True)
    return own(path, flags | os.O_CREAT | os.O_EXCL, mode)


def own_lock(path: Path) -> int:
    """:func:`own_anew` of a file by whose lock processes of one user take turns, open to be read and written. It is
    closed to all others, also where an earlier version left it open: who may read may lock, and they would wait for
    him."""
    fd = own_anew(path, os.O_RDWR, 0o600)
    with contextlib.suppress(OSError):  # another user's, who lets us write there: it is his to close
        os.fchmod(fd, 0o600)
    return fd


def _shared(found: os.stat_result) -> str:
    if not stat.S_ISREG(found.st_mode):
        return "is no file: move it away"
    return "has another name besides (a hard link): move it away" if found.st_nlink > 1 else ""


def data_from(fd: int, at: int) -> int | None:
    """The first place from there on at which an open file holds anything; None where nothing follows. Holes are passed
    over without being read; the file is positioned there."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def has_hole(fd: int) -> bool:
    """Whether an open file says that it is longer than what is in it, or lost a part of it."""
    size, at = os.fstat(fd).st_size, os.lseek(fd, 0, os.SEEK_CUR)
    try:
        return size > 0 and os.lseek(fd, 0, os.SEEK_HOLE) < size
    finally:
        os.lseek(fd, at, os.SEEK_SET)  # whoever reads on is where he was


def copy(source: Path, target: Path, end: int | None = None) -> None:
    """Copy a file into a new one as far as ``end``, holes as holes; durable when this returns, its entry in the folder
    aside. FileExistsError where something has that name; whatever fails, nothing is left under it."""
    fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size if end is None else min(end, os.fstat(fd).st_size)
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            for first, last in _stretches(fd, size):
                _copy(fd, made, first, last)
            os.ftruncate(made, size)
            os.fsync(made)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            os.close(made)
    finally:
        os.close(fd)


def _stretches(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where an open file holds something, up to ``size``."""
    at = data_from(fd, 0)
    while at is not None and at < size:
        last = min(size, os.lseek(fd, at, os.SEEK_HOLE))
        yield at, last
        at = data_from(fd, last)


def _copy(fd: int, made: int, at: int, last: int) -> None:
    os.lseek(made, at, os.SEEK_SET)
    while at < last:
        sent = os.sendfile(made, fd, at, min(_PIECE, last - at))
        if not sent:  # it was cut meanwhile
            return
        at += sent
