"""Prints the highest seq that a symbol's files hold: ``python -m mexc_pipeline.export.newest FOLDER ID``.

A process of its own, so that a collector that has to know does not carry a Parquet reader for the rest of its life.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

log = logging.getLogger("mexc_pipeline.export")


def newest_seq(folder: Path, symbol_id: str) -> int:
    """``mexc.last_seq`` of the newest period that has a readable file; 0 without any.

    Seq grows with the period, so older periods need not be opened.
    """
    pattern = re.compile(re.escape(symbol_id) + r"(\d{10}|\d{14})(?:\.part\d+)?\.parquet")
    found = [(match[1], path) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    for _, group in groupby(sorted(found, reverse=True), key=lambda pair: pair[0]):
        known = [seq for _, path in group if (seq := _last_seq(path)) is not None]
        if known:
            return max(known)
    return 0


def _last_seq(path: Path) -> int | None:
    try:
        metadata = pq.read_metadata(path).metadata or {}
        return int(metadata[b"mexc.last_seq"])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        log.warning("file cannot be read", extra={"fields": {"file": path.name, "error": str(error)}})
        return None


if __name__ == "__main__":
    print(json.dumps({"last_seq": newest_seq(Path(sys.argv[1]), sys.argv[2])}))  # noqa: T201 - its one answer
