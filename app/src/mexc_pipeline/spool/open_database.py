"""A database that its one writer holds open, and that keeps its name.

A file whose name was removed, or given to another file, goes on taking commits that nobody will ever find: the kernel
keeps it for whoever has it open, and no longer. So each commit is preceded by a look at the name (some microseconds),
and what the writer still holds is written again under it. So is what can be read of a file that is damaged so that it
cannot be written any more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from mexc_pipeline.paths import identity, sync_folder
from mexc_pipeline.spool.segment import DAMAGE, SegmentError, clear, connect_writer, is_damage

log = logging.getLogger("mexc_pipeline.spool")

_Inodes = tuple[tuple[int, int] | None, ...]


class Transaction:
    """A with-block is one transaction, which nobody else can write beside from its begin on: committed at its end,
    taken back where anything fails, its commit too. ``single``: of one statement, which is a transaction by itself."""

    __slots__ = ("_db", "_single")  # entered with each commit: a generator would cost twice as much

    def __init__(self, db: sqlite3.Connection, *, single: bool = False) -> None:
        self._db = db
        self._single = single

    def __enter__(self) -> None:
        if not self._single:
            self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._single:
            return
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


class OpenDatabase:
    """The database at ``path`` in the hands of its writer; :attr:`db` as :func:`connect_writer` returned it."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self._path = path
        self.db = db
        self._inodes = _inodes(path)
        self._former: list[sqlite3.Connection] = []
        """Closed last: a connection removes the log of its name, which may be another's by now."""

    def close(self) -> None:
        """Let go of the file."""
        for db in (self.db, *self._former):
            db.close()

    def keep(self) -> bool:
        """See, before a commit, that database, log and the log's index are still those of that name, and write them
        again where they are not; returns True then, and ``db`` is another connection. What stands under the name is set
        apart. Raises sqlite3.Error or OSError where that cannot be done at present: then nothing may be committed, and
        it can be called again."""
        try:
            found = _inodes(self._path)
        except OSError:  # it cannot be looked at, which says nothing of what it is
            return False
        if found == self._inodes and None not in found:
            return False
        log.error("a file in use was removed or replaced", extra={"fields": {"file": str(self._path)}})
        making = self._making()
        with contextlib.closing(sqlite3.connect(making, isolation_level=None)) as copy:
            self.db.backup(copy)
        self._put(making)
        log.warning("written again from what was held", extra={"fields": {"file": str(self._path)}})
        return True

    def renew(self, is_whole: Callable[[Path], bool]) -> bool:
        """Write the database again, row by row, where it is damaged so that it can only be read; returns False, with
        nothing changed, where it cannot be read either or ``is_whole`` does not find in the copy what must be there.
        Raises sqlite3.Error or OSError where it cannot be done at present."""
        making = self._making()
        try:
            self.db.execute("PRAGMA auto_vacuum=NONE")  # of the copy
            self.db.execute("VACUUM INTO ?", (str(making.absolute()),))
            if not is_whole(making):
                return False
        except (*DAMAGE, SegmentError) as error:
            if not is_damage(making, error):
                raise
            return False
        self._put(making)
        return True

    def _making(self) -> Path:
        making = self._path.with_name(f".{self._path.name}.new")
        for end in ("", "-wal", "-shm", "-journal"):
            clear(making.with_name(making.name + end))
        return making

    def _put(self, making: Path) -> None:
        """Give the copy the name, set apart what stands there, and hold the copy."""
        path = self._path
        fd = os.open(making, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        target = path.with_name(f"{path.name}.replaced-{time.time_ns()}")
        for end in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + end).rename(target.with_name(target.name + end))
        os.link(making, path)
        making.unlink()
        sync_folder(path.parent)
        db = connect_writer(path)
        self._former.append(self.db)
        self.db, self._inodes = db, _inodes(path)


def _inodes(path: Path) -> _Inodes:
    return tuple(identity(path.with_name(path.name + end)) for end in ("", "-wal", "-shm"))
