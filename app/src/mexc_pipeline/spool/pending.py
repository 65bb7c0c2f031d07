"""Rows that are received before their seq can be known: durable at once, numbered later, in a file beside the segments.

The next seq depends on what files, tables and the folder's segments hold, and asking them takes from a moment to half
a minute. Until then rows are committed here, and here alone; no segment and no reader knows of them. They are moved in
their order: each commit of a segment also says up to which of them it has moved, so that they can be moved on from any
interruption, by whoever holds the spool's lock.

Each row carries a sum of itself and of its place, made as it arrived. What is moved are rows that hold, in places that
follow one another; the others are set apart, and those behind them are moved on.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import sqlite3
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from mexc_pipeline.events import Started, begin, read
from mexc_pipeline.paths import sync_folder
from mexc_pipeline.periods import LAST_NS, SECOND_NS, Period
from mexc_pipeline.rows import MT_NAMES, Columns, Frame, Mt
from mexc_pipeline.spool.blobs import LARGE, MOST, fetch, fill
from mexc_pipeline.spool.last_seq import LastSeq
from mexc_pipeline.spool.open_database import OpenDatabase, Transaction
from mexc_pipeline.spool.segment import (
    CHECK,
    DAMAGE,
    NUMBERED,
    NewerFormatError,
    SegmentError,
    UnavailableError,
    bounded,
    connect,
    connect_writer,
    create_database,
    failed,
    is_damage,
    put_meta,
    read_meta,
)
from mexc_pipeline.spool.wal import keep_left_out
from mexc_pipeline.spool.walk import entries, in_order
from mexc_pipeline.spool.writer import KEEP_S, Spool

log = logging.getLogger("mexc_pipeline.spool")

FILE = "pending.db"
"""Not the name of a segment: versions that do not know it leave it alone."""
FORMAT = 2
"""1: rows without a sum."""
LEFT_NS = 60 * SECOND_NS
"""Rows to which none was added for so long, or whose period has been over for so long, were left by who is gone."""
_APART = re.compile(re.escape(FILE) + r"\.damaged-\d+")
T = TypeVar("T")
MOST_ROWS, MOST_BYTES = 2000, 4 << 20
"""Moved at a time: what is received meanwhile waits."""
_SCHEMA = """
CREATE TABLE rows (
  n   INTEGER PRIMARY KEY,
  rx  INTEGER NOT NULL,
  ts  INTEGER,
  mt  INTEGER NOT NULL,
  m   BLOB    NOT NULL,
  sum BLOB    NOT NULL
) STRICT;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""
_DAMAGE = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG)
_STARTED = begin(Started)


_ROWS = f"""
SELECT n, rx, ts, mt, CASE WHEN length(m) <= {LARGE} THEN m END, length(m) > {MOST}, sum
FROM rows WHERE n BETWEEN ? AND ? ORDER BY n
"""
"""A large row's frame is read by itself, and not at all where nobody stored one of that size."""
_SUMMED = struct.Struct("<qqqq?")


class _Place(NamedTuple):
    """What stands in a place of the file; ``frame`` is None where it is not what arrived there."""

    n: int
    frame: Frame | None


def _sum(n: int, frame: Frame) -> bytes:
    """Of a row and its place: no other row has it there, and the row has it nowhere else."""
    rx, ts, mt, m = frame
    found = hashlib.blake2b(_SUMMED.pack(n, rx, ts or 0, mt, ts is None), digest_size=16)
    found.update(m)
    return found.digest()


def _is_sound(n: int, frame: Frame, kept: object) -> bool:
    """Whether it is the row that arrived, as far as ``kept`` tells: nothing where an earlier version wrote it."""
    rx, ts, mt, m = frame
    if {type(rx), type(mt)} != {int} or type(ts) not in (int, type(None)) or type(m) is not bytes:
        return False
    return 0 <= rx <= LAST_NS and mt in MT_NAMES and kept in (b"", _sum(n, frame))


class Pending:
    """One spool folder's pending rows of a symbol of that name; the caller holds the folder's lock.

    Those that an earlier process left come first. What of them is not what arrived is left out and set apart as it is
    come upon, whichever rows follow it. Writing raises sqlite3.Error or OSError: then nothing of the call was
    committed and it can be made again. NewerFormatError where a later version left its own there.
    """

    def __init__(self, folder: Path, symbol: str) -> None:
        self._symbol = symbol
        self._path = folder / FILE
        self.set_apart: str | None = None
        """Name that a damaged file, or a copy of its log, was given, which had been there before."""
        try:
            db, self.id, self.symbol, self._last = self._open()
        except UnavailableError:
            raise
        except (sqlite3.DatabaseError, SegmentError) as error:
            if isinstance(error, NewerFormatError):
                raise
            leads_nowhere = is_left(folder) and not self._path.exists()  # a link
            if not leads_nowhere and getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _DAMAGE:
                raise  # the disk's doing
            if leads_nowhere or not self._is_renewed(str(error)):
                self.set_apart = self._put_aside(str(error))
            db, self.id, self.symbol, self._last = self._open()
        self.set_apart = self.set_apart or keep_left_out(db, self._path)
        self._database = OpenDatabase(self._path, db)
        if self._last:  # whatever became of the newest rows: what has been moved from a place says nothing of new ones
            self._last = max(self._last, *(said.moved.get(self.id, 0) for said in in_order(folder).readable), 0)
        self._apart: Path | None = None
        self._untold: str | None = None
        self._kept_at = 0.0
        self._moved: int | None = None
        self._is_closed = False
        self._is_mended = False
        """Whether the file is another one than before, and took no commit yet."""

    def _open(self) -> tuple[sqlite3.Connection, str, str, int]:
        if is_left(self._path.parent):
            if self._path.is_symlink() or self._path.stat().st_nlink > 1:  # before anything is written to it
                with contextlib.closing(connect(self._path, readonly=True)) as there:
                    self._judge(there)
            db = connect_writer(self._path)
        else:
            db = create_database(self._path, FORMAT, _SCHEMA, {"id": uuid.uuid4().hex, "symbol": self._symbol})
        with contextlib.ExitStack() as undo:
            undo.callback(db.close)
            found = self._look(db)
            undo.pop_all()
        return db, *found

    def _judge(self, db: sqlite3.Connection) -> None:
        """SegmentError where a file of another name is none of ours."""
        try:
            read_meta(db, self._path, "format", FORMAT)
        except (*DAMAGE, RecursionError) as error:
            raise failed(self._path, "not a sound file of pending rows", error) from error

    def _look(self, db: sqlite3.Connection) -> tuple[str, str, int]:
        """The file's id, its symbol's name, and the place of its newest row, whether it is there or was known to be."""
        try:
            return self._read(db)
        except (ValueError, TypeError, RecursionError) as error:
            raise SegmentError(f"{self._path}: not a sound file of pending rows: {error}") from error

    def _read(self, db: sqlite3.Connection) -> tuple[str, str, int]:
        found = read_meta(db, self._path, "format", FORMAT)
        (sound,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if sound != "ok" or not {"id", "symbol"} <= found.keys():
            raise SegmentError(f"{self._path}: not a sound file of pending rows: {sound}")
        # A place of which none can follow is no row's.
        (last,) = db.execute("SELECT ifnull(max(n), 0) FROM rows WHERE n BETWEEN 1 AND ?", (NUMBERED,)).fetchone()
        own, symbol, kept = found["id"], found["symbol"], found.get("last", 0)
        if not isinstance(own, str) or not isinstance(symbol, str) or type(kept) is not int or not 0 <= kept < NUMBERED:
            raise TypeError(f"id {own!r} of {symbol!r} up to {kept!r}")
        if int(db.execute("PRAGMA user_version").fetchone()[0]) < FORMAT:
            db.executescript(
                "BEGIN IMMEDIATE; ALTER TABLE rows ADD COLUMN sum BLOB NOT NULL DEFAULT x'';"
                f"PRAGMA user_version={FORMAT}; COMMIT"
            )
        db.execute(_ROWS, (0, 0)).close()  # refused where its schema is another
        return own, symbol, max(last, kept)

    def _is_renewed(self, reason: str) -> bool:
        """Whether the file, which is not open, was damaged so that it could only be read, and is written again."""
        try:
            with contextlib.closing(OpenDatabase(self._path, connect(self._path, readonly=False))) as database:
                keep_left_out(database.db, self._path)
                return self._renew(database, reason)
        except sqlite3.Error as error:
            if not is_damage(self._path, error):
                raise
            return False

    def _renew(self, database: OpenDatabase, reason: str) -> bool:
        if renewed := database.renew(self._is_sound_copy):
            fields = {"file": FILE, "reason": reason}
            log.error("pending rows damaged and written again, the damaged file is set apart", extra={"fields": fields})
        return renewed

    def _is_sound_copy(self, copy: Path) -> bool:
        with contextlib.closing(connect(copy, readonly=False)) as db:
            self._look(db)
        return True

    def _mended(self, action: Callable[[], T]) -> T:
        """What is done with the file, once more where it turns out to be damaged: it is written again where all of it
        can be read, else set apart, and another one goes on."""
        try:
            return action()
        except Exception as error:
            again, self._is_mended = self._is_mended, False
            if (again and not self._last) or not is_damage(self._path, error):
                raise
            reason = str(error)
        if again or not self._renew(self._database, reason):
            self._database.close()
            self._untold = self._put_aside(reason)
            db, self.id, _, self._last = self._open()
            self._database = OpenDatabase(self._path, db)
            self._moved = None
        self._kept_at = 0.0
        self._is_mended = True
        return action()

    def _put_aside(self, reason: str) -> str:
        target = self._path.with_name(f"{FILE}.damaged-{time.time_ns()}")
        for end in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(FILE + end).rename(target.with_name(target.name + end))
        sync_folder(self._path.parent)
        log.error("pending rows set apart", extra={"fields": {"file": target.name, "reason": reason}})
        return target.name

    def first_rx(self) -> int | None:
        """Time (Unix ns) of the oldest row that may have to be moved yet; None without any."""
        return next((place.frame.rx for place in self._places((self._moved or 0) + 1) if place.frame), None)

    def last_rx(self) -> int:
        """Time (Unix ns) of the newest row, 0 without any."""
        return next((place.frame.rx for place in self._places(1, newest_first=True) if place.frame), 0)

    def append(self, frames: Sequence[Frame]) -> Columns:
        """Commit all of the frames and return them as rows whose ``seq`` is their place among the pending ones."""
        rows = self._mended(lambda: self._commit(frames))
        self._is_mended = False
        return rows

    def _commit(self, frames: Sequence[Frame]) -> Columns:
        self._database.keep()
        db, n = self._database.db, self._last
        places = range(n + 1, n + 1 + len(frames))
        now = time.monotonic()
        with Transaction(db):
            db.executemany(  # what stands in the place of a new row is none that arrived
                "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (n, frame.rx, frame.ts, frame.mt, b"" if len(frame.m) > LARGE else frame.m, _sum(n, frame))
                    for n, frame in zip(places, frames, strict=True)
                ],
            )
            for n, frame in zip(places, frames, strict=True):
                if len(frame.m) > LARGE:
                    fill(db, n, frame.m)
            if keep := now - self._kept_at >= KEEP_S:
                self._say(db, places[-1])
        if keep:
            self._kept_at = now
        self._last += len(frames)
        return Columns.of(
            (n, rx, rx // 1_000_000 if ts is None else ts, mt, m)
            for n, (rx, ts, mt, m) in zip(places, frames, strict=True)
        )

    def _say(self, db: sqlite3.Connection, last: int) -> None:
        if not put_meta(db, {"last": last}):
            raise SegmentError(f"{self._path}: what it says of itself is not what was written there")

    @property
    def waiting(self) -> int:
        """Rows that may have to be moved yet."""
        return self._last - (self._moved or 0)

    def move(self, spool: Spool) -> int:
        """Number the oldest rows: commit them to the spool, as many as belong to one segment and no more than take a
        moment. Returns how many; 0 once there is none left."""
        after, frames = self._mended(lambda: self._next(spool))
        self._moved = after
        if not frames:
            return 0
        if is_start := _is_started(frames[0]):
            spool.make_way(frames[0].rx)
            frames[0] = frames[0]._replace(m=completed(frames[0].m, spool, self._untold))
        block = spool.append(frames, moved=(self.id, after))
        if is_start:
            self._untold = None
        self._moved = after + len(block)  # they follow one another
        return len(block)

    def _next(self, spool: Spool) -> tuple[int, list[Frame]]:
        """The oldest rows that hold and can be moved at a time, and the place before them; none where none is left."""
        after = self._moved
        if after is None:
            after = spool.recovered.moved.get(self.id, 0)
            strays = "SELECT count(*) FROM rows WHERE n < 1 OR n > ?"
            if self._database.db.execute(strays, (self._last,)).fetchone()[0]:
                self._set_apart(1, 0, "rows in places that no row was given")
        while not (frames := self._oldest(after)) and after < self._last:
            after = self._leave_out(after)
        return after, frames

    def _oldest(self, after: int) -> list[Frame]:
        """Up to the next row that must be completed first, and to one that is not there or not what arrived."""
        frames: list[Frame] = []
        size = 0
        for n, frame in self._places(after + 1):
            if n != after + 1 + len(frames) or frame is None:
                break
            size += len(frame.m)
            if frames and (size > MOST_BYTES or _is_started(frame)):
                break
            frames.append(frame)
            if len(frames) == MOST_ROWS:
                break
        return frames

    def _places(self, first: int, newest_first: bool = False) -> Iterator[_Place]:
        """What stands in the places from there on, one by one; to be left at any."""
        cursor = self._database.db.execute(_ROWS + ("DESC" if newest_first else ""), (first, self._last))
        try:
            for n, rx, ts, mt, m, is_none, kept in cursor:
                if is_none:
                    yield _Place(n, None)
                    continue
                frame = Frame(rx, ts, mt, fetch(self._database.db, n) if m is None else m)
                yield _Place(n, frame if _is_sound(n, frame, kept) else None)
        finally:
            cursor.close()  # an open one would keep the write-ahead log from shrinking

    def _leave_out(self, after: int) -> int:
        """Set apart what is there up to the next row that holds; the place before that row."""
        until = next((place.n - 1 for place in self._places(after + 1) if place.frame), self._last)
        self._set_apart(after + 1, until, f"rows {after + 1} to {until} are gone or not those that arrived")
        return until

    def _set_apart(self, first: int, last: int, reason: str) -> None:
        """Keep what is in these places, and in those that no row was given, where it can be looked at; and say so."""
        self._apart = target = self._apart or self._path.with_name(f"{FILE}.damaged-{time.time_ns()}")
        with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as db, Transaction(db):
            db.execute("CREATE TABLE IF NOT EXISTS rows (n INTEGER PRIMARY KEY, rx, ts, mt, m, sum)")
            db.executemany(
                "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?)",
                self._database.db.execute(
                    "SELECT n, rx, ts, mt, CASE WHEN length(m) <= ? THEN m END, sum FROM rows "
                    "WHERE n BETWEEN ? AND ? OR n < 1 OR n > ?",
                    (MOST, first, last, self._last),
                ),
            )
        sync_folder(target.parent)
        self._untold = target.name
        log.error("pending rows set apart", extra={"fields": {"file": target.name, "reason": reason}})

    def remove(self) -> None:
        """Give the file up, where all of its rows were moved. Can be called again where it failed."""
        if not self._is_closed:
            self._mended(self._empty)
            self.close()
        self._path.unlink(missing_ok=True)
        sync_folder(self._path.parent)

    def _empty(self) -> None:
        """Whatever name the file is found under, and whoever adds rows to it: what segments say was moved of it must
        not be taken for those."""
        db = self._database.db
        with Transaction(db):
            db.execute("DELETE FROM rows")
            put_meta(db, {"id": uuid.uuid4().hex, "last": 0})
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Let go of the file."""
        self._is_closed = True
        self._database.close()


def is_left(folder: Path) -> bool:
    """Whether a process left rows to be numbered here, or is about to number them."""
    return os.path.lexists(folder / FILE)


def left_since_ns(folder: Path) -> int | None:
    """When rows were last committed to what :func:`is_left` (Unix ns); None where nothing is."""
    times: list[int] = []
    for path in (folder / FILE, folder / f"{FILE}-wal"):
        with contextlib.suppress(OSError):
            times.append(path.lstat().st_mtime_ns)
    return max(times) if times and is_left(folder) else None


def label(folder: Path) -> tuple[str, bool] | None:
    """The symbol whose rows are pending in a folder, and whether a check value covers that; None without any, and where
    it cannot be told: whoever numbers them says why."""
    path = folder / FILE
    if not is_left(folder):
        return None
    try:
        with contextlib.closing(connect(path, readonly=True)) as db:
            said = read_meta(db, path, "format", FORMAT)
    except (*DAMAGE, SegmentError, RecursionError):
        return None
    symbol = said.get("symbol")
    return (symbol, CHECK in said) if isinstance(symbol, str) else None


def damaged(folder: Path) -> list[str]:
    """Names of the files that hold what was set apart of a folder's pending rows. UnavailableError where it cannot be
    listed."""
    return sorted(path.name for path in entries(folder) if _APART.fullmatch(path.name))


def number_left(folder: Path, symbol_id: str, period: Period, asked: LastSeq) -> None:
    """Number what a process left that is gone. The caller holds the spool's lock; ``asked`` is what is known elsewhere.
    Raises as :class:`Pending` and :class:`~mexc_pipeline.spool.writer.Spool` do."""
    pending = Pending(folder, symbol_id)
    try:
        first_rx = pending.first_rx()
        if first_rx is not None:
            spool = Spool(
                folder,
                symbol_id,
                pending.symbol,
                period,
                known_seq=asked.seq,
                exports=asked.exports,
                next_rx=first_rx,
            )
            try:
                while pending.move(spool):
                    pass
                log.info("pending rows numbered", extra={"fields": {"id": symbol_id, "last_seq": spool.last_seq}})
            finally:
                spool.close()
        pending.remove()
    finally:
        pending.close()


def newest(
    folder: Path, mt: int, limit: int, max_bytes: int = 1 << 62, moved: Mapping[str, int] = MappingProxyType({})
) -> Columns:
    """The newest pending rows of a type in their order, ``seq`` being their place, no more once their frames exceed
    ``max_bytes`` and none that segments say were ``moved`` to them; none where nothing is pending. Raises
    sqlite3.Error, SegmentError where it does not say which of them those are."""
    path = folder / FILE
    if not path.exists():
        return Columns.of(())
    with contextlib.closing(connect(path, readonly=True)) as db:
        after = 0
        if moved:
            try:
                own = read_meta(db, path, "format", FORMAT).get("id")
            except DAMAGE as error:
                raise failed(path, "not a sound file of pending rows", error) from error
            after = moved.get(own, 0) if isinstance(own, str) else 0
        columns, order = "n, rx, ifnull(ts, rx / 1000000), mt, m", "ORDER BY n DESC LIMIT ?"
        rows = bounded(
            db.execute(f"SELECT {columns} FROM rows WHERE mt = ? AND n > ? {order}", (mt, after, limit)), max_bytes
        )
    return Columns.of(reversed(rows))


def _is_started(frame: Frame) -> bool:
    return frame.mt == Mt.EVENT and frame.m.startswith(_STARTED)


def started(version: str, set_apart: str | None) -> bytes:
    """The first row of a process, to be completed where it gets its seq. ``set_apart``: see :class:`Pending`."""
    return Started(version=version, set_apart=[set_apart] if set_apart else None).m


def completed(m: bytes, spool: Spool, apart: str | None = None) -> bytes:
    """The ``m`` of a ``started`` row that is the spool's next, whatever its file made of it. ``apart``: the file in
    which pending rows before it were set apart."""
    said = read(m) or {}
    named = said.get("set_apart")
    recovered = spool.recovery()
    return Started(
        clean=spool.clean and apart is None,
        last_seq=spool.last_seq,
        last_rx=spool.newest_rx,
        version=str(said.get("version", "unknown")),
        spool_id=spool.spool_id,
        replaced=recovered.replaced or None,
        set_apart=[
            *(map(str, named) if isinstance(named, list) else ()),
            *([apart] if apart is not None else ()),
            *recovered.set_apart,
        ]
        or None,
    ).m
