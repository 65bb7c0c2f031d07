"""Keeps what was acknowledged in ``data_dir/acknowledged.jsonl``, a line each, only ever added to."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from mexc_pipeline.config import Config
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.export.parquet import FileError, metadata
from mexc_pipeline.ledger.acknowledged import Acknowledged
from mexc_pipeline.paths import append_line, not_a_file, not_allowed
from mexc_pipeline.periods import END_NS, SECOND_NS
from mexc_pipeline.spool.walk import exported_files

FILE = "acknowledged.jsonl"
MOST = 16 << 20
"""Bytes of it that are read."""


class Acknowledgements(NamedTuple):
    """The acknowledgements of this host, oldest first, and what is wrong with the file, a line each: what cannot be
    read excuses nothing, and keeps nothing else from being judged."""

    entries: list[Acknowledged]
    troubles: list[str]


def acknowledged(config: Config) -> Acknowledgements:
    """What was acknowledged on this host. Never raises for what is wrong with the file."""
    path = config.data_dir / FILE
    if instead := not_a_file(path):
        return Acknowledgements([], [f"{path} is {instead}: move it away"])
    try:
        with path.open("rb") as file:
            text = file.read(MOST + 1)
    except FileNotFoundError:
        return Acknowledgements([], [])
    except OSError as error:
        said = not_allowed(path) or f"{path} cannot be read: {error.strerror or error}"
        return Acknowledgements([], [f"{said}; holes that were acknowledged in it are unknown"])
    found = Acknowledgements([], [])
    if len(text) > MOST:
        found.troubles.append(f"{path} is larger than {MOST} bytes; the rest of it counts for nothing")
    bad = []
    for number, line in enumerate(text[:MOST].splitlines(), 1):
        try:
            found.entries.append(entry_of(json.loads(line)))
        except (ValueError, TypeError, KeyError, RecursionError):
            bad.append(number)
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        found.troubles.append(f"{path}, line {bad[0]}{more}, is no acknowledgement: repair or remove it")
    return found


def entry_of(said: Mapping[str, object]) -> Acknowledged:
    """An acknowledgement as it was written down. TypeError, KeyError or ValueError where it is none."""
    first, last, at = (said[key] for key in ("first_seq", "last_seq", "at"))
    if not isinstance(first, int) or not isinstance(last, int) or not isinstance(at, int):
        raise TypeError
    if not 0 <= at < END_NS // SECOND_NS:
        raise ValueError
    return Acknowledged(str(said["id"]), first, last, at, str(said["by"]), str(said["reason"]))


def acknowledge(config: Config, symbol_id: str, first_seq: int, last_seq: int, *, by: str, reason: str) -> Acknowledged:
    """Write down that this hole is accepted; durable when this returns. UserError where there is no such hole: a typing
    mistake must not excuse a hole to come. ConfigError where the symbol is neither configured nor has files, or the
    range runs backwards."""
    if last_seq < first_seq:
        raise ConfigError(f"seq {first_seq} to {last_seq} runs backwards; the first seq of the hole comes first")
    if not exported_files(config.export_dir, symbol_id):
        config.symbol(symbol_id)
    holes = holes_of(config, symbol_id)
    if (first_seq, last_seq) not in holes:
        known = ", ".join(f"{a} to {b}" for a, b in holes) or "none"
        raise UserError(f"{symbol_id} has no hole of seq {first_seq} to {last_seq}; its holes between files: {known}")
    entry = Acknowledged(symbol_id, first_seq, last_seq, int(time.time()), by, reason)
    write(config, entry)
    return entry


def write(config: Config, entry: Acknowledged) -> None:
    """Add an entry; durable when this returns. Whether there is such a hole is not asked."""
    path = config.data_dir / FILE
    try:
        append_line(path, json.dumps(asdict(entry)).encode(), 0o640, MOST)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def holes_of(config: Config, symbol_id: str) -> list[tuple[int, int]]:
    """First and last seq of the rows that are missing before and between a symbol's files, by what these say of
    themselves."""
    known = stretches_of(config, symbol_id)
    before = [(1, known[0][0] - 1)] if known and known[0][0] > 1 else []
    return before + [(a[1] + 1, b[0] - 1) for a, b in pairwise(known) if b[0] > a[1] + 1]


def stretches_of(config: Config, symbol_id: str) -> list[tuple[int, int]]:
    """First and last seq of each of a symbol's files, in their order, by what these say of themselves."""
    files = exported_files(config.export_dir, symbol_id)
    return sorted(found for _, path in files if (found := _ends(path)) is not None)


def _ends(path: Path) -> tuple[int, int] | None:
    """None for a file that cannot be read: ``verify exports`` says why."""
    try:
        said = metadata(path)
        return int(said["first_seq"]), int(said["last_seq"])
    except (FileError, KeyError, ValueError):
        return None
