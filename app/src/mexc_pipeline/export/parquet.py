"""The Parquet file: rows streamed in from a segment, and the file's content read back for proof.

Both ways the digests are made from the columns' own buffers; memory is bounded by one row group.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mexc_pipeline.errors import UserError
from mexc_pipeline.events import Gap, Sealed, begin
from mexc_pipeline.exchange.contracts import contract_size
from mexc_pipeline.export import footer, headers
from mexc_pipeline.export.packed import Packed
from mexc_pipeline.ledger.account import Account, is_restart
from mexc_pipeline.ledger.digest import COLUMNS, RowDigest, combine
from mexc_pipeline.paths import not_a_file, not_allowed
from mexc_pipeline.rows import FIRST_TYPES, MT_CODES, MT_NAMES, Mt
from mexc_pipeline.text import clean

PREFIX = "mexc."
GROUP_ROWS = 65_536
READ_ROWS = 4096
GROUP_BYTES = 32 << 20
"""A row group ends at either bound (a single frame may be larger than the second)."""

SCHEMA = pa.schema(
    [
        pa.field("ts", pa.timestamp("ms", "UTC")),
        pa.field("mt", pa.dictionary(pa.int32(), pa.string())),
        pa.field("m", pa.string()),
        pa.field("rx", pa.timestamp("ns", "UTC")),
        pa.field("seq", pa.uint64()),
    ]
)

MOST_TEXT = 160 << 20
"""Bytes of ``m`` in a row group: the largest frame is 64 MiB, its base64 a third more, beside a group that was nearly
full."""
MOST_NUMBERS = 4 << 20
"""Bytes of any other column in a row group: at most eight a row."""

MOST_TYPES = 1 << 10
"""Bytes of the dictionary of ``mt``: every row names one of its words."""

_NAMES = [MT_NAMES[code].encode() for code in sorted(MT_NAMES)]
# From buffers and to buffers, here and below: pa.array() and to_numpy() import pandas, 45 MB of no use to an export.
_TYPES = pa.StringArray.from_buffers(
    len(_NAMES),
    pa.py_buffer(np.cumsum([0, *map(len, _NAMES)], dtype=np.int32)),
    pa.py_buffer(b"".join(_NAMES)),
)
_PROBED = "seq", "mt", "rx", "ts", "m"
"""The order in which columns are read: which rows are events is known before their times and texts come."""
_GAP, _SEALED = begin(Gap), begin(Sealed)
_LITTLE = sys.byteorder == "little"


_SHOWN_COLUMNS = 10


class FileError(UserError):
    """A Parquet file that is none of ours or cannot be read; the message names it."""


def _no_stop() -> None:
    return None


class FileWriter:
    """Writes rows to an open binary file, a row group at a time, each while the rows of the next one are gathered.

    ``metadata`` (keys without their prefix) known beforehand is part of the Arrow schema too, where every reader looks;
    what only the rows decide can be given to ``finish``, which writes the footer. ``add`` raises FileError where a
    frame is not UTF-8, which the classification rules out.
    """

    def __init__(self, sink: IO[bytes], metadata: dict[str, str] | None = None) -> None:
        self.digest = RowDigest()
        self.counts = dict.fromkeys(MT_NAMES.values(), 0)
        self.raw_bytes = 0
        self.first_seq = 0
        self.last_seq = 0
        self.contract_size: str | None = None
        """What :func:`size_text` makes of the newest specification of the contract."""
        self._batches: list[Any] = []
        self._rows = 0
        self._size = 0
        self._beside = ThreadPoolExecutor(1, "row group")
        self._writing: Future[None] | None = None
        self._writer = pq.ParquetWriter(
            sink,
            SCHEMA.with_metadata(_prefixed(metadata)) if metadata else SCHEMA,
            version="2.6",
            compression="zstd",
            compression_level=1,
            use_dictionary=["mt"],
            column_encoding=dict.fromkeys(("ts", "rx", "seq"), "DELTA_BINARY_PACKED"),
            write_statistics=["ts", "mt", "rx", "seq"],
            sorting_columns=[pq.SortingColumn(SCHEMA.get_field_index("seq"))],
        )

    def add(self, block: Packed) -> None:
        """Add rows, in seq order."""
        rows = len(block)
        if not rows:
            return
        m = block.m
        offsets = np.zeros(rows + 1, dtype=np.int32)
        np.cumsum(block.length, out=offsets[1:])
        text = pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(m))
        try:
            text.validate(full=True)
        except pa.ArrowInvalid as error:
            raise FileError(
                f"a frame from seq {block.seq[0]} on is not UTF-8 and cannot be a string: {error}"
            ) from error
        batch = pa.RecordBatch.from_arrays(
            [
                _primitive(SCHEMA.field("ts").type, block.ts),
                pa.DictionaryArray.from_arrays(_primitive(pa.int32(), block.mt.astype(np.int32) - 1), _TYPES),
                text,
                _primitive(SCHEMA.field("rx").type, block.rx),
                _primitive(SCHEMA.field("seq").type, block.seq),
            ],
            schema=SCHEMA,
        )
        if self._batches and (self._rows + rows > GROUP_ROWS or self._size + len(m) > GROUP_BYTES):
            self._flush()
        self._batches.append(batch)
        self._rows += rows
        self._size += len(m)
        seq, rx, ts, length = map(_le, (block.seq, block.rx, block.ts, block.length))
        self.digest.update_buffers(rows, seq, rx, ts, block.mt, length, m)
        for code, count in enumerate(np.bincount(block.mt).tolist()):
            if count:
                self.counts[MT_NAMES[code]] += count
        for at in np.flatnonzero(block.mt == Mt.CONTRACT)[-1:].tolist():
            self.contract_size = size_text(bytes(m[offsets[at] : offsets[at + 1]]))
        self.raw_bytes += len(m)
        self.first_seq = self.first_seq or int(block.seq[0])
        self.last_seq = int(block.seq[-1])
        if self._size > GROUP_BYTES:  # a large frame: written before the next one is read
            self._flush()
            self._written()

    def finish(self, metadata: dict[str, str] | None = None) -> None:
        """Write what is left, further metadata and the footer."""
        self._flush()
        self._written()
        self._beside.shutdown()
        if metadata:
            self._writer.add_key_value_metadata(_prefixed(metadata))
        self._writer.close()

    def abandon(self) -> None:
        """Let go of a file that is about to be deleted."""
        self._batches.clear()
        self._beside.shutdown()  # what it failed with was raised already, or is why the file is given up
        try:
            self._writer.close()
        except (OSError, ValueError, pa.ArrowException):
            self._writer.is_open = False  # it could not write its footer; nobody will miss it

    def _flush(self) -> None:
        self._written()
        if self._batches:
            table = pa.Table.from_batches(self._batches, SCHEMA)
            self._writing = self._beside.submit(self._writer.write_table, table, row_group_size=GROUP_ROWS)
        self._batches = []
        self._rows = self._size = 0

    def _written(self) -> None:
        """Wait for the row group that is being written; raises what it failed with."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


@cache
def _parquet_schema() -> Any:
    """What the columns are in Parquet's own terms."""
    empty = io.BytesIO()
    pq.ParquetWriter(empty, SCHEMA, version="2.6").close()
    return pq.ParquetFile(empty).schema


def _primitive(kind: Any, values: Any) -> Any:
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _values(chunk: Any, kind: Any) -> Any:
    """The values of a column without nulls, as they lie in its buffer."""
    return np.frombuffer(chunk.buffers()[1], dtype=kind)[chunk.offset : chunk.offset + len(chunk)]


def _le(values: Any) -> Any:
    """The values' buffer as little-endian bytes, whatever the machine's order."""
    if _LITTLE:
        return values
    return np.asarray(values).byteswap()


def _prefixed(metadata: dict[str, str]) -> dict[str, str]:
    return {PREFIX + key: value for key, value in metadata.items()}


def size_text(m: bytes) -> str | None:
    """A contract's size as files have it, decimal, in that ``c`` row; None where it cannot be read."""
    size = contract_size(m)
    return None if size is None else f"{size:f}"


def row_metadata(
    first_seq: int,
    last_seq: int,
    rows: int,
    raw_bytes: int,
    counts: dict[str, int],
    digests: dict[str, str],
    size: str | None,
) -> dict[str, str]:
    """The metadata that the rows themselves decide; ``counts`` per type name, ``digests`` hex per column, ``size`` the
    contract's."""
    return {
        "first_seq": str(first_seq),
        "last_seq": str(last_seq),
        "rows": str(rows),
        "raw_bytes": str(raw_bytes),
        **{
            f"rows_{name}": str(counts.get(name, 0))
            for name in MT_NAMES.values()
            if counts.get(name, 0) or name in FIRST_TYPES
        },
        "digest": combine(digests),
        **{f"digest_{name}": digests[name] for name in COLUMNS},
        **({"contract_size": size} if size is not None else {}),
    }


def counts_in(said: Mapping[str, str]) -> dict[str, int]:
    """Rows per type name, as a file's metadata says. KeyError and ValueError where it does not."""
    return {
        name: int(said[f"rows_{name}"] if name in FIRST_TYPES else said.get(f"rows_{name}", "0"))
        for name in MT_NAMES.values()
    }


def metadata_of(writer: FileWriter) -> dict[str, str]:
    """:func:`row_metadata` of what was written."""
    return row_metadata(
        writer.first_seq,
        writer.last_seq,
        writer.digest.rows,
        writer.raw_bytes,
        writer.counts,
        writer.digest.columns(),
        writer.contract_size,
    )


@dataclass(slots=True)
class Content:
    """What a file really holds, from its rows alone. ``rx`` in Unix ns; ``raw_bytes`` of ``m``.

    ``damaged`` says per column (seq, rx, ts, mt, m) why it could not be read; its digest is then empty. ``account``
    and ``gaps`` are what the event rows say, None and 0 where a column they need is damaged.
    """

    rows: int = 0
    bytes: int = 0
    raw_bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    first_rx: int = 0
    last_rx: int = 0
    consecutive: bool = True
    rx_monotone: bool = True
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MT_NAMES.values(), 0))
    digests: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    account: Account | None = None
    gaps: int = 0
    restarted: bool = False
    """Its first row says that the clock was set back: its ``rx`` may lie before that of the rows before it."""
    first_event: str = ""
    """Its first row, where that is an event."""
    contract_size: str | None = None
    """Of its newest ``c`` row, decimal; None where there is none or it cannot be read."""
    contradicted: list[str] = field(default_factory=list)
    """What its footer says of its rows and is not so: readers leave out rows by it."""

    @property
    def digest(self) -> str:
        """The digest of all columns; empty where one could not be read."""
        return combine(self.digests) if all(self.digests.get(name) for name in COLUMNS) else ""


def _require_file(path: Path) -> None:
    if instead := not_a_file(path):
        raise FileError(f"{path}: {instead} stands in place of the file; move it away")


def _unreadable(path: Path, error: Exception) -> FileError:
    """Permission is not damage: then it is said whose the file is."""
    denied = not_allowed(path) if isinstance(error, PermissionError) else ""
    return FileError(denied or f"{path}: not a readable Parquet file: {_first_line(error)}")


class File(pq.ParquetFile):  # type: ignore[misc]  # PyArrow's has no types
    """An export's file; what is read of it was looked at before: see :mod:`mexc_pipeline.export.headers`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with contextlib.ExitStack() as opening:
            opening.callback(os.close, self._fd)
            super().__init__(path, buffer_size=1 << 20, pre_buffer=False)
            opening.pop_all()

    def close(self, force: bool = False) -> None:
        """Close the file."""
        super().close(force)
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        pa.default_memory_pool().release_unused()  # it would keep as much as the largest frame took

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_row_group(self, i: int, columns: Sequence[str] | None = None) -> Any:
        """One row group as a table. FileError where it cannot be read, or would take more than any of ours."""
        name = ""
        try:
            for name in columns or SCHEMA.names:
                self._check(i, name)
            name = ""
            return super().read_row_group(i, columns)
        except MemoryError:
            raise  # PyArrow's own is an ArrowException, too
        except (OSError, ValueError, pa.ArrowException) as error:
            where = f"column {name} of row group {i}" if name else f"row group {i}"
            raise FileError(f"{self._path}: {where} cannot be read: {_first_line(error)}") from error

    @cached_property
    def said(self) -> footer.Footer:
        """The file's footer. HeaderError where that is none."""
        end = os.fstat(self._fd).st_size - headers.TAIL
        size = int.from_bytes(os.pread(self._fd, 4, end), "little")
        return footer.parse(os.pread(self._fd, size, end - size))

    def batches(self, i: int, column: str) -> Iterator[Any]:
        """One column of a row group, ``READ_ROWS`` at a time. OSError, ValueError and ArrowException as they come."""
        self._check(i, column)
        for batch in self.iter_batches(READ_ROWS, [i], [column], use_threads=False):
            yield batch.column(0)

    def _check(self, i: int, name: str) -> None:
        rows = self.said.groups[i][3]
        column = self.said.chunk(i, SCHEMA.get_field_index(name))
        values = column[5]
        if values != rows:
            raise headers.HeaderError(f"it has {values:,} values in {rows:,} rows")
        first = min(at for at in (column.get(11), column[9]) if at)
        chunk = headers.Chunk(first, column[7], column[6], values)
        dictionary = headers.check_pages(self._fd, chunk)
        if name == "mt" and dictionary > MOST_TYPES:
            raise headers.HeaderError(f"its dictionary has {dictionary:,} bytes")
        if name == "m" and dictionary:
            self._check_words(i)

    def _check_words(self, i: int) -> None:
        """Raise HeaderError where texts that are given once for many rows are too long together."""
        with pq.ParquetFile(self._path, read_dictionary=["m"], pre_buffer=False) as parquet:
            for chunk in parquet.read_row_group(i, ["m"]).column(0).chunks:
                size = pc.sum(pc.binary_length(chunk.dictionary).cast(pa.int64()).take(chunk.indices)).as_py() or 0
                if size > MOST_TEXT:
                    raise headers.HeaderError(f"its texts have {size:,} bytes")


def open_file(path: Path) -> File:
    """Open a file, the schema and the sizes in its footer checked. FileError where it is none of ours."""
    _require_file(path)
    try:
        headers.check_footer(path)
        parquet = File(path)
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    wrong = _foreign(parquet)
    if wrong:
        parquet.close()
        raise FileError(f"{path}: {wrong}")
    return parquet


def _foreign(parquet: File) -> str:
    """Why a file is none of ours, by its footer; empty where it may be one."""
    try:
        said = parquet.said
        schema = parquet.schema_arrow
    except (OSError, ValueError, pa.ArrowException) as error:
        return f"not a readable Parquet file: {_first_line(error)}"
    if not schema.equals(SCHEMA):
        found = clean(", ".join(f"{f.name} {f.type}" for f in islice(schema, _SHOWN_COLUMNS)))
        found += f" and {len(schema) - _SHOWN_COLUMNS:,} more" if len(schema) > _SHOWN_COLUMNS else ""
        return f"its columns are not those of an export (ts, mt, m, rx, seq): {found}"
    wrong = _oversized(said)
    return f"not written by this program: {wrong}" if wrong else ""


def _oversized(said: footer.Footer) -> str:
    """What a small file would grow to that no file of ours does, by its footer; empty where nothing is."""
    for number, group in enumerate(said.groups):
        if group[3] > GROUP_ROWS:
            return f"row group {number} has {group[3]:,} rows"
        if len(group[1]) != len(SCHEMA.names):
            return f"row group {number} has {len(group[1])} columns"
        for n, name in enumerate(SCHEMA.names):
            size = said.chunk(number, n)[6]
            if size > (MOST_TEXT if name == "m" else MOST_NUMBERS):
                return f"column {name} of row group {number} has {size:,} bytes"
    rows = sum(group[3] for group in said.groups)
    if rows != said.rows:
        return f"its row groups have {rows:,} rows, all of it {said.rows:,}"
    return ""


def metadata(path: Path) -> dict[str, str]:
    """The ``mexc.`` metadata of a file, keys without their prefix. FileError where it cannot be read."""
    return _ours(_pairs(path))


def metadata_in_schema(path: Path) -> dict[str, str]:
    """The second copy of the ``mexc.`` metadata, which stands in the Arrow schema inside the footer.

    FileError where there is none that can be read.
    """
    pairs = _pairs(path)
    try:
        stored = pairs[b"ARROW:schema"]
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(stored, validate=True)))
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise FileError(f"{path}: no readable Arrow schema in its footer: {_first_line(error)}") from error
    return _ours(schema.metadata or {})


def _pairs(path: Path) -> dict[bytes, bytes]:
    _require_file(path)
    try:
        headers.check_footer(path)
        return pq.read_metadata(path).metadata or {}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _ours(pairs: dict[bytes, bytes]) -> dict[str, str]:
    prefix = PREFIX.encode()
    return {
        key.removeprefix(prefix).decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for key, value in pairs.items()
        if key.startswith(prefix)
    }


def read_content(path: Path, check: Callable[[], None] = _no_stop) -> Content:
    """Read every row of a file and digest it. ``check`` is called between pieces and may raise to stop.

    A column that cannot be decoded is noted in ``damaged``. FileError where the file as a whole cannot be read.
    """
    content = Content(bytes=path.stat().st_size if path.exists() else 0)
    with open_file(path) as parquet:
        said = parquet.said
        digest = _Probe(content, said.compares(SCHEMA.get_field_index("m")))
        for column in _PROBED:
            try:
                for group in range(parquet.num_row_groups):  # a batch over several would have no bound in bytes
                    for values in parquet.batches(group, column):
                        check()
                        digest.add(group, column, values)
            except MemoryError:
                raise  # PyArrow's own is an ArrowException, too
            except (OSError, ValueError, pa.ArrowException) as error:
                content.damaged[column] = _first_line(error)
        content.rows = parquet.metadata.num_rows
        whole = {place: found for place, found in digest.found.items() if place[1] not in content.damaged}
        content.contradicted = footer.contradictions(said, SCHEMA.names, whole)
        if not parquet.schema.equals(_parquet_schema()):
            content.contradicted.append("its columns are other ones to a reader that knows no Arrow schema")
    digest.close()
    return content


class _Probe:
    """Digests and order checks of a file's columns, chunk by chunk."""

    def __init__(self, content: Content, compared: bool) -> None:
        self._compared = compared  # texts: only where somebody says which is the least of them
        self.found: dict[tuple[int, str], footer.ColumnContent] = {}
        self._content = content
        self._digest = {name: RowDigest() for name in _PROBED}
        self._found = footer.ColumnContent()
        self._seen = dict.fromkeys(_PROBED, False)
        self._rows = dict.fromkeys(_PROBED, 0)  # passed by before the chunk at hand
        self._events: list[Any] = []  # positions of event rows, an array per chunk
        self._event_at: Any = np.zeros(0, dtype=np.int64)
        self._event_rx: list[int] = []
        self._event_seen = 0
        self._contract_at = -1  # position of the newest ``c`` row
        self._last_event = b""
        self._last_but_one_rx = 0
        self._account = Account()

    def add(self, group: int, column: str, chunk: Any) -> None:
        if chunk.null_count:
            raise ValueError(f"{chunk.null_count} values are missing")
        if len(chunk):
            self._found = self.found.setdefault((group, column), footer.ColumnContent())
            self._found.rows += len(chunk)
            getattr(self, f"_{column}")(chunk)
            self._seen[column] = True
            self._rows[column] += len(chunk)

    def close(self) -> None:
        content = self._content
        sources = {"seq": "seq", "rx": "rx", "ts": "ts", "mt": "mt", "len": "m", "m": "m"}
        for name, column in sources.items():
            content.digests[name] = "" if column in content.damaged else self._digest[column].columns()[name]
        if "m" in content.damaged:
            content.contract_size = None
        if content.damaged.keys() & {"mt", "rx", "m"}:
            content.gaps = 0
            return
        content.account = self._account
        # The row that closes a segment tells of its edge, not of the recording.
        sealed = self._last_event.startswith(_SEALED) and int(self._event_at[-1]) == content.rows - 1
        if content.rows > sealed:
            content.account.rows(content.first_rx, self._last_but_one_rx if sealed else content.last_rx)

    def _feed(self, column: str, **buffers: Any) -> None:
        self._digest[column].update_buffers(0, *(buffers.get(name, b"") for name in COLUMNS))

    def _seq(self, chunk: Any) -> None:
        values = _values(chunk, np.uint64)
        content = self._content
        before = content.last_seq if self._seen["seq"] else int(values[0]) - 1
        if int(values[0]) != before + 1 or not bool((values[1:] - values[:-1] == 1).all()):
            content.consecutive = False
        content.first_seq = content.first_seq or int(values[0])
        content.last_seq = int(values[-1])
        self._found.range(int(values.min()), int(values.max()))
        self._feed("seq", seq=_le(values))

    def _rx(self, chunk: Any) -> None:
        values = _values(chunk, np.int64)
        content = self._content
        if not self._seen["rx"]:
            content.first_rx = content.last_rx = int(values[0])
            self._event_at = np.concatenate(self._events) if self._events else self._event_at
        if int(values[0]) < content.last_rx or not bool((values[1:] >= values[:-1]).all()):
            content.rx_monotone = False
        self._last_but_one_rx = int(values[-2]) if len(values) > 1 else content.last_rx
        content.last_rx = int(values[-1])
        self._event_rx += values[self._events_in("rx", len(values))].tolist()
        self._found.range(int(values.min()), int(values.max()))
        self._feed("rx", rx=_le(values))

    def _ts(self, chunk: Any) -> None:
        values = _values(chunk, np.int64)
        self._found.range(int(values.min()), int(values.max()))
        self._feed("ts", ts=_le(values))

    def _mt(self, chunk: Any) -> None:
        names = chunk.dictionary.to_pylist()
        unknown = [name for name in names if name not in MT_CODES]
        if unknown:
            raise ValueError(f"unknown row type {unknown[0]!r}")
        codes = np.array([MT_CODES[name] for name in names], dtype=np.uint8)[_values(chunk.indices, np.int32)]
        for code, count in enumerate(np.bincount(codes).tolist()):
            if count:
                name = MT_NAMES[code]
                self._content.counts[name] += count
                self._found.range(name.encode(), name.encode())
                self._found.size += count * len(name)
        self._events.append(np.flatnonzero(codes == Mt.EVENT) + self._rows["mt"])
        for at in np.flatnonzero(codes == Mt.CONTRACT)[-1:].tolist():
            self._contract_at = at + self._rows["mt"]
        self._feed("mt", mt=codes)

    def _events_in(self, column: str, rows: int) -> Any:
        """Positions within the chunk at hand of the rows that are events."""
        begin = self._rows[column]
        first, last = np.searchsorted(self._event_at, (begin, begin + rows))
        return self._event_at[first:last] - begin

    def _m(self, chunk: Any) -> None:
        _, offset_buffer, data = chunk.buffers()
        offsets = np.frombuffer(offset_buffer, dtype=np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        text = memoryview(data)[int(offsets[0]) : int(offsets[-1])] if data is not None else b""
        self._content.raw_bytes += len(text)
        self._found.size += len(text)
        if self._compared:
            ends = pc.min_max(chunk.cast(pa.binary()))
            self._found.range(ends["min"].as_py(), ends["max"].as_py())
        self._feed("m", len=_le(np.diff(offsets).astype(np.uint32)), m=text)
        ends = offsets - offsets[0]
        if "mt" not in self._content.damaged and 0 <= (at := self._contract_at - self._rows["m"]) < len(chunk):
            self._content.contract_size = size_text(bytes(text[ends[at] : ends[at + 1]]))
        if self._content.damaged.keys() & {"mt", "rx"}:
            return
        for at in self._events_in("m", len(chunk)).tolist():
            m = bytes(text[ends[at] : ends[at + 1]])
            self._account.event(self._event_rx[self._event_seen], m)
            self._event_seen += 1
            self._content.gaps += m.startswith(_GAP)
            if not self._rows["m"] and not at:
                self._content.restarted = is_restart(m)
                self._content.first_event = m.decode("utf-8", "replace")
            self._last_event = m


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
