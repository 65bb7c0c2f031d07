"""Prints the highest seq that a symbol's files hold: ``python -m mexc_pipeline.export.newest FOLDER ID``.

A process of its own, so that a collector that has to know does not carry a Parquet reader for the rest of its life.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mexc_pipeline.export.headers import check_footer
from mexc_pipeline.paths import not_a_file, not_allowed

log = logging.getLogger("mexc_pipeline.export")


def newest_seq(folder: Path, symbol_id: str) -> int:
    """The highest ``mexc.last_seq`` of all readable files; 0 without any.

    Every footer is read (100,000 take some 6 s of a processor): a name does not tell whether a file's rows are the
    newest. Ends the process with a line where one may not be read.
    """
    pattern = re.compile(re.escape(symbol_id) + r"(\d{10}|\d{14})(?:\.part\d+)?\.parquet")
    return max((_last_seq(path) for path in folder.iterdir() if pattern.fullmatch(path.name)), default=0)


def _last_seq(path: Path) -> int:
    if instead := not_a_file(path):
        log.warning("not a file", extra={"fields": {"file": path.name, "found": instead}})
        return 0
    try:
        check_footer(path)
        metadata = pq.read_metadata(path).metadata or {}
        return int(metadata[b"mexc.last_seq"])
    except PermissionError as error:  # what it holds is unknown, not nothing
        raise SystemExit(not_allowed(path) or str(error)) from error
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        log.warning("file cannot be read", extra={"fields": {"file": path.name, "error": str(error)}})
        return 0


if __name__ == "__main__":
    print(json.dumps({"last_seq": newest_seq(Path(sys.argv[1]), sys.argv[2])}))  # noqa: T201 - its one answer
