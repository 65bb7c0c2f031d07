"""A segment: one SQLite file with the rows of one period (or one part of a period that was cut).

States go open → closed → exported; pruning removes the file. The collector (or, in its absence, export holding
the same lock) opens and closes; export alone marks ``exported``; everybody else reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from mexc_pipeline.ledger.account import Account
from mexc_pipeline.paths import is_readonly, leads_nowhere, not_a_file, not_allowed, sync_folder
from mexc_pipeline.periods import END_NS, Period, parse_name
from mexc_pipeline.rows import FRAME_TYPES, MT_NAMES, Columns
from mexc_pipeline.spool.blobs import LARGE, fetch, limit
from mexc_pipeline.spool.names import SegmentName

State = Literal["open", "closed", "exported"]

FORMAT = 1
"""Version of the segment's own schema, kept in ``user_version``."""

NEWEST_ROWS = 100_000
"""Among which the newest frame is looked for."""
_SCHEMA = """
CREATE TABLE rows (
  seq INTEGER PRIMARY KEY,
  rx  INTEGER NOT NULL,
  ts  INTEGER NOT NULL,
  mt  INTEGER NOT NULL,
  m   BLOB    NOT NULL
) STRICT;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""


MOST = 1 << 62
"""More than any seq of a row: what is beyond is damage, and has no room for the next one."""
NUMBERED = MOST >> 1
"""More than the last seq that anybody else may say was given: a recording that goes on from there has room for ever."""
_Whole = Annotated[int, msgspec.Meta(ge=0, lt=MOST)]
_Time = Annotated[int, msgspec.Meta(ge=0, lt=END_NS)]
"""Unix ns; a clock can be set to any."""


DAMAGE = (sqlite3.Error, TypeError, ValueError, OverflowError, MemoryError)
"""What reading a damaged database raises. ValueError: SQLite's own message quotes an altered schema, and is no UTF-8
then. MemoryError, OverflowError: of texts and numbers as long as an altered length says."""


class SegmentError(Exception):
    """A segment that cannot be read: not a segment, damaged, or of a newer format."""


class UnavailableError(SegmentError, sqlite3.OperationalError):
    """A segment that cannot be used at present (no permission, held by another program, no handle or memory left),
    which says nothing of what is in it: it is left where and as it is, and is used again once it can be."""


class NoFileError(SegmentError, sqlite3.OperationalError):
    """The database, or what SQLite keeps beside it, is a folder, a FIFO or a link to nothing, and will stay one."""


class MisnamedError(SegmentError):
    """A segment under another name than it was written under: a copy, a link, or one that was renamed. ``last_seq`` is
    its last one, which was given."""

    def __init__(self, said: str, last_seq: int) -> None:
        super().__init__(said)
        self.last_seq = last_seq


class NewerFormatError(SegmentError):
    """A segment that a later version of this program wrote; it is whole and must be left alone."""


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """What a segment says of itself.

    ``first_seq`` and ``last_seq`` are 0 while there is no row. ``edge_ns`` is the first instant after its period.
    From ``closed`` on: ``counts`` (rows per type name), ``bytes`` (of ``m``), ``digests`` (hex per column),
    ``digest``, ``gaps``, ``account`` (see ``ledger.account``) and ``final`` (False where the period was cut here and
    went on) hold the whole segment, and ``contract_seq`` is its newest ``c`` row's (0 without one). ``cut`` is set
    where it was closed before its edge. ``exported`` describes the file, from ``exported`` on. ``moved``: up to which
    place pending rows came here, by their file's id. ``checked``: all of this agrees with a check value; false of a
    segment of a version that had none.
    """

    path: Path
    name: SegmentName
    id: str
    symbol: str
    spool_id: str
    version: str
    edge_ns: int
    state: State
    first_seq: int
    last_seq: int
    rows: int
    counts: dict[str, int]
    bytes: int
    digests: dict[str, str]
    digest: str
    gaps: int
    cut: bool
    exported: dict[str, Any]
    account: dict[str, Any] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    kept: Kept | None = None
    contract_seq: int = 0
    checked: bool = False

    @property
    def is_part(self) -> bool:
        """Whether its file is a ``.partN`` file: the period was cut before or at this segment."""
        return self.name.part > 1 or self.cut

    @property
    def final(self) -> bool:
        """Whether its period ends with it."""
        return not self.cut

    @property
    def file(self) -> str:
        """Name of the Parquet file it becomes."""
        part = f".part{self.name.part}" if self.is_part else ""
        return f"{self.id}{self.name.period}{part}.parquet"


class Kept(msgspec.Struct, frozen=True):
    """What was computed of an open segment's rows as they arrived, up to and with ``seq``. It outlives the process: a
    digest made anew from the file proves what the file says, not what arrived."""

    seq: _Whole
    rows: _Whole
    digest: str


class _Exported(msgspec.Struct):
    """What this program itself goes by of ``exported``."""

    at_ns: _Time


class _Meta(msgspec.Struct):
    """The meta rows of a segment as :class:`SegmentInfo` shows them. A segment is a file that anything may have written
    to: what names and times are made of is of its type here or the segment is none of ours."""

    id: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,63}\\Z")]
    symbol: str
    spool_id: str
    version: str
    edge_ns: Annotated[int, msgspec.Meta(gt=0, lt=END_NS)]
    state: State
    rows: _Whole | None = None
    counts: dict[str, _Whole] = {}
    bytes: _Whole = 0
    digests: dict[str, str] = {}
    digest: str = ""
    gaps: _Whole = 0
    account: dict[str, Any] = {}
    cut: bool = False
    exported: dict[str, Any] = {}
    moved: dict[str, int] = {}
    kept: Kept | None = None
    contract_seq: _Whole = 0
    period: str = ""
    part: int | None = None

    def own_name(self, found: SegmentName) -> SegmentName:
        """The name that it was written under, as far as it says so: an earlier version's says its part once it is
        exported. What it does not say is as it is ``found``."""
        part = self.part if self.part is not None else self.exported.get("part")
        period = self.period or found.period
        return SegmentName(parse_name(period), part if isinstance(part, int) else found.part, period)


_NOT_SHOWN = ("rows", "period", "part")


def connect(path: Path, *, readonly: bool, timeout_s: float = 5.0) -> sqlite3.Connection:
    """Open a segment file that exists. ``readonly`` never writes rows (it may touch the shared-memory file). Raises
    sqlite3.Error where it cannot be opened: NoFileError, which is one, where it or its log is no file, UnavailableError
    where this process may not: SQLite would open a file that it may only read, and would never look again."""
    for part in _parts(path):
        if instead := not_a_file(part):
            raise NoFileError(f"{instead} stands in place of {part.name}")
        if leads_nowhere(part):
            raise NoFileError(f"a link to nothing stands in place of {part.name}")
        if part is not path and (instead := _not_beside(part)):
            raise NoFileError(f"{instead} stands in place of {part.name}")
        if denied := not_allowed(part, write=not readonly):
            raise UnavailableError(denied)
    if not readonly and (denied := not_allowed(path.parent, write=True)):
        raise UnavailableError(denied)
    mode = "ro" if readonly else "rw"
    quoted = str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    db = sqlite3.connect(
        f"file:{quoted}?mode={mode}", uri=True, isolation_level=None, timeout=timeout_s, check_same_thread=False
    )
    with ExitStack() as undo:
        undo.callback(db.close)
        try:
            limit(db)
            db.execute("PRAGMA synchronous=FULL")
        except UnicodeDecodeError as error:
            raise sqlite3.DatabaseError(f"its schema is no text: {error}") from error
        undo.pop_all()
    return db


_LOGS = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""How a write-ahead log begins (walformat.html)."""
_INDEX = 32 << 10
"""Bytes of which the size of a log's index is a multiple. It is not opened to be looked at: to close it again would
take this process's locks away."""


def _not_beside(part: Path) -> str:
    """What stands in the place of a log, or of its index, that SQLite would write over though it is somebody else's: a
    link, or a file that has another name besides and does not look like one; empty where none does."""
    try:
        found = part.lstat()
        if stat.S_ISLNK(found.st_mode):
            return "a link"
        if found.st_nlink < 2 or not found.st_size:
            return ""
        is_one = found.st_size % _INDEX == 0 if part.name.endswith("-shm") else _head(part) in _LOGS
    except OSError:
        return ""  # whoever opens it says why
    return "" if is_one else "a file of another name"


def _head(log: Path) -> bytes:
    fd = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(fd, len(_LOGS[0]), 0)
    finally:
        os.close(fd)


def _parts(path: Path) -> tuple[Path, ...]:
    """A database file and what SQLite keeps beside it."""
    return path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM)
_OPENING = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY)


def failed(path: Path, what: str, error: BaseException) -> SegmentError:
    """The error that tells what became of a segment that could not be used: UnavailableError unless it is known to be
    the segment's own fault."""
    if isinstance(error, UnavailableError):
        return error
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    there = [part for part in _parts(path) if os.path.lexists(part)]
    if code in _PASSING or (code in _OPENING and path in there and not any(map(not_a_file, there))):
        denied = next(filter(None, map(not_allowed, there)), "") or not_allowed(path.parent, write=True)
        # With every right there is, "read-only" is what SQLite says of a log that a torn write has left beside it.
        torn = code == sqlite3.SQLITE_READONLY and not denied and not is_readonly(path)
        if not torn:
            return UnavailableError(denied or f"{path}: {what} at present: {error}")
    return SegmentError(f"{path}: {what}: {error}")


_DAMAGED = (
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_INTERNAL,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_TOOBIG,
)
"""What statements that always succeed in a sound file say: it has no such table, or rows that nobody gave it, or of a
size that nobody did."""
_CUT_OFF = (sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS)


def is_damage(path: Path, error: BaseException) -> bool:
    """Whether a statement on a database of ours failed because its file is damaged, and will fail again until that is
    another one; not where disk, rights or another program refuse it at present."""
    if isinstance(error, SegmentError | UnicodeDecodeError):
        return not isinstance(error, UnavailableError)
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # Python's own, of a text that is none
        return "utf-8" in str(error).lower()
    if code & 0xFF == sqlite3.SQLITE_READONLY:
        return not isinstance(failed(path, "cannot be written", error), UnavailableError)
    return code & 0xFF in _DAMAGED or code in _CUT_OFF


def create(path: Path, meta: dict[str, Any]) -> sqlite3.Connection:
    """Make a new segment with its meta rows; durable, folder entry included, when this returns."""
    return create_database(path, FORMAT, _SCHEMA, meta)


def create_database(path: Path, version: int, schema: str, meta: dict[str, Any]) -> sqlite3.Connection:
    """Make a database with a table ``meta`` for one writer; durable, folder entry included, when this returns."""
    making = path.with_name(f".{path.name}.new")
    for end in ("", "-wal", "-shm", "-journal"):
        clear(making.with_name(making.name + end))
        if end:  # of a file of this name that is gone: SQLite would take it for the new one's
            clear(path.with_name(path.name + end))
    db = sqlite3.connect(making, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous=FULL")
        db.executescript(f"BEGIN; PRAGMA user_version={version}; {schema}")
        put_meta(db, meta)
        db.execute("COMMIT")
        # Before it has its name: broken off, this leaves a journal that no reader may roll back.
        db.execute("PRAGMA journal_mode=WAL")
    finally:
        db.close()
    os.link(making, path)  # never replaces one that is there
    making.unlink()
    sync_folder(path.parent)
    return connect_writer(path)


def clear(path: Path) -> None:
    """Make way for a file: remove the one that is there, set a folder apart."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        path.rename(path.with_name(f"{path.name}.damaged-{time.time_ns()}"))


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open a segment for its one writer: write-ahead log, each commit fsynced, checkpoints left to others. Raises as
    :func:`connect`; SegmentError where it is damaged so that it cannot be written, which reading does not tell."""
    db = connect(path, readonly=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
        _try_to_write(db)
    except sqlite3.Error as error:
        db.close()
        if is_damage(path, error):
            raise failed(path, "cannot be written", error) from error
        raise
    return db


def _try_to_write(db: sqlite3.Connection) -> None:
    """Take new pages and change the oldest ones, as each commit will, and take all of it back: nothing of it reaches
    the disk. What is wrong with the list of free pages or with the form of the file shows here and nowhere else."""
    db.execute("BEGIN IMMEDIATE")
    try:
        db.execute("CREATE TABLE trial (x)")
        db.execute("INSERT INTO trial VALUES (zeroblob(20000))")
        db.execute("INSERT INTO meta VALUES ('', '')")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


CHECK = "check"
"""The key whose value covers all others, see :func:`_check`; files of earlier versions have none."""


def put_meta(db: sqlite3.Connection, meta: dict[str, Any]) -> bool:
    """Write meta keys, each as JSON, and the check value over all there are; in one transaction of the caller's. What
    disagrees with its check value already is not given a new one, and False returned: it stays known as damaged."""
    held = _pairs(db)
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    written = {key: json.dumps(value) for key, value in meta.items()}
    if agreed := held.get(CHECK, found := _check(held, version)) == found:
        written[CHECK] = _check(held | written, version)
    db.executemany(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", list(written.items())
    )
    return agreed


def read_meta(db: sqlite3.Connection, path: Path, what: str, version: int) -> dict[str, Any]:
    """The meta of a database of ours, the one place where they are believed: with :data:`CHECK` among them they agree
    with it. ``what``: how a person calls such a file; ``version``: the newest format that is known of it. SegmentError
    where they are not as they were written, NewerFormatError where a later version wrote them; else one of
    :data:`DAMAGE`."""
    said = int(db.execute("PRAGMA user_version").fetchone()[0])
    (made,) = db.execute("SELECT count(*) FROM sqlite_schema WHERE type IN ('view', 'trigger')").fetchone()
    if made and said <= version:  # first: to read one may take for ever
        raise SegmentError(f"{path}: a view or a trigger is in it, which nobody of ours made")
    try:
        held = _pairs(db)
        of = next((v for v in range(1, version + 1) if held.get(CHECK) == _check(held, v)), None)
    except DAMAGE:
        if said > version:
            raise _newer(path, what, said, version) from None  # of whatever form that has
        raise
    if said > version and of is None:
        raise _newer(path, what, said, version)
    if CHECK in held and said != of:
        which = f"its header (format {said})" if of is not None else "what it says of itself"
        raise SegmentError(f"{path}: {which} is not what was written there, by its check value")
    return {key: json.loads(value) for key, value in held.items()}


def _newer(path: Path, what: str, said: int, known: int) -> NewerFormatError:
    return NewerFormatError(
        f"{path}: {what} {said} is newer than this program knows ({known}); "
        "run the version that wrote it, or a later one"
    )


def _pairs(db: sqlite3.Connection) -> dict[str, str]:
    return dict(db.execute("SELECT key, value FROM meta").fetchall())


def _check(held: dict[str, str], version: int) -> str:
    """SHA-256, in hex and as JSON, of the format's version and every other key with its value as it is stored."""
    pairs = sorted((key, value) for key, value in held.items() if key != CHECK)
    return json.dumps(hashlib.sha256(json.dumps([version, pairs]).encode()).hexdigest())


def get_info(db: sqlite3.Connection, path: Path) -> SegmentInfo:
    """Read what a segment says of itself; SegmentError where it is none of ours."""
    try:
        db.execute("BEGIN")
        try:
            meta = read_meta(db, path, "segment format", FORMAT)
            # Two subqueries: SQLite looks up one min or max in the index, but scans the table for both at once.
            first, last = db.execute("SELECT (SELECT min(seq) FROM rows), (SELECT max(seq) FROM rows)").fetchone()
        finally:
            db.execute("COMMIT")
        name = SegmentName.parse(path.name)
        if name is None:
            raise SegmentError(f"{path}: not a segment's name")
        first, last = first or 0, last or 0
        if not 0 <= first <= last < MOST:
            raise SegmentError(f"{path}: seq {first} to {last} are none of a recording")
        said = msgspec.convert(meta, _Meta)
        if (own := said.own_name(name)) != name:
            raise MisnamedError(
                f"{path}: named as another period or part than the one it was written as, {own.file}: a copy of that "
                "one or renamed; move it away, or give it back that name where there is none",
                last,
            )
        Period(said.edge_ns - name.start_ns)  # ValueError
        if said.account:
            Account.of(said.account)
        if said.state == "exported":
            msgspec.convert(said.exported, _Exported)
        return SegmentInfo(
            path=path,
            name=name,
            first_seq=first,
            last_seq=last,
            rows=said.rows if said.rows is not None else last - first + 1 if last else 0,
            checked=CHECK in meta,
            **{key: getattr(said, key) for key in _Meta.__struct_fields__ if key not in _NOT_SHOWN},
        )
    except (*DAMAGE, KeyError, RecursionError) as error:
        raise failed(path, "not a readable segment", error) from error


def bounded(
    cursor: sqlite3.Cursor | Generator[tuple[int, int, int, int, bytes]], max_bytes: int
) -> list[tuple[int, int, int, int, bytes]]:
    """Rows of a statement, no more once their frames exceed ``max_bytes``; it is ended: an open one would keep the
    write-ahead log from shrinking."""
    rows: list[tuple[int, int, int, int, bytes]] = []
    size = 0
    with closing(cursor):  # also where what is read is no frame
        for row in cursor:
            rows.append(row)
            size += len(row[4])
            if size >= max_bytes:
                break
    return rows


class SegmentReader:
    """Reads one segment beside its writer, a block at a time; no statement stays open between blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = connect(path, readonly=True)
        except DAMAGE as error:
            raise failed(path, "cannot be opened", error) from error

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def info(self) -> SegmentInfo:
        """What the segment says of itself now."""
        return get_info(self._db, self.path)

    def meta(self) -> dict[str, Any]:
        """Everything that the segment says of itself, by its check value, whatever its file is called."""
        return read_meta(self._db, self.path, "segment format", FORMAT)

    def read(
        self,
        after_seq: int,
        max_rows: int = 5000,
        max_bytes: int = 8 << 20,
        until_seq: int = 1 << 62,
        large: Callable[[], None] = lambda: None,
    ) -> Columns:
        """Committed rows with ``after_seq`` < seq ≤ ``until_seq`` in seq order: at most ``max_rows``, and no more once
        their frames exceed ``max_bytes``; empty at the end. ``large`` is called before a frame of :data:`LARGE` bytes
        or more is taken into memory."""
        try:
            cursor = self._db.execute(
                "SELECT seq, rx, ts, mt, CASE WHEN length(m) < ? THEN m END, length(m) FROM rows "
                "WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
                (LARGE, after_seq, until_seq, max_rows),
            )
            rows = bounded(self._whole(cursor, large), max_bytes)
        except DAMAGE as error:
            raise failed(self.path, f"cannot be read after seq {after_seq}", error) from error
        block = self._checked(Columns.of(rows))
        if len(block) and block.seq[0] <= after_seq:
            raise SegmentError(f"{self.path}: rows after seq {after_seq} are out of order")
        return block

    def _whole(self, cursor: sqlite3.Cursor, large: Callable[[], None]) -> Generator[tuple[int, int, int, int, bytes]]:
        """The rows with their large frames, of which SQLite would make a copy more."""
        with closing(cursor):
            for *row, m, size in cursor:
                if m is None and size is not None:
                    large()
                    m = fetch(self._db, row[0])
                yield (*row, m)
                del m  # it may be large: not beside the next one

    def has_large(self) -> bool:
        """Whether a frame has :data:`LARGE` bytes or more."""
        try:
            return self._db.execute("SELECT 1 FROM rows WHERE length(m) >= ? LIMIT 1", (LARGE,)).fetchone() is not None
        except DAMAGE as error:
            raise failed(self.path, "cannot be read", error) from error

    def _checked(self, block: Columns) -> Columns:
        """The rows where they are rows: one altered bit can make a number a text, or a type none that there is."""
        if (
            any(set(map(type, column)) - {int} for column in (block.seq, block.rx, block.ts, block.mt))
            or set(map(type, block.m)) - {bytes}
            or any(a >= b for a, b in pairwise(block.seq))  # pages out of order: reading on would never end
            or not MT_NAMES.keys() >= set(block.mt)
            or any(not 0 <= rx < END_NS for rx in (min(block.rx, default=0), max(block.rx, default=0)))
        ):
            raise SegmentError(f"{self.path}: rows after seq {block.seq[0] - 1} hold what no row has")
        return block

    def blocks(self, after_seq: int = 0, max_rows: int = 5000, max_bytes: int = 8 << 20) -> Iterator[Columns]:
        """All rows after ``after_seq``, block by block."""
        while len(block := self.read(after_seq, max_rows, max_bytes)):
            yield block
            after_seq = block.seq[-1]

    def counts(self) -> dict[str, int]:
        """Rows per type name as they are now, zero where there is none."""
        try:
            found = dict(self._db.execute("SELECT mt, count(*) FROM rows GROUP BY mt").fetchall())
        except DAMAGE as error:
            raise failed(self.path, "cannot be counted", error) from error
        return {name: found.get(code, 0) for code, name in MT_NAMES.items()}

    def newest_frame_ns(self) -> int:
        """The exchange's own time (Unix ns) on the newest frame of the market, looked for among the newest rows; 0
        without one."""
        newest = [self.tail(mt, 1, NEWEST_ROWS) for mt in FRAME_TYPES]
        return max((block.ts[0] * 1_000_000 for block in newest if len(block)), default=0)

    def tail(self, mt: int, limit: int, among: int = 1 << 62, max_bytes: int = 1 << 62) -> Columns:
        """The newest ``limit`` rows of a type, in seq order, and no more once their frames exceed ``max_bytes``; looked
        for among the newest ``among`` of all rows."""
        try:
            cursor = self._db.execute(
                "SELECT seq, rx, ts, mt, m FROM rows WHERE mt = ? AND seq > (SELECT ifnull(max(seq), 0) FROM rows) - ?"
                " ORDER BY seq DESC LIMIT ?",
                (mt, among, limit),
            )
            rows = bounded(cursor, max_bytes)
        except DAMAGE as error:
            raise failed(self.path, "cannot be read", error) from error
        return self._checked(Columns.of(reversed(rows)))


def ended_ns(segment: SegmentInfo, now_ns: int) -> int | None:
    """When a segment came to its end (Unix ns); None where it has not yet. Its edge is of the clock it was recorded by,
    which may have been years off; its file was closed when that was noticed."""
    times = [segment.edge_ns]
    if segment.state != "open":
        with suppress(FileNotFoundError):  # pruned meanwhile
            times.append(segment.path.stat().st_mtime_ns)
    return max((at for at in times if at <= now_ns), default=None)


def info(path: Path) -> SegmentInfo:
    """What the segment at ``path`` says of itself. SegmentError where it cannot be read."""
    with SegmentReader(path) as reader:
        return reader.info()
