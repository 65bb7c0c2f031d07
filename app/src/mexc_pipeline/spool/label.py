"""An id names one symbol of the exchange: everything that is kept under it (folder, tables, files) is of that one."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mexc_pipeline.config import Config, Symbol
from mexc_pipeline.errors import ConfigError
from mexc_pipeline.spool.segment import in_order

_LOOKED_AT = 5
_TAIL = 1 << 20
"""Bytes of a file's end that are looked at; a footer of ours has a few thousand."""
_LABEL = re.compile(rb"\x0bmexc\.symbol\x18([\x01-\x7f])")
"""Key, header of the value's field and its length, in Thrift's compact protocol: Parquet's ``KeyValue``."""


def check_label(config: Config, symbol: Symbol) -> None:
    """ConfigError where the symbol's id holds what was recorded of another one: in any segment, or in the newest file
    by name that says so. Takes milliseconds: a collector asks before it connects."""
    there = [segment.symbol for segment in in_order(config.spool_dir / symbol.id).readable]
    there += next(([label] for path in _newest(config.export_dir, symbol.id) if (label := label_of(path))), [])
    for other in there:
        if other not in ("", symbol.name):
            raise ConfigError(
                f"id {symbol.id!r} holds what was recorded of {other}, so {symbol.name} needs an id of its own: "
                f'set [symbol.{symbol.name}] id = "…"'
            )


def _newest(export_dir: Path, symbol_id: str) -> list[Path]:
    """The last few files of an id by name: the very last may be damaged, or no file."""
    name = re.compile(re.escape(symbol_id) + r"(\d{10}|\d{14})(?:\.part([1-9]\d{0,8}))?\.parquet")
    try:
        found = [(match, path) for path in export_dir.iterdir() if (match := name.fullmatch(path.name))]
    except OSError:
        return []  # said by whoever writes there
    found.sort(key=lambda pair: (pair[0][1].ljust(14, "0"), int(pair[0][2] or 1)), reverse=True)
    return [path for _, path in found[:_LOOKED_AT]]


def label_of(path: Path) -> str:
    """``mexc.symbol`` in a file's footer, empty where it does not say. Without a Parquet reader, which a collector does
    not carry."""
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
    found = _LABEL.search(footer)
    return footer[found.end() : found.end() + found[1][0]].decode(errors="replace") if found else ""
