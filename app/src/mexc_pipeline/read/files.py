"""Rows of exported files as Arrow tables: which files, which row groups, which rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mexc_pipeline.errors import UserError
from mexc_pipeline.export.order import IMPORTED, Placed, in_order
from mexc_pipeline.export.parquet import SCHEMA, FileError, metadata, open_file
from mexc_pipeline.paths import not_allowed
from mexc_pipeline.periods import DAY_NS
from mexc_pipeline.read.arguments import ArgumentError, name_of, shown
from mexc_pipeline.read.arguments import folder as folder_of
from mexc_pipeline.rows import FIRST_TYPES, MT_CODES
from mexc_pipeline.spool.names import FileName
from mexc_pipeline.spool.walk import exported_files
from mexc_pipeline.text import clean

Instant = int | str | date | np.datetime64
"""Unix nanoseconds, ISO 8601 text, a datetime (also ``pandas.Timestamp``, ``numpy.datetime64``) or a date, which is its
first instant; without a zone it is UTC."""

FOLDER = IMPORTED
"""Folder in ``export_dir`` that holds what was imported."""

_NS = 1_000_000_000
_ABSENT = ("mt", "rx", "seq")
"""What rows of imported files may lack."""
_KNOWN = pa.array(MT_CODES, pa.string())
_MOST_NAME = 40
"""Characters of an unknown type that are shown."""
_LEAST_NS = 10**17
"""In 1973. Integers of fewer digits are seconds, ms or µs."""
_LAST_NS, _LAST_YEAR = (1 << 63) - 2, 2262
"""In 2262; the next one fits too."""
_TIMES = "give ISO 8601 text, a datetime, a date, pandas.Timestamp, numpy.datetime64 or Unix nanoseconds"


def instant_ns(value: Instant) -> int:
    """Unix nanoseconds; a date or text beyond 2262 is the last of them. ArgumentError for what is no time, for what
    lies before 1970, and for integers that are seconds, ms or µs: taken for ns they lie in 1970, and a stretch from
    there on is everything."""
    if isinstance(value, str | datetime) and value == value:  # NaT is a datetime too
        ns = _exact(value)
    elif isinstance(value, date) and value == value:
        ns = _exact(datetime(value.year, value.month, value.day, tzinfo=UTC))
    elif isinstance(value, np.datetime64) and not np.isnat(value):
        unit, _ = np.datetime_data(value.dtype)
        # Looked at by its year first: NumPy lets what does not fit turn over into another time. Of the finest units it
        # cannot tell the year, and they do not reach far.
        fine = unit in ("ps", "fs", "as")
        year = 1970 if fine else 1970 + int(value.astype("datetime64[Y]").astype(np.int64))
        inside = 1970 <= year < _LAST_YEAR or np.datetime_data(value.dtype) == ("ns", 1)
        ns = int(value.astype("datetime64[ns]").astype(np.int64)) if inside else (year - 1970) * _LAST_NS
    elif isinstance(value, int | np.integer) and not isinstance(value, bool):
        ns = int(value)
        if 0 < abs(ns) < _LEAST_NS or ns > _LAST_NS + 1:
            raise ArgumentError(
                f"{shown(value)} is no time in Unix nanoseconds, which have 19 digits now: is it in s, ms or µs?"
            )
    else:
        raise ArgumentError(f"{shown(value)} is no time; {_TIMES}")
    if ns < 0:
        raise ArgumentError(f"{shown(value)} is no time that was recorded: it lies before 1970")
    return min(ns, _LAST_NS)


def bounds(start: Instant | None, end: Instant | None) -> tuple[int | None, int | None]:
    """``start`` and ``end`` as Unix nanoseconds; ValueError as :func:`instant_ns`, and where ``start`` is after
    ``end``."""
    low = instant_ns(start) if start is not None else None
    high = instant_ns(end) if end is not None else None
    if low is not None and high is not None and low > high:
        raise ArgumentError(f"start {shown(start)} is after end {shown(end)}")
    return low, high


def _exact(value: str | datetime) -> int:
    try:
        if isinstance(value, str) and value.isdecimal() and len(value) != len("YYYYMMDD"):
            raise ValueError  # noqa: TRY301 - an integer as text, of which some digits can be taken for a date
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ArgumentError(f"{shown(value)} is no time; {_TIMES}") from error
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    seconds = int(at.replace(microsecond=0).timestamp())
    return seconds * _NS + at.microsecond * 1000 + getattr(at, "nanosecond", 0)  # pandas.Timestamp: finer


def find(
    symbol: str,
    export_dir: Path | str,
    start: Instant | None = None,
    end: Instant | None = None,
    *,
    imported: bool = False,
) -> list[Placed]:
    """Files of a symbol (id, or the exchange's name) in the order of their rows (imported: of their names), without
    those whose period lies wholly outside ``start`` ≤ time < ``end``.

    ArgumentError for what is no time, symbol or path, and where ``start`` is after ``end``. UserError naming what
    there is where the symbol has none, where there is no folder or none that may be read, where an imported file lies
    among recorded ones, where an id holds files of more than one of the exchange's symbols (an id that was given to
    another one later): the exchange's name then chooses among them; and where a symbol's files in the stretch are of
    more than one id (its id was changed): each has a numbering of its own, and its id chooses.
    """
    symbol, folder = name_of(symbol), folder_of(export_dir)
    try:
        if not folder.is_dir():
            raise UserError(f"no files of {shown(symbol)}: {folder} is no folder; export_dir is the one with the files")
        if imported and (folder / FOLDER).is_dir():
            folder /= FOLDER
        files = exported_files(folder)
    except OSError as error:
        raise UserError(not_allowed(folder) or f"{folder}: {error.strerror}") from error
    ids = sorted({name.id for name, _ in files})
    wanted = {symbol} if symbol in ids else _ids_of(symbol, files)
    of_symbol = [(name, path) for name, path in files if name.id in wanted]
    if not of_symbol:
        there = f"there are files of {', '.join(ids)}" if ids else "there are no exported files"
        raise UserError(f"no files of {shown(symbol)} in {folder}: {there}")
    low, high = bounds(start, end)
    found = in_order(
        (name, path)
        for name, path in of_symbol
        if (low is None or name.start_ns + DAY_NS > low) and (high is None or name.start_ns < high)
    )
    if symbol not in wanted:
        found = [file for file in found if file.symbol == symbol]
        if len(named := dict.fromkeys(file.name.id for file in found)) > 1:
            raise UserError(
                f"files of {symbol!r} in {folder} were recorded under {' and '.join(named)}, each with a numbering of "
                "its own: name the one that is meant"
            )
    elif len(labels := dict.fromkeys(file.symbol for file in found if file.symbol)) > 1:
        raise UserError(f"files of {symbol!r} in {folder} are of {' and '.join(labels)}: name the one that is meant")
    for file in found:
        if file.imported != imported:
            if imported:
                raise UserError(f"{folder} holds recorded files, such as {file.path.name}; imported ones are elsewhere")
            raise UserError(f"{file.path}: imported file among recorded ones; move it to {FOLDER} there")
    return found


def _ids_of(symbol: str, files: Sequence[tuple[FileName, Path]]) -> set[str]:
    """The ids under which files of an exchange's symbol are; empty where there are none. One file of each id tells
    nearly always; the others are looked at before it is said that there is none."""
    last = {name.id: path for name, path in files}
    found = {symbol_id for symbol_id, path in last.items() if _label(path) == symbol}
    return found or {name.id for name, path in files if _label(path) == symbol}


def _label(path: Path) -> str:
    try:
        return metadata(path).get("symbol", "")
    except FileError:
        return ""  # said where it is read


def tables(
    paths: Iterable[Path],
    low: int | None = None,
    high: int | None = None,
    types: Sequence[str] | None = None,
    *,
    imported: bool = False,
) -> Iterator[Any]:
    """One ``pyarrow.Table`` per row group, in seq order: rows of those types with ``low`` ≤ rx < ``high`` (Unix
    ns; imported: ts).

    FileError for a file that cannot be read.
    """
    for path in paths:
        with open_file(path) as parquet:
            column = "ts" if imported else "rx"
            unit = _NS // 1000 if imported else 1
            for group in range(parquet.num_row_groups):
                if _holds(parquet, path, group, column, unit, low, high):
                    table = _read(parquet, path, group, SCHEMA.names, _ABSENT if imported else ())
                    yield _pick(table, column, unit, low, high, types)


def _read(parquet: Any, path: Path, group: int, columns: Sequence[str], absent: Sequence[str] = ()) -> Any:
    """Columns of a row group. FileError where one of them lacks a value, other than those that may be ``absent``: no
    comparison holds for what is not there, and the row would be in no result without a word."""
    table = parquet.read_row_group(group, columns)
    for name in columns:
        if name not in absent and table.column(name).null_count:
            row = pc.index(pc.is_null(table.column(name)), True).as_py()
            row += sum(parquet.metadata.row_group(before).num_rows for before in range(group))
            raise FileError(
                f"{path}: row {row:,} (from 0) has no {name}; verify exports says what else is wrong with it"
            )
    return table


class Unknown:
    """Rows of types that this version does not know, met on the way: of a newer version, or damaged. ``counts`` by
    type; ``first`` is where the first one is."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first = ""

    def note(self, seq: int, path: Path, what: str) -> None:
        """Count in a row."""
        self.counts[what] += 1
        self.first = self.first or f"seq {seq} in {path}"

    def take(self, table: Any, path: Path) -> None:
        """Count in a table of rows."""
        unknown = table.filter(pc.invert(pc.is_in(table.column("mt"), _KNOWN)))
        names = unknown.column("mt").cast(pa.binary()).to_pylist()
        for name, seq in zip(names, unknown.column("seq").to_pylist(), strict=True):
            self.note(seq, path, "none" if name is None else clean(name, _MOST_NAME))

    @property
    def said(self) -> str:
        """What was passed over, and why that may be; empty where nothing was."""
        if not self.counts:
            return ""
        named = ", ".join(f"{count:,} {name}" for name, count in self.counts.most_common(5))
        return (
            f"rows that this version does not know were left out ({named}; first {self.first}): "
            "a newer version wrote them, or the file is damaged"
        )


class Next(NamedTuple):
    """A row as far as it tells whether the recording went on; ``m`` of events alone."""

    seq: int
    rx: int
    mt: str
    m: bytes


def last_at(path: Path, at_ns: int) -> Next | None:
    """The last row with rx ≤ ``at_ns`` (Unix ns), without its ``m``. Within a file rx never goes back."""
    with open_file(path) as parquet:
        for group in reversed(range(parquet.num_row_groups)):
            table = _read(parquet, path, group, ["rx", "seq"])
            rows = table.filter(pc.less_equal(table.column("rx").cast(pa.int64()), at_ns))
            if len(rows):
                newest = rows.slice(len(rows) - 1)
                return Next(newest.column("seq")[0].as_py(), newest.column("rx").cast(pa.int64())[0].as_py(), "", b"")
    return None


def rows_after(paths: Iterable[Path], seq: int) -> Iterator[Next]:
    """The rows behind that of a seq, as far as they are asked for."""
    for path in paths:
        with open_file(path) as parquet:
            for group in range(parquet.num_row_groups):
                table = _behind(parquet, path, group, seq)
                for n in range(len(table)):
                    row = table.slice(n, 1)
                    mt = clean(row.column("mt").cast(pa.binary())[0].as_py(), _MOST_NAME)
                    frames = _read(parquet, path, group, ["m"]).column(0) if mt == "ev" else None
                    yield Next(
                        row.column("seq")[0].as_py(),
                        row.column("rx").cast(pa.int64())[0].as_py(),
                        mt,
                        b"" if frames is None else frames[row.column("n")[0].as_py()].cast(pa.binary()).as_py(),
                    )


def _behind(parquet: Any, path: Path, group: int, seq: int) -> Any:
    """Type, time and place of a row group's rows behind a seq; their frames may be large."""
    table = _plain(_read(parquet, path, group, ["mt", "rx", "seq"]))
    table = table.append_column("n", pa.array(range(len(table)), pa.int64()))
    return table.filter(pc.greater(table.column("seq"), pa.scalar(seq, pa.uint64())))


def last_rx(path: Path) -> int:
    """rx of a file's last row, Unix ns; 0 where it has none."""
    with open_file(path) as parquet:
        if not parquet.num_row_groups:
            return 0
        column = _read(parquet, path, parquet.num_row_groups - 1, ["rx"]).column("rx")
        return int(column[-1].cast(pa.int64()).as_py()) if len(column) else 0


def set_back(table: Any) -> list[int]:
    """seqs of the rows, given in seq order, whose rx lies before that of the row before them: there the host's clock
    was set back."""
    rx = table.column("rx").cast(pa.int64()).combine_chunks()
    return _where(table, pc.and_kleene(_below(rx), pc.invert(_below(table.column("seq").combine_chunks()))))


def repeated(table: Any) -> list[int]:
    """seqs of the rows, given in the order of their files, that are below the one before them: from there on rows are
    there twice."""
    return _where(table, _below(table.column("seq").combine_chunks()))


def _below(values: Any) -> Any:
    """Which of the values, from the second on, are below the one before them."""
    return pc.less(values.slice(1), values.slice(0, max(0, len(values) - 1)))


def _where(table: Any, of: Any) -> list[int]:
    found: list[int] = table.column("seq").slice(1).filter(pc.fill_null(of, False)).to_pylist()
    return list(dict.fromkeys(found))


def newest(paths: Sequence[Path], mt: str, rows: int) -> Iterator[Any]:
    """The newest rows of a type from the end of the files: a table in seq order per row group, the newest first. One
    may be large, and is not held beside the next one."""
    for path in reversed(paths):
        if metadata(path).get(f"rows_{mt}", "0" if mt not in FIRST_TYPES else None) == "0":
            continue
        with open_file(path) as parquet:
            for group in reversed(range(parquet.num_row_groups)):
                table = _pick(_read(parquet, path, group, SCHEMA.names), "rx", 1, None, None, [mt])
                table = table.slice(max(0, len(table) - rows))
                rows -= len(table)
                yield table
                del table
                pa.default_memory_pool().release_unused()
                if rows <= 0:
                    return


_LAST = 2**63 - 1
"""The latest that a column of times can hold, in any unit."""


def _holds(parquet: Any, path: Path, group: int, column: str, unit: int, low: int | None, high: int | None) -> bool:
    """Whether a row group has rows of that time, by the times themselves: its statistics say so too, and a flipped bit
    there would leave its rows out without a word."""
    if low is None and high is None:
        return True
    ends = pc.min_max(_read(parquet, path, group, [column]).column(0).cast(pa.int64()))
    first, last = ends["min"].as_py(), ends["max"].as_py()
    if first is None:
        return True
    return (high is None or first * unit < high) and (low is None or last * unit >= low)


def _plain(table: Any) -> Any:
    """Without metadata and with ``mt`` as text: the same in every file, and no surprise in pandas."""
    at = table.schema.get_field_index("mt")
    return table.replace_schema_metadata(None).set_column(at, "mt", table.column("mt").cast(pa.string()))


def _pick(table: Any, column: str, unit: int, low: int | None, high: int | None, types: Sequence[str] | None) -> Any:
    table = _plain(table)
    keep: list[Any] = []
    times = table.column(column).cast(pa.int64())
    if low is not None:
        keep.append(pc.greater_equal(times, -(-low // unit)))
    if high is not None and (end := -(-high // unit)) <= _LAST:  # nothing can be later than that
        keep.append(pc.less(times, end))
    if types is not None:
        keep.append(pc.is_in(table.column("mt"), pa.array(list(types), pa.string())))
    for mask in keep[1:]:
        keep[0] = pc.and_(keep[0], mask)
    return table.filter(keep[0]) if keep else table
