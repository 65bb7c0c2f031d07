"""An id names one symbol of the exchange: everything that is kept under it (folder, tables, files) is of that one."""

from __future__ import annotations

import base64
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mexc_pipeline.config import Config, Symbol, free_id, table_of
from mexc_pipeline.errors import ConfigError
from mexc_pipeline.spool.pending import FILE, label
from mexc_pipeline.spool.walk import exported_files, in_order

log = logging.getLogger("mexc_pipeline.spool")

_LOOKED_AT = 5
"""Files that need not say what they hold: the very last may be damaged, or no file."""
_TAIL = 1 << 20
"""Bytes of a file's end that are looked at; a footer of ours has a few thousand."""
_SAID = rb"%c%s\x18([\x01-\x7f])"
_SCHEMA = re.compile(rb"\x0cARROW:schema\x18[\x80-\xff]*[\x00-\x7f]([A-Za-z0-9+/]+={0,2})")
"""Key, header of the value's field and its length, in Thrift's compact protocol: Parquet's ``KeyValue``."""


def check_label(config: Config, symbol: Symbol) -> None:
    """Raise ConfigError where the symbol's id holds what was recorded of another one: by the segments and pending rows
    of its spool, where there are any, else by the newest file by name that says so. Of those without a check value (of
    an earlier version) none is believed that another one of the folder contradicts: an altered name must not end a
    recording for good. A file of another id is under a wrong name, of which a warning tells: it says nothing of this
    id. Takes milliseconds: a collector asks before it connects."""
    folder = config.spool_dir / symbol.id
    found = [(s.path, s.symbol, s.checked) for s in in_order(folder).readable]
    if (waiting := label(folder)) is not None:
        found.append((folder / FILE, *waiting))
    contradicted = any(name == symbol.name for _, name, _ in found)
    there = [(path, name) for path, name, checked in found if checked or not contradicted]
    if not found:
        there = _of_newest(config.export_dir, symbol.id)
    for path, other in there:
        if other not in ("", symbol.name):
            recorded = (path.name for path in config.spool_dir.glob("*"))
            taken = {symbol.id, *(one.id for one in config.symbols), *recorded}
            raise ConfigError(
                f"id {symbol.id!r} holds what was recorded of {other}, so {symbol.name} needs an id of its own: "
                f'set {table_of(symbol.name)} id = "{free_id(symbol.name, taken)}" (found in {path})'
            )


def _of_newest(export_dir: Path, symbol_id: str) -> list[tuple[Path, str]]:
    """The newest file of the id that names its symbol, with that name; none where no file does."""
    misplaced: list[Path] = []
    found: list[tuple[Path, str]] = []
    looked_at = 0
    for path in _newest(export_dir, symbol_id):
        if said_by(path, "id") not in ("", symbol_id):
            misplaced.append(path)
            continue
        if label := said_by(path, "symbol"):
            found = [(path, label)]
        looked_at += 1
        if found or looked_at == _LOOKED_AT:
            break
    if misplaced:
        fields = {"file": str(misplaced[0]), "id": said_by(misplaced[0], "id"), "files": len(misplaced)}
        log.warning("file of another id under a wrong name passed over; move it away", extra={"fields": fields})
    return found


def _newest(export_dir: Path, symbol_id: str) -> Iterator[Path]:
    """The files of an id by name, the last one first."""
    try:
        found = exported_files(export_dir, symbol_id)
    except OSError:
        return  # said by whoever writes there
    yield from (path for _, path in reversed(found))


def said_by(path: Path, key: str) -> str:
    """``mexc.<key>`` in a file's footer, empty where it does not say so twice: beside the key itself there is the Arrow
    schema with all of them once more, and no digest covers either. Without a Parquet reader, which a collector does not
    carry."""
    name = f"mexc.{key}".encode()
    try:
        if not path.is_file():
            return ""  # nor opened: a FIFO would wait for ever
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
    except OSError:
        return ""
    length = int.from_bytes(tail[-8:-4], "little")
    if tail[-4:] != b"PAR1" or length > len(tail) - 8:
        return ""
    footer = tail[-8 - length : -8]
    found = re.search(_SAID % (len(name), re.escape(name)), footer)
    if found is None:
        return ""
    value = footer[found.end() : found.end() + found[1][0]]
    return value.decode(errors="replace") if _is_in_schema(footer, value) else ""


def _is_in_schema(footer: bytes, value: bytes) -> bool:
    """Whether a text of the footer's Arrow schema is this value: a length of 4 bytes, the text, a zero."""
    found = _SCHEMA.search(footer)
    try:
        schema = base64.b64decode(found[1], validate=True) if found else b""
    except ValueError:
        return False
    return len(value).to_bytes(4, "little") + value + b"\0" in schema
