"""ClickHouse's Native block format in memory, by the driver's own encoder and decoder.

The driver writes to and reads from sockets; its buffered classes for compressed streams take any source and sink of
bytes, which is all an engine in this process needs. Blocks carry integers where a column is a time, so nothing is
rounded on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from clickhouse_driver.block import ColumnOrientedBlock
from clickhouse_driver.bufferedreader import CompressedBufferedReader
from clickhouse_driver.bufferedwriter import CompressedBufferedWriter
from clickhouse_driver.connection import ServerInfo
from clickhouse_driver.context import Context
from clickhouse_driver.streams.native import BlockInputStream, BlockOutputStream

from mexc_pipeline.rows import Columns

_BUFFER = 1 << 20


class _Sink:
    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.parts.append(data)


def _context(strings_as_bytes: bool) -> Any:
    context = Context()
    # Revision 0: a Native stream has none of the fields that later protocol revisions add to a block.
    context.server_info = ServerInfo("", 0, 0, 0, 0, "UTC", "", 0)
    context.client_settings = {
        "strings_as_bytes": strings_as_bytes,
        "strings_encoding": "utf-8",
        "use_numpy": False,
        "input_format_null_as_default": False,
        "namedtuple_as_json": True,
    }
    return context


def encode(columns_with_types: Sequence[tuple[str, str]], columns: Sequence[Sequence[Any]]) -> bytes:
    """One Native block of the given columns; strings may be str or bytes, times are integers."""
    sink = _Sink()
    as_bytes = any(isinstance(value, bytes) for column in columns for value in column[:1])
    stream = BlockOutputStream(CompressedBufferedWriter(sink, _BUFFER), _context(as_bytes))
    stream.write(ColumnOrientedBlock(list(columns_with_types), [list(c) for c in columns]))
    return b"".join(sink.parts)


def decode(chunks: Iterable[bytes], *, strings_as_bytes: bool) -> Iterator[list[tuple[Any, ...]]]:
    """Columns of each block of a Native stream that arrives in chunks of any size."""
    source = iter(chunks)

    def read() -> bytes:
        for chunk in source:
            if chunk:
                return chunk
        raise EOFError

    stream = BlockInputStream(CompressedBufferedReader(read, _BUFFER), _context(strings_as_bytes))
    while True:
        try:
            block = stream.read()
        except EOFError:
            return
        if block.num_rows:
            yield block.get_columns()


def rows_block(block: Columns) -> list[list[Any]]:
    """A block's columns in the order of a row table."""
    return [block.ts, block.mt, block.m, block.rx, block.seq]


def columns_of(block: Sequence[Sequence[Any]]) -> Columns:
    """What :func:`engine.read_sql` returned, as rows."""
    seq, rx, ts, mt, m = block
    return Columns(list(seq), list(rx), list(ts), list(mt), list(m))
