"""The order of a symbol's files: by the sequence of their rows, which their names do not tell."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mexc_pipeline.export.parquet import FileError, metadata
from mexc_pipeline.ledger.order import by_seq
from mexc_pipeline.spool.names import FileName

IMPORTED = "imported"
"""The metadata key that marks an imported file."""


class Placed(NamedTuple):
    """A file with what orders it. Both seqs are 0 where its metadata cannot be read or has none; ``imported``: it was
    taken over from another recorder."""

    name: FileName
    path: Path
    first_seq: int
    last_seq: int
    imported: bool
    symbol: str = ""
    """The exchange's name of what it holds; empty where it does not say."""


def in_order(files: Iterable[tuple[FileName, Path]]) -> list[Placed]:
    """Files by symbol id and ``first_seq``.

    Reads every footer (100,000 take some 6 s of a processor): a clock that was set back, or a period of another length,
    reaches a period again, so that no name can be trusted to come before another."""
    placed = [_place(name, path) for name, path in files]
    return by_seq(placed, of=lambda f: f.name.id, name=lambda f: _by_name(f.name), seq=lambda f: f.first_seq)


def _by_name(name: FileName) -> tuple[int, int, str]:
    return name.start_ns, name.part, name.period


def _place(name: FileName, path: Path) -> Placed:
    try:
        said = metadata(path)
    except FileError:
        return Placed(name, path, 0, 0, False)
    try:
        seqs = int(said["first_seq"]), int(said["last_seq"])
    except (KeyError, ValueError):
        seqs = 0, 0
    return Placed(name, path, *seqs, IMPORTED in said, said.get("symbol", ""))
