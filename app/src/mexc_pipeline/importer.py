"""Takes over hourly Parquet files of the earlier "v4" pipeline, marked as imported and kept apart from proven ones.

Those files have three columns: ``ts`` (the exchange's time), ``mt`` and ``m``, where ``m`` is not the frame but some of
its fields joined with ``|``. They carry no receive time and no sequence: ``rx`` and ``seq`` are null here.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mexc_pipeline import __version__, memory
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.export.files import FolderError, prepare_folder, temporary
from mexc_pipeline.export.headers import check_footer
from mexc_pipeline.export.parquet import PREFIX, READ_ROWS, SCHEMA, FileError, metadata
from mexc_pipeline.files import own
from mexc_pipeline.paths import regular, same, sync_folder
from mexc_pipeline.read.files import FOLDER
from mexc_pipeline.rows import MT_NAMES
from mexc_pipeline.spool.names import FileName
from mexc_pipeline.text import clean

log = logging.getLogger("mexc_pipeline.importer")

_NAME = re.compile(r"(?P<id>[a-z][a-z0-9]*?)_?(?P<day>\d{8})_(?P<hour>\d{2})(?P<minute>\d{2})?(?:_debug)?\.parquet")
_HOUR_MS = 3_600_000
_DECODED, _RATIO = 32 << 20, 100
"""Bytes of rows that any file may hold, and how many more for each byte of its own: v4 files hold five to ten."""
_COPIES, _SPARE = 5, 192 << 20
_MOST_NAME = 40
"""Characters of an unknown row type that are shown."""
_TOO_LARGE = "it holds more than an honest file of its size could: refused"


@dataclass(frozen=True, slots=True)
class Imported:
    """One file taken over; ``untyped`` rows have no ``mt`` (a defect of the earliest v4 files, kept as it is)."""

    source: str
    file: str
    state: Literal["written", "present"]
    rows: int
    untyped: int


@dataclass(slots=True)
class ImportReport:
    """What an import did; failures are one line each and name the file."""

    folder: str
    files: list[Imported] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def exit_status(self) -> int:
        """The exit status: 0 where nothing failed, else 1."""
        return 0 if self.ok else 1

    def lines(self) -> list[str]:
        """What a terminal shows of what was done; failures are said on standard error."""
        done = []
        for f in self.files:
            untyped = f", {f.untyped:,} without a type" if f.untyped else ""
            done.append(f"{f.source}: {f.file} {f.state}, {f.rows:,} rows{untyped}, not proven")
        return done

    def to_json(self) -> dict[str, Any]:
        """The answer of ``--json``."""
        return {"ok": self.ok, **asdict(self)}


def import_files(
    export_dir: Path, sources: Iterable[Path], to: Path | None = None, symbol_id: str | None = None
) -> ImportReport:
    """Import v4 files into ``to``, or else ``export_dir/imported``.

    The symbol id and the hour come from a file's name (``btc_20250801_1400.parquet``, ``btc20250801_14.parquet``);
    ``symbol_id`` overrides the one, the first ``ts`` stands in for the other. One file's failure does not stop the
    others. ConfigError where ``to`` is the export folder itself, UserError where it cannot be written.
    """
    folder = to if to is not None else export_dir / FOLDER
    if same(folder, export_dir):
        raise ConfigError(f"--to {folder} is the export folder: imported files are never mixed into proven ones")
    folders = [export_dir, folder] if to is None else [folder]
    report = ImportReport(str(folder))
    for source in sources:
        try:
            most = _most_decoded(source)
            with memory.at_most(_COPIES * most + _SPARE):
                report.files.append(_import(source, folders, symbol_id, most))
        except MemoryError:
            report.failures.append(f"{source}: {_TOO_LARGE}")
        except FolderError:
            raise
        except (UserError, OSError) as error:
            text = error.strerror if isinstance(error, OSError) else str(error)
            report.failures.append(f"{source}: {text}")
        except Exception as error:  # whatever another file's content leads to, the next one is taken over
            log.info("file not imported", exc_info=True, extra={"fields": {"file": str(source)}})
            report.failures.append(f"{source}: it cannot be taken over: {type(error).__name__}: {error}")
    return report


def _most_decoded(source: Path) -> int:
    """Bytes that a file may hold once it is decoded. FileError where it is no plain file, such as a FIFO."""
    found = source.stat()
    if not stat.S_ISREG(found.st_mode):
        raise FileError("not a plain file")
    return _DECODED + _RATIO * found.st_size


def _import(source: Path, folders: Sequence[Path], symbol_id: str | None, most: int) -> Imported:
    """Take one file over into the last of the folders, which are made once there is something to put into them."""
    table = _converted(source, most)
    match = _NAME.fullmatch(source.name)
    name = _target_name(table, match, symbol_id)
    for folder in folders:
        prepare_folder(folder)
    target = folder / name
    untyped = table.column("mt").null_count
    digest = _sha256(source)
    if os.path.lexists(target):
        if metadata(target).get("imported_sha256") != digest:
            raise UserError(f"{target} exists and comes from another file; both are kept, move one away")
        return Imported(source.name, name, "present", len(table), untyped)
    said = _metadata(table, FileName.parse(name), source, digest)
    making = temporary(folder, name)
    making.unlink(missing_ok=True)
    try:
        with open(making, "xb", opener=own) as file:
            schema = SCHEMA.with_metadata(said)
            with pq.ParquetWriter(file, schema, compression="zstd", compression_level=1) as writer:
                writer.write_table(table, row_group_size=65_536)
            file.flush()
            os.fsync(file.fileno())
        if not pq.ParquetFile(making).read().cast(SCHEMA).equals(table.cast(SCHEMA)):
            raise UserError(f"{name} read back differs from {source.name}; it was discarded")
        os.link(making, target)
    finally:
        making.unlink(missing_ok=True)
    sync_folder(folder)
    return Imported(source.name, name, "written", len(table), untyped)


def _sha256(path: Path) -> str:
    with open(path, "rb", opener=regular) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(source: Path, most: int) -> Any:
    """The file's table, a piece at a time: what it grows to is known before it has grown."""
    check_footer(source)
    # Opened here, because Arrow takes no path that is not UTF-8.
    with open(source, "rb", opener=regular) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        schema = parquet.schema_arrow
        columns = [c for c in schema.names if c != "__index_level_0__"]  # pandas' own, where it was written
        if sorted(columns) != ["m", "mt", "ts"]:
            raise FileError(f"not a v4 file: its columns are {clean(', '.join(columns))}, not ts, mt, m")
        batches, size = [], 0
        for group in range(parquet.num_row_groups):
            for batch in parquet.iter_batches(READ_ROWS, [group], columns, use_threads=False):
                size += batch.nbytes
                if size > most:
                    raise FileError(_TOO_LARGE)
                batches.append(batch)
        return pa.Table.from_batches(batches, pa.schema([schema.field(c) for c in columns]))


def _converted(source: Path, most: int) -> Any:
    """The three columns in our types, two empty ones beside them; rows in the order of the file."""
    try:
        table = _read(source, most)
    except MemoryError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise FileError(f"not a readable Parquet file ({str(error).partition(chr(10))[0]})") from error
    if not len(table):
        raise FileError("it has no rows")
    ts, m = table.column("ts"), table.column("m")
    if not pa.types.is_timestamp(ts.type) or ts.null_count or m.null_count:
        raise FileError("not a v4 file: ts must be a time and neither ts nor m may be missing")
    try:
        naive = ts.cast(pa.timestamp("ms", ts.type.tz))
        exact = naive.cast(pa.int64()).cast(SCHEMA.field("ts").type)
        text = m.cast(pa.string())
        text.validate(full=True)  # a text column is cast as it is: only this looks whether it is UTF-8
        types = _types(table.column("mt"))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise FileError(f"a value does not fit our columns exactly ({str(error).splitlines()[0]})") from error
    none = [pa.nulls(len(table), SCHEMA.field(c).type) for c in ("rx", "seq")]
    return pa.table([exact, types.cast(SCHEMA.field("mt").type), text, *none], schema=SCHEMA)


def _types(column: Any) -> Any:
    """Row types as text; v4 wrote names, and in some revisions numbers or nothing."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        names = pa.array([MT_NAMES[code] for code in sorted(MT_NAMES)])
        codes = pc.subtract(column.cast(pa.int64()), 1)
        if pc.any(pc.or_(pc.less(codes, 0), pc.greater(codes, 3))).as_py():
            raise FileError("its row types are numbers outside 1 to 4")
        return names.take(codes.combine_chunks())
    text = column.cast(pa.string())
    unknown = sorted({str(t) for t in pc.unique(text).to_pylist() if t not in ("t", "d", "dp", "dl", None)})
    if unknown:
        raise FileError(f"unknown row type {clean(unknown[0], _MOST_NAME)!r}")
    return text.combine_chunks()


def _target_name(table: Any, match: re.Match[str] | None, symbol_id: str | None) -> str:
    wanted = symbol_id or (match["id"] if match else None)
    if wanted is None:
        raise FileError("its name tells no symbol; give --symbol")
    if match:
        minute = match["minute"] or "00"
        period = f"{match['day']}{match['hour']}" + ("" if minute == "00" else f"{minute}00")
    else:
        first = pc.min(table.column("ts").cast(pa.int64())).as_py()
        try:
            start = pa.scalar(first - first % _HOUR_MS, pa.timestamp("ms")).as_py()
        except (OverflowError, ValueError) as error:
            raise FileError(f"its name tells no hour, and neither does its first ts ({first} ms)") from error
        period = f"{start:%Y%m%d%H}"
    name = f"{wanted}{period}.parquet"
    if FileName.parse(name) is None:
        raise FileError(f"{wanted!r} and {period!r} make no file name of ours; give --symbol")
    return name


def _metadata(table: Any, name: FileName | None, source: Path, digest: str) -> dict[str, str]:
    assert name is not None  # _target_name made it
    counts = {t["values"]: t["counts"] for t in pc.value_counts(table.column("mt").cast(pa.string())).to_pylist()}
    return {
        f"{PREFIX}{key}": value
        for key, value in {
            "imported": "v4",
            "imported_from": os.fsencode(source.name).decode(errors="backslashreplace"),
            "imported_sha256": digest,
            "id": name.id,
            "period": name.period,
            "rows": str(len(table)),
            **{f"rows_{t}": str(counts.get(t, 0)) for t in MT_NAMES.values()},
            "rows_untyped": str(counts.get(None, 0)),
            "version": __version__,
        }.items()
    }
