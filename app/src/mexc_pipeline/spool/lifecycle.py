"""What happens to a segment after its last frame: sealed, marked exported, pruned."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mexc_pipeline.events import Gap, Sealed, begin
from mexc_pipeline.ledger.account import Account
from mexc_pipeline.ledger.digest import RowDigest
from mexc_pipeline.paths import sync_folder
from mexc_pipeline.rows import MT_NAMES, Columns, Mt
from mexc_pipeline.spool.open_database import OpenDatabase, Transaction
from mexc_pipeline.spool.segment import (
    SegmentError,
    SegmentInfo,
    SegmentReader,
    UnavailableError,
    clear,
    connect,
    connect_writer,
    failed,
    get_info,
    is_damage,
    put_meta,
)
from mexc_pipeline.spool.wal import keep_left_out
from mexc_pipeline.spool.walk import Unreadable, each, in_order

log = logging.getLogger("mexc_pipeline.spool")

_GAP, _SEALED = begin(Gap), begin(Sealed)


class Tally:
    """Running digest and counts of one segment's rows, fed in seq order with every committed row once."""

    def __init__(self) -> None:
        self.digest = RowDigest()
        self.account = Account()
        self.counts = dict.fromkeys(MT_NAMES, 0)
        self.bytes = 0
        self.gaps = 0
        self.last_rx = 0
        self.contract = b""
        """The newest specification of the contract among the rows, and its seq; 0 without one."""
        self.contract_seq = 0

    def add(self, block: Columns) -> None:
        """Count a block of rows."""
        if not len(block):
            return
        self.digest.update(block)
        mts = set(block.mt)
        for mt in mts:
            self.counts[mt] += block.mt.count(mt)
        self.bytes += sum(map(len, block.m))
        if Mt.CONTRACT in mts:
            at = len(block) - 1 - block.mt[::-1].index(Mt.CONTRACT)
            self.contract, self.contract_seq = block.m[at], block.seq[at]
        if Mt.EVENT in mts:
            for rx, mt, m in zip(block.rx, block.mt, block.m, strict=True):
                if mt == Mt.EVENT:
                    self.gaps += m.startswith(_GAP)
                    self.account.event(rx, m)
        if not (block.mt[-1] == Mt.EVENT and block.m[-1].startswith(_SEALED)):
            self.account.rows(block.rx[0], block.rx[-1])
        self.last_rx = block.rx[-1]

    def copy(self) -> Tally:
        """An independent tally that goes on from here."""
        other = Tally()
        other.digest = self.digest.copy()
        other.account = self.account.copy()
        other.counts = dict(self.counts)
        other.bytes, other.gaps, other.last_rx = self.bytes, self.gaps, self.last_rx
        other.contract, other.contract_seq = self.contract, self.contract_seq
        return other

    @classmethod
    def of(cls, path: Path) -> Tally:
        """Tally of what a segment holds, by reading it; SegmentError where that is not what arrived."""
        tally = cls()
        with SegmentReader(path) as reader:
            kept = reader.info().kept
            last = 0
            if kept is not None:
                while len(block := reader.read(last, until_seq=kept.seq)):
                    tally.add(block)
                    last = block.seq[-1]
                if (last, tally.digest.rows, tally.digest.total()) != (kept.seq, kept.rows, kept.digest):
                    raise SegmentError(f"{path}: its rows up to seq {kept.seq} are not those that arrived")
            for block in reader.blocks(last):
                tally.add(block)
        return tally

    def kept(self, last_seq: int) -> dict[str, Any]:
        """The meta that says, after a restart, which rows arrived up to ``last_seq``."""
        return {"kept": {"seq": last_seq, "rows": self.digest.rows, "digest": self.digest.total()}}


def seal(db: sqlite3.Connection, path: Path, tally: Tally, *, at_ns: int, cut: bool) -> SegmentInfo:
    """Write the ``sealed`` row and close the segment in one commit, then checkpoint the write-ahead log.

    ``at_ns`` is the segment's edge, or with ``cut`` the moment of the cut; the sealed row's rx is the last instant
    before it, never before the row that precedes it. A failed call can be made again: ``tally`` is left as it was, and
    a segment that is closed already only gets its checkpoint. The caller holds the spool's lock.
    """
    before = get_info(db, path)
    if before.state == "open":
        _close(db, before, tally.copy(), at_ns=at_ns, cut=cut)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return get_info(db, path)


def _close(db: sqlite3.Connection, before: SegmentInfo, tally: Tally, *, at_ns: int, cut: bool) -> None:
    if before.rows != tally.digest.rows:
        raise SegmentError(f"{before.path}: it has {before.rows} rows, and {tally.digest.rows} were written to it")
    rx = max(tally.last_rx, at_ns - 1)
    sealed = Columns(
        [before.last_seq + 1],
        [rx],
        [rx // 1_000_000],
        [Mt.EVENT],
        [Sealed(cut=cut or None, rows=before.rows + 1).m],
    )
    tally.add(sealed)
    with Transaction(db):
        db.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", next(iter(sealed.rows())))
        put_meta(
            db,
            {
                "state": "closed",
                "cut": cut,
                "rows": tally.digest.rows,
                "counts": {name: tally.counts[code] for code, name in MT_NAMES.items()},
                "bytes": tally.bytes,
                "gaps": tally.gaps,
                **({"contract_seq": tally.contract_seq} if tally.contract_seq else {}),
                "account": tally.account.to_json(),
                "digests": tally.digest.columns(),
                "digest": tally.digest.total(),
            },
        )


def hold(path: Path, tally: Tally) -> OpenDatabase:
    """Open a segment, whose rows are those of the tally, to write to it. Where it is damaged so that it can only be
    read it is written again, and the damaged file set apart. Raises as :func:`connect_writer`."""
    try:
        return OpenDatabase(path, connect_writer(path))
    except SegmentError as error:
        if not is_damage(path, error):
            raise
        with contextlib.ExitStack() as undo:
            database = OpenDatabase(path, connect(path, readonly=False))
            undo.callback(database.close)
            keep_left_out(database.db, path)
            if not renew(database, path, tally.digest.total(), error):
                raise
            undo.pop_all()
        return database


def renew(database: OpenDatabase, path: Path, digest: str, error: BaseException) -> bool:
    """Write a segment again, whose rows have that digest, where ``error`` shows that it can only be read; returns
    whether they could be read. Raises sqlite3.Error or OSError where it cannot be done at present."""
    renewed = database.renew(partial(_is_whole, digest=digest))
    if renewed:
        fields = {"segment": path.name, "reason": str(error)}
        log.error("segment damaged and written again, the damaged file is set apart", extra={"fields": fields})
    return renewed


def _is_whole(copy: Path, digest: str) -> bool:
    """Whether the copy of a segment says of itself what was written there, and holds rows of that digest."""
    tally = Tally()
    with SegmentReader(copy) as reader:
        reader.meta()
        for block in reader.blocks():
            tally.add(block)
    return tally.digest.total() == digest


Read = Mapping[Path, tuple[SegmentInfo, Tally]]
"""What segments said of themselves, and the tally of their rows."""


def read_left_open(folder: Path, now_ns: int, cut: bool = False) -> Read:
    """Tallies of what :func:`seal_left_open` would close, without the spool's lock: to read a segment takes seconds,
    and a collector that starts meanwhile must not find the lock taken."""
    found: dict[Path, tuple[SegmentInfo, Tally]] = {}
    for segment in each(folder):
        if isinstance(segment, Unreadable) or not _is_left_open(segment, now_ns, cut):
            continue  # why it is unread is said where it is to be closed
        with contextlib.suppress(SegmentError):  # so is this
            found[segment.path] = (segment, Tally.of(segment.path))
    return found


def _is_left_open(segment: SegmentInfo, now_ns: int, cut: bool) -> bool:
    return segment.state == "open" and (cut or now_ns >= segment.edge_ns)


def seal_left_open(
    folder: Path,
    now_ns: int,
    cut: bool = False,
    *,
    read: Read = MappingProxyType({}),
    damaged: Callable[[Path, SegmentError], None] | None = None,
) -> list[SegmentInfo]:
    """Close every open segment whose edge has passed, with ``cut`` also the one of the running period. One that is no
    more what it was when it was ``read`` is read again.

    The caller holds the spool's lock, and no collector runs. Segments that cannot be read are left and logged; those
    whose rows are not the ones that arrived too, and ``damaged`` is told: whoever records here next sets them apart,
    and needs them until then, to give no seq twice. UnavailableError, sqlite3.Error or OSError, once all others are
    closed, where one cannot be written at present.
    """
    sealed: list[SegmentInfo] = []
    refused: list[Exception] = []
    for found in each(folder):
        path = found.path
        try:
            if isinstance(found, Unreadable):
                raise found.error
            if not _is_left_open(found, now_ns, cut):
                continue
            if not found.rows and found.kept is None:
                remove_empty(path)
                continue
            early = now_ns < found.edge_ns
            before, tally = read.get(path, (None, None))
            if tally is None or before != found:
                tally = Tally.of(path)
            with contextlib.closing(hold(path, tally)) as database:
                keep_left_out(database.db, path)
                sealed.append(seal(database.db, path, tally, at_ns=now_ns if early else found.edge_ns, cut=early))
        except (SegmentError, sqlite3.Error, OSError) as error:
            log.error("segment cannot be closed", extra={"fields": {"segment": str(path), "error": str(error)}})
            if isinstance(error, UnavailableError) or not is_damage(path, error):
                refused.append(error)
            elif isinstance(found, SegmentInfo) and damaged is not None:
                damaged(path, failed(path, "cannot be closed", error))
    if refused:
        raise refused[0]
    return sealed


def mark_exported(path: Path, exported: dict[str, Any]) -> None:
    """Record that the segment's file was read back and equals it. Durable when this returns. A segment that can only
    be read is written again for it."""
    try:
        _mark(path, exported)
    except sqlite3.Error as error:
        if not is_damage(path, error):
            raise
        with contextlib.closing(OpenDatabase(path, connect(path, readonly=False))) as database:
            if not renew(database, path, get_info(database.db, path).digest, error):
                raise
        _mark(path, exported)


def _mark(path: Path, exported: dict[str, Any]) -> None:
    with contextlib.closing(connect(path, readonly=False)) as db, Transaction(db):
        put_meta(db, {"state": "exported", "exported": exported})


def remove(path: Path) -> None:
    """Delete a segment file and what SQLite keeps beside it."""
    for end in ("", "-wal", "-shm"):
        clear(path.with_name(path.name + end))
    sync_folder(path.parent)


def remove_empty(path: Path) -> str | None:
    """Delete a segment without rows; returns the name of what is kept where some stand behind a damaged place of its
    log. Raises sqlite3.Error."""
    with contextlib.closing(connect(path, readonly=False)) as db:
        kept = keep_left_out(db, path)
    remove(path)
    return kept


def prune(folder: Path, now_ns: int, keep_ns: int) -> list[Path]:
    """Delete exported segments whose file was proven ``keep_ns`` ago or earlier, by a clock that is right now; it was
    not always: what the exchange says of a segment's newest frame is believed where it is later than what export said.
    A segment without one is taken to be as old as the next that has one, and stays where none has.

    The newest segment always stays: it is how the next seq is known. One that cannot be read or deleted stays, and is
    logged.
    """
    found = in_order(folder)
    for path, error in found.unreadable:
        log.error("segment cannot be read", extra={"fields": {"segment": str(path), "error": str(error)}})
    newest = max((segment.last_seq for segment in found.readable), default=0)
    exported = [segment for segment in found.readable if segment.state == "exported"]
    proven = proven_at([int(segment.exported["at_ns"]) for segment in exported], now_ns)
    newest_frame_ns = cache(_newest_frame_ns)
    pruned: list[Path] = []
    for segment, at_ns in zip(exported, proven, strict=True):
        if at_ns is None or now_ns - at_ns < keep_ns or segment.last_seq >= newest:
            continue
        try:
            following = found.readable[found.readable.index(segment) :]
            told_ns = next(filter(None, (newest_frame_ns(later.path) for later in following)), 0)
            if not told_ns or now_ns - told_ns < keep_ns:
                break  # those behind it are younger; the recorder, which waits for this, need not read them
            remove(segment.path)
            pruned.append(segment.path)
        except (SegmentError, OSError) as error:
            fields = {"segment": str(segment.path), "error": str(error)}
            log.error("segment cannot be pruned", extra={"fields": fields})
    return pruned


def _newest_frame_ns(path: Path) -> int:
    with SegmentReader(path) as reader:
        return reader.newest_frame_ns()


def proven_at(said_ns: Sequence[int], now_ns: int) -> list[int | None]:
    """When segments, in the order of their rows, were proven at the latest, out of what each says; None where that
    cannot be told. Exports go in that order, so that none was proven before the one before it, or after the next one:
    what was written by a clock that was behind does not look old, and a time that has not come yet tells nothing."""
    found: list[int | None] = []
    following: int | None = None
    for said in reversed(said_ns):
        following = said if said <= now_ns else following
        found.append(following)
    latest = 0
    for place, at in enumerate(reversed(found)):
        latest = max(latest, at or 0)
        found[-1 - place] = latest if at is not None else None
    return found[::-1]
