"""Prints the highest seq that a symbol's files hold: ``python -m mexc_pipeline.export.newest FOLDER ID``.

A process of its own, so that a collector that has to know does not carry a Parquet reader for the rest of its life.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mexc_pipeline import memory
from mexc_pipeline.export.headers import check_footer
from mexc_pipeline.export.parquet import FileError, metadata_in_schema, open_file
from mexc_pipeline.paths import not_a_file, not_allowed
from mexc_pipeline.spool.segment import NUMBERED
from mexc_pipeline.spool.walk import exported_files

NAMED = 5
"""Files of which nothing is known that are named; the others are counted."""
PROVING = 1 << 30
"""Bytes of memory that looking at one file may take."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a file's metadata says of its rows, consistent in itself and with its footer."""

    path: Path
    first: int
    last: int


def newest_seq(folder: Path, symbol_id: str) -> tuple[int, list[str]]:
    """The highest ``mexc.last_seq`` that a file's rows bear out, 0 without any, and a line for each file of which
    nothing is known: it may hold rows with a higher seq. Files of another id, under a wrong name, are none of these.

    Every footer is read (100,000 take some 6 s of a processor): a name does not tell whether a file's rows are the
    newest. Rows are read of the files that say to have the newest, until one does.
    """
    unknown: list[str] = []
    claims: list[_Claim] = []
    for _, path in exported_files(folder, symbol_id, missing_ok=False):
        try:
            claim = _claim(path, symbol_id)
        except FileError as error:
            unknown.append(str(error))
        else:
            claims += [claim] if claim else []
    for claim in sorted(claims, key=lambda claim: claim.last, reverse=True):
        try:
            with memory.at_most(PROVING):
                _check_rows(claim)
        except FileError as error:
            unknown.append(str(error))
        except MemoryError:
            unknown.append(f"{claim.path}: reading it takes more than {PROVING >> 20} MiB of memory; move it away")
        else:
            return claim.last, _named(unknown)
    return 0, _named(unknown)


def _named(unknown: list[str]) -> list[str]:
    more = len(unknown) - NAMED
    return unknown[:NAMED] + ([f"and {more:,} more files"] if more > 0 else [])


def _claim(path: Path, symbol_id: str) -> _Claim | None:
    """None where the file is of another id. FileError, with a line, where it does not say what it holds."""
    if instead := not_a_file(path):
        raise FileError(f"{path}: {instead} stands in place of the file; move it away")
    try:
        check_footer(path)
        footer = pq.read_metadata(path)
        said = {key: value.decode() for key, value in (footer.metadata or {}).items() if key.startswith(b"mexc.")}
    except PermissionError as error:
        raise FileError(not_allowed(path) or f"{path}: {error.strerror}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileError(f"{path}: cannot be read ({why}); move it away") from error
    if said.get(b"mexc.id", symbol_id) != symbol_id:
        if metadata_in_schema(path).get("id") == symbol_id:
            raise FileError(f"{path}: the two copies of its metadata differ in id; move it away")
        return None
    first, last, rows = (_number(said, name) for name in (b"mexc.first_seq", b"mexc.last_seq", b"mexc.rows"))
    if not (0 < first <= last < NUMBERED and rows == last - first + 1 == footer.num_rows):
        raise FileError(f"{path}: its metadata does not say which rows it holds; move it away")
    return _Claim(path, first, last)


def _number(said: Mapping[bytes, str], name: bytes) -> int:
    """-1 for what is no number as this program writes it."""
    text = said.get(name, "")
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,18}", text) else -1


def _check_rows(claim: _Claim) -> None:
    """FileError, with a line, where the file's first and last row do not have the seq that its metadata says."""
    with open_file(claim.path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        if sum(sizes) != claim.last - claim.first + 1 or not all(sizes):
            raise FileError(f"{claim.path}: its row groups have {sum(sizes):,} rows, not those it says; move it away")
        first, last = (file.read_row_group(i, ["seq"]).column(0) for i in (0, len(sizes) - 1))
        held = first[0].as_py(), last[-1].as_py()
    if held != (claim.first, claim.last):
        said = f"says seq {claim.first} to {claim.last}, its rows say {held[0]} to {held[1]}"
        raise FileError(f"{claim.path}: its metadata {said}; move it away")


if __name__ == "__main__":
    last_seq, unknown = newest_seq(Path(sys.argv[1]), sys.argv[2])
    print(json.dumps({"last_seq": last_seq, "unknown": unknown}))  # noqa: T201 - its one answer
