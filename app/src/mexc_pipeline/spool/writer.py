"""The spool's writer: gives every frame its ``seq``, commits it, and ends segments at their edges.

One writer per symbol, on one thread. A row counts as received once :meth:`Spool.append` has returned. A
frame's ``rx`` is what the frame came with, and whoever ends a segment says when.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mexc_pipeline import __version__
from mexc_pipeline.events import Clock, Moved, Sealed, Stopped, begin
from mexc_pipeline.paths import not_allowed, sync_folder
from mexc_pipeline.periods import Period
from mexc_pipeline.rows import Columns, Frame, Mt, storable
from mexc_pipeline.spool.blobs import LARGE, fill
from mexc_pipeline.spool.checkpoint import Checkpointer
from mexc_pipeline.spool.lifecycle import Tally, hold, prune, remove, remove_empty, renew, seal
from mexc_pipeline.spool.names import MOST_PARTS, SegmentName
from mexc_pipeline.spool.open_database import OpenDatabase, Transaction
from mexc_pipeline.spool.segment import (
    MisnamedError,
    NewerFormatError,
    SegmentError,
    SegmentInfo,
    SegmentReader,
    UnavailableError,
    connect,
    create,
    info,
    is_damage,
    put_meta,
)
from mexc_pipeline.spool.wal import keep_left_out
from mexc_pipeline.spool.walk import Unreadable, apart, each, in_order, segments

log = logging.getLogger("mexc_pipeline.spool")

_CHUNKS = (512, 64, 8, 1)
"""Rows per INSERT. One statement for many rows gives up the interpreter's lock once instead of once a row: beside a
busy reader thread that is 40,000 rows a second against 1,800."""
_INSERTS = {n: "INSERT INTO rows VALUES " + ",".join(["(?,?,?,?,?)"] * n) for n in _CHUNKS}

KEEP_S = 0.25
"""How often, at most, a commit says which rows arrived: those of the last part of a second are not proven by it where
the process ends."""

FOLDER_LOST = Stopped(reason="spool folder lost").m
"""The last row of a process whose folder was removed or replaced, in the one that is there now."""
_ENDED = (begin(Stopped), begin(Moved) + b',"clean":true')
"""How the row begins that says of what was recorded before it, here or on another host, that it ended in order."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What opening the spool found. ``clean``: the last thing recorded was an orderly stop (true for a symbol never
    recorded before, false where its folder is gone). ``replaced``: rows newer than this folder exist elsewhere, so it
    was restored from an older copy."""

    last_seq: int
    last_rx: int
    clean: bool
    spool_id: str
    new: bool
    replaced: bool
    set_apart: tuple[str, ...]
    moved: dict[str, int]
    """Up to which place pending rows were moved here before, by their file's id."""


class Spool:
    """Writer of one symbol's spool folder. The caller holds its :class:`~mexc_pipeline.spool.lock.SpoolLock`.

    ``known_seq`` is the highest seq that anything outside the folder knows of (files, tables, ``export_log``).
    ``exports`` are the names of this symbol's files, so that a period they hold already goes on as a further part.
    ``next_rx`` is the time of the next row (None: now): a segment left open that it is beyond is sealed at once.
    Writing raises sqlite3.Error or OSError (disk full, I/O error): then no row of the call was committed and it can be
    made again. NewerFormatError where a later version of this program wrote there; UnavailableError, with nothing
    changed, where a segment cannot be looked into at present.
    """

    def __init__(
        self,
        folder: Path,
        symbol_id: str,
        symbol: str,
        period: Period,
        *,
        known_seq: int = 0,
        exports: Iterable[str] = (),
        next_rx: int | None = None,
    ) -> None:
        self.folder = folder
        self._id = symbol_id
        self._symbol = symbol
        self._period = period
        self._taken = _parts(symbol_id, exports)
        self._database: OpenDatabase | None = None
        self._path = folder
        self._edge = 0
        self._tally = Tally()
        self._kept_at = 0.0
        self._is_mended = False
        """Whether the open segment is in another file than before, and took no commit yet."""
        self._checkpointer = Checkpointer()
        self._moved: dict[str, int] = {}  # said by each segment anew: the newest is the one that is never pruned
        self.last_seq = 0
        self.last_rx = 0
        """What the next row follows: after a whole period its edge, which no row has."""
        self.newest_rx = 0
        """The rx of the newest row, whose seq is ``last_seq`` where this folder has that row."""
        self.clean = True
        """Whether the newest row is an orderly stop, ``sealed`` aside."""
        self.contract: bytes | None = None
        """The contract's specification as the exchange has it now, where that is known: each segment gets it, as a row
        behind its first one and whenever it is another; by itself it makes no segment."""
        self._described = b""
        """The specification that the open segment has."""
        self._unsaid: list[Columns] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self.recovered = self._recover(known_seq, time.time_ns() if next_rx is None else next_rx)
            undo.pop_all()
        self._untold = self.recovered
        self.spool_id = self.recovered.spool_id
        self.clean = self.recovered.clean

    # -- opening

    def _recover(self, known_seq: int, next_rx: int) -> Recovered:
        damaged: list[Unreadable] = []
        found: list[SegmentInfo] = []
        for one in each(self.folder, _sound):
            if not isinstance(one, Unreadable):
                found.append(one)
            elif isinstance(one.error, NewerFormatError | UnavailableError):
                raise one.error  # before anything is moved: it may hold the newest seq
            else:
                damaged.append(one)
        apart = [self._set_apart(path, "damaged", str(error)) for path, error in damaged]
        known_seq = max([known_seq, *(one.error.last_seq for one in damaged if isinstance(one.error, MisnamedError))])
        for empty in [f for f in found if not f.rows]:  # left by a crash before its first row
            found.remove(empty)
            if empty.kept is not None:
                apart.append(self._set_apart(empty.path, "damaged", "the rows that had arrived are gone"))
                continue
            try:
                apart += filter(None, [remove_empty(empty.path)])
            except UnavailableError:
                raise
            except sqlite3.Error as error:
                apart.append(self._set_apart(empty.path, "damaged", str(error)))
        found.sort(key=lambda f: f.last_seq)  # not by name: the length of periods may have been changed
        last_seq = max((f.last_seq for f in found), default=0)
        replaced = known_seq > last_seq > 0
        if replaced:
            # Its open segment went on elsewhere after the copy was made, or here in rows that are lost: to end it
            # would use a seq twice.
            for left in [f for f in found if f.state == "open"]:
                apart += self._set_apart_behind(left.path)
                found.remove(left)
        self.newest_rx, last_rx, clean = last_moment(found[-1]) if found else (0, 0, known_seq == 0)
        self.last_seq = max(last_seq, known_seq)
        self.last_rx = last_rx
        new = not found or replaced
        spool_id = uuid.uuid4().hex if new else found[-1].spool_id
        for left in [f for f in found if f.state == "open"]:
            try:
                tally = Tally.of(left.path)
                self._database = hold(left.path, tally)
            except UnavailableError:
                raise
            except SegmentError as error:
                apart.append(self._set_apart(left.path, "damaged", str(error)))
                found.remove(left)  # pending rows that were moved there are moved once more
            else:
                apart += filter(None, [keep_left_out(self._database.db, left.path)])
                self._resume(left, tally, next_rx)
        clean = clean and not replaced and not apart
        self._moved = found[-1].moved if found else {}
        moved: dict[str, int] = {}
        for segment in found:
            for file, n in segment.moved.items():
                moved[file] = max(n, moved.get(file, 0))
        return Recovered(last_seq, last_rx, clean, spool_id, new, replaced, tuple(apart), moved)

    def _set_apart_behind(self, path: Path) -> list[str]:
        """Set an open segment apart of which newer rows are known: those behind a damaged place of its log, or else it
        is an older copy."""
        try:
            with contextlib.closing(connect(path, readonly=False)) as db:
                kept = keep_left_out(db, path)
        except UnavailableError:
            raise
        except (SegmentError, sqlite3.Error) as error:
            return [self._set_apart(path, "damaged", str(error))]
        if kept is None:
            return [self._set_apart(path, "stale", "newer rows of this symbol are known")]
        return [kept, self._set_apart(path, "damaged", "its log is damaged, and rows behind that place are known")]

    def _set_apart(self, path: Path, why: str, reason: str) -> str:
        target = path.with_name(f"{path.name}.{why}-{time.time_ns()}")
        for end in ("-wal", "-shm"):  # under the name by which SQLite finds them again
            beside = path.with_name(path.name + end)
            if beside.is_symlink() or beside.exists():
                beside.rename(target.with_name(target.name + end))
        path.rename(target)
        sync_folder(path.parent)
        log.error("segment set apart", extra={"fields": {"segment": target.name, "reason": reason}})
        return target.name

    def _resume(self, left: SegmentInfo, tally: Tally, next_rx: int) -> None:
        self._path = left.path
        self._edge = left.edge_ns
        self._tally = tally
        self._described = tally.contract
        self._checkpointer.watch(left.path)
        self.tick(next_rx)
        if left.symbol != self._symbol:  # of an earlier version: its file keeps its own label
            self.cut(max(next_rx, self.last_rx + 1))

    def recovery(self) -> Recovered:
        """What opening found, the first time it is asked for; then what an orderly start finds: the first ``started``
        row that follows tells of it."""
        found, self._untold = self._untold, replace(self.recovered, replaced=False, set_apart=())
        return found

    # -- writing

    def append(self, frames: Sequence[Frame], *, moved: tuple[str, int] | None = None) -> Columns:
        """Commit the first of the frames, as many as belong to one segment, and return them as rows.

        Call again with the rest: ``frames[len(rows):]``. ``moved``: the frames are pending rows of the file with that
        id and come after that place in it; the segment says so in the same commit.
        """
        self.make_way(frames[0].rx)
        return self._write(frames, moved)

    def make_way(self, rx: int) -> None:
        """Do what must be done before a row of that time (Unix ns) can follow. A segment is sealed before the first row
        at or after its edge gets its seq, and at its last row before one that is older; the next then begins with a
        ``clock`` event: the clock has been set back."""
        if self._database is not None and not self.last_rx <= rx < self._edge and not self._drop_empty():
            if rx >= self._edge:
                self._seal(self._edge, cut=False)
            else:
                self._seal(self.last_rx, cut=True)
        if rx < self.last_rx:
            step_ms = round((rx - self.last_rx) / 1e6, 3)
            restarted = Clock(step_ms=step_ms, restarted=True).m
            self._write([Frame(rx, None, Mt.EVENT, restarted)], None)
            log.warning("clock restarted", extra={"fields": {"id": self._id, "step_ms": step_ms}})

    def _place(self, frames: Sequence[Frame]) -> Columns:
        """As many of the frames as belong to the open segment, as rows."""
        before, edge = frames[0].rx, self._edge
        block = Columns([], [], [], [], [])
        rxs, tss, mts, ms = block.rx, block.ts, block.mt, block.m
        for frame in frames:
            rx, ts, mt, m = storable(frame)
            if not before <= rx < edge:
                break
            before = rx
            rxs.append(rx)
            tss.append(rx // 1_000_000 if ts is None else ts)
            mts.append(mt)
            ms.append(m)
        block.seq.extend(range(self.last_seq + 1, self.last_seq + 1 + len(rxs)))
        return block

    def _write(self, frames: Sequence[Frame], moved: tuple[str, int] | None) -> Columns:
        """As many of the frames as belong to one segment; to another file where the open one turns out to be
        damaged."""
        while True:
            if self._database is None:
                self._open(frames[0].rx)
                if self.contract is not None:
                    frames = frames[:1]  # behind it comes the specification
            block = self._place(frames)
            try:
                self._commit(block, moved)
            except Exception as error:
                if not self._mend(error):
                    raise
            else:
                self._is_mended = False
                self._describe(self.last_rx)
                return block

    def describe(self, rx: int) -> None:
        """Let the open segment have the present specification as a row of that time (Unix ns), where it has another or
        none. Nothing older may come afterwards; a segment that is about to end is left as it is."""
        if self._database is not None and self._tally.digest.rows and self.last_rx <= rx < self._edge:
            self._describe(rx)

    def _describe(self, rx: int) -> None:
        contract = self.contract
        if contract is None or contract == self._described or self.clean:  # an orderly end stays the last row
            return
        try:
            block = self._place([Frame(rx, None, Mt.CONTRACT, contract)])
            self._commit(block, None)
        except (sqlite3.Error, OSError, SegmentError) as error:
            # The next rows meet whatever it is as well, and after them it is tried again.
            log.warning("specification not written", extra={"fields": {"id": self._id, "why": str(error)}})
            return
        self._described = contract
        self._unsaid.append(block)

    def described(self) -> list[Columns]:
        """The rows of specifications that were written since this was last asked for."""
        unsaid, self._unsaid = self._unsaid, []
        return unsaid

    def _mend(self, error: Exception) -> bool:
        """What follows an error that shows the open segment to be damaged: it is written again where all rows that it
        was given can be read, else set apart, as is a copy that fails before anything was written to it. False where it
        is not the file's doing, and for a second new file in succession: that one is not tried without a pause."""
        database = self._database
        if database is None or not is_damage(self._path, error):
            return False
        again = self._is_mended
        if self._drop_empty():
            self._is_mended = True
            return not again
        self._checkpointer.watch(None)
        renewed = not again and renew(database, self._path, self._tally.digest.total(), error)
        self._is_mended = True
        if renewed:
            self._checkpointer.watch(self._path)
            self._kept_at = 0.0
        else:
            database.close()
            self._database = None
            self._set_apart(self._path, "damaged", str(error))
        return True

    def _commit(self, block: Columns, moved: tuple[str, int] | None) -> None:
        db = self._keep().db
        total = len(block)
        values: list[Any] = [None] * (5 * total)
        values[0::5], values[1::5], values[2::5] = block.seq, block.rx, block.ts
        values[3::5], values[4::5] = block.mt, block.m
        is_any_large = max(map(len, block.m), default=0) > LARGE  # seldom: not a step of Python for each frame
        large = [n for n, m in enumerate(block.m) if len(m) > LARGE] if is_any_large else []
        for n in large:
            values[5 * n + 4] = b""
        now = time.monotonic()
        keep = now - self._kept_at >= KEEP_S
        tally = self._tally
        if keep:  # with these rows, and as it was where the commit fails
            tally = tally.copy()
            tally.add(block)
        many = bool(large) or total not in _INSERTS or moved is not None or keep
        with Transaction(db, single=not many):
            at = 0
            for n in _CHUNKS:
                while total - at >= n:
                    db.execute(_INSERTS[n], values[5 * at : 5 * (at + n)])
                    at += n
            for n in large:
                fill(db, block.seq[n], block.m[n])
            if moved is not None or keep:
                told = {"moved": {moved[0]: moved[1] + total}} if moved is not None else {}
                self._say(db, {**told, **(tally.kept(block.seq[-1]) if keep else {})})
        if moved is not None:
            self._moved = {moved[0]: moved[1] + total}
        before = self._tally.bytes
        if keep:
            self._tally, self._kept_at = tally, now
        else:
            tally.add(block)
        self._checkpointer.grown(self._tally.bytes - before)
        self.last_seq, self.last_rx = block.seq[-1], block.rx[-1]
        self.newest_rx = self.last_rx
        self.clean = block.mt[-1] == Mt.EVENT and _is_end(block.m[-1])

    def _say(self, db: sqlite3.Connection, told: dict[str, Any]) -> None:
        if not put_meta(db, told):
            raise SegmentError(f"{self._path}: what it says of itself is not what was written there")

    def _keep(self) -> OpenDatabase:
        """The open segment, in a file that has its name."""
        assert self._database is not None
        if self._database.keep():
            self._checkpointer.watch(self._path)
        return self._database

    def _open(self, rx: int) -> None:
        start = self._period.start(rx)
        name = self._period.name(start)
        here = [(n, path) for n, path in segments(self.folder) if n.start_ns == start]
        if here and _is_empty(here[-1][1]):  # made by a call that failed before its first row
            remove(here.pop()[1])
        there = [*(n for n, _ in here), *(n for n, _, _ in apart(self.folder))]
        taken = {self._taken.get(name, 0), *(n.part for n in there if n.period == name)}
        part = 1 + max((n for n in taken if n < MOST_PARTS), default=0)
        while part in taken:
            part += 1
        segment = SegmentName(start, part, name)
        self._path = self.folder / segment.file
        self._edge = self._period.end(start)
        self._tally = Tally()
        self._described = b""
        self._kept_at = 0.0
        db = create(
            self._path,
            {
                "id": self._id,
                "symbol": self._symbol,
                "spool_id": self.spool_id,
                "version": __version__,
                "period": name,
                "part": part,
                "period_ns": self._period.length_ns,
                "edge_ns": self._edge,
                "state": "open",
                "cut": False,
                **({"moved": self._moved} if self._moved else {}),
            },
        )
        self._database = OpenDatabase(self._path, db)
        self._checkpointer.watch(self._path)

    # -- ending segments

    def tick(self, now_ns: int) -> SegmentInfo | None:
        """Seal the open segment where ``now_ns`` has passed its edge; for quiet and disconnected symbols. Nothing older
        may come afterwards."""
        if self._database is None or now_ns < self._edge or self._drop_empty():
            return None
        return self._seal(self._edge, cut=False)

    def cut(self, now_ns: int) -> SegmentInfo | None:
        """Seal the open segment now; what follows in its period is a further part. None where none is open."""
        if self._database is None or self._drop_empty():
            return None
        if now_ns >= self._edge:
            return self.tick(now_ns)
        return self._seal(now_ns, cut=True)

    def _drop_empty(self) -> bool:
        """Whether the open segment had no row, because its first commit failed; it is removed then."""
        if self._database is None or self._tally.digest.rows:
            return False
        self._checkpointer.watch(None)
        self._database.close()
        self._database = None
        remove(self._path)
        return True

    def _seal(self, at_ns: int, *, cut: bool) -> SegmentInfo | None:
        """None where it turns out to be damaged so that it is set apart instead."""
        while self._database is not None:
            try:
                database = self._keep()
                self._checkpointer.watch(None)
                sealed = seal(database.db, self._path, self._tally, at_ns=at_ns, cut=cut)
                break
            except Exception as error:
                if not self._mend(error):
                    raise
        else:
            return None
        database.close()
        self._database = None
        self._is_mended = False
        self.last_seq = sealed.last_seq
        self.newest_rx = max(self._tally.last_rx, at_ns - 1)
        self.last_rx = self.newest_rx if cut else max(self.newest_rx, at_ns)
        log.info("segment closed", extra={"fields": {"segment": self._path.name, "rows": sealed.rows, "cut": cut}})
        return sealed

    @property
    def edge(self) -> int | None:
        """First instant (Unix ns) after the open segment's period; None where none is open."""
        return self._edge if self._database is not None else None

    @property
    def segment(self) -> str | None:
        """File name of the open segment."""
        return self._path.name if self._database is not None else None

    def prune(self, now_ns: int, keep_ns: int) -> list[Path]:
        """Delete segments that were proven in a file long enough ago."""
        pruned = prune(self.folder, now_ns, keep_ns)
        for path in pruned:
            name = SegmentName.parse(path.name)
            assert name is not None
            self._taken[name.period] = max(name.part, self._taken.get(name.period, 0))
        return pruned

    def close(self) -> None:
        """Let go of the open segment, leaving it open for the next start."""
        self._checkpointer.close()
        if self._database is not None:
            self._database.close()
            self._database = None


def last_rx(folder: Path) -> int:
    """Time (Unix ns) that the next row of a spool folder follows: its newest row's, or the edge of the period that was
    closed; 0 where there is no row that can be read. NewerFormatError where a later version wrote there."""
    found = in_order(folder)
    for _, error in found.unreadable:  # the others are set apart, and said, when the spool is opened
        if isinstance(error, NewerFormatError):
            raise error
    for newest in reversed([segment for segment in found.readable if segment.rows]):
        with contextlib.suppress(SegmentError):
            return last_moment(newest)[1]
    return 0


def last_moment(newest: SegmentInfo) -> tuple[int, int, bool]:
    """The newest row's rx, the time to follow, and whether the newest rows are an orderly stop."""
    with SegmentReader(newest.path) as reader:
        rows = list(reader.read(newest.last_seq - 2).rows())
    rx = row_rx = rows[-1].rx
    if newest.state != "open" and not newest.cut:
        rx = max(rx, newest.edge_ns)  # no row may join a period that is closed
    ends = [r for r in rows if not (r.mt == Mt.EVENT and r.m.startswith(begin(Sealed)))]
    return row_rx, rx, bool(ends) and ends[-1].mt == Mt.EVENT and _is_end(ends[-1].m)


def _is_end(m: bytes) -> bool:
    """Whether an event ends a recording in order: one whose folder was lost did not."""
    return m.startswith(_ENDED) and m != FOLDER_LOST


def moved(clean: bool, host: str, spool_id: str, last_seq: int) -> bytes:
    """The event of a recording that goes on here after another host's ``last_seq``; ``clean``: it ended in order."""
    return Moved(clean=clean, host=host, spool_id=spool_id, last_seq=last_seq).m


def _parts(symbol_id: str, files: Iterable[str]) -> dict[str, int]:
    """The highest part that a symbol's files hold of each period, by the period's name."""
    pattern = re.compile(re.escape(symbol_id) + r"(\d{10}|\d{14})(?:\.part([1-9]\d{0,7}))?\.parquet")
    parts: dict[str, int] = {}
    for match in filter(None, map(pattern.fullmatch, files)):
        parts[match[1]] = max(int(match[2] or 1), parts.get(match[1], 0))
    return parts


def _is_empty(path: Path) -> bool:
    """Whether a segment is known to have no row. One that cannot be read keeps nobody from recording beside it."""
    try:
        return not info(path).rows
    except SegmentError as error:
        log.error("segment cannot be read", extra={"fields": {"segment": path.name, "error": str(error)}})
        return False


def _sound(path: Path) -> SegmentInfo:
    """What a segment says of itself where its newest rows can be read and none is missing by its own count.

    SegmentError otherwise: one damaged file must not keep its symbol from being recorded.
    """
    with SegmentReader(path) as reader:
        segment = reader.info()
        if segment.rows and (segment.last_seq - segment.first_seq + 1 != segment.rows or not segment.last_seq):
            raise SegmentError(f"{path}: its rows are not those it was closed with")
        if segment.rows:
            reader.read(segment.last_seq - 2)
    if segment.state == "open" and (denied := not_allowed(path, write=True)):
        raise UnavailableError(denied)
    return segment
