"""Single files as an export writes them, without a spool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mexc_pipeline.export.packed import Packed
from mexc_pipeline.export.parquet import FileWriter, metadata_of
from mexc_pipeline.rows import Columns, Mt
from mexc_pipeline.spool.names import FileName


def write_export(path: Path, to: int, rows: int = 1, said: Mapping[str, str] | None = None) -> Path:
    """The last ``rows`` up to seq ``to``; ``said`` is put over what the metadata says of them."""
    name = FileName.parse(path.name)
    assert name is not None
    first = to - rows + 1
    with path.open("wb") as sink:
        writer = FileWriter(sink)
        writer.add(Packed.of(Columns.of((first + n, n, n, Mt.EVENT, b"{}") for n in range(rows))))
        writer.finish({"id": name.id, **metadata_of(writer), **(said or {})})
    return path
