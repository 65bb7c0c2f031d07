"""What is really in a file, whatever size it says it has: one altered bit of a size makes terabytes of nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

_PIECE = 16 << 20


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
