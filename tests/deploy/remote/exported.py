"""Run by the application's Python on a collector host: the rows of all files of a symbol, in seq order.

Usage: exported.py EXPORT_DIR ID
Prints JSON: a list of [file, seq, mt, SHA-256 of m in hex (frames) or m itself (events), rx in Unix ns].
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq


def main() -> None:
    """Print the rows."""
    folder, symbol = Path(sys.argv[1]), sys.argv[2]
    rows = []
    for path in sorted(p for p in folder.iterdir() if re.fullmatch(symbol + r"\d+(\.part\d+)?\.parquet", p.name)):
        table = pq.read_table(path, columns=["seq", "mt", "m", "rx"])
        table = table.set_column(3, "rx", table["rx"].cast("int64"))
        for seq, mt, m, rx in zip(*table.to_pydict().values(), strict=True):
            said = m if mt == "ev" else hashlib.sha256(m.encode()).hexdigest()
            rows.append([path.name, seq, mt, said, rx])
    rows.sort(key=lambda row: row[1])
    print(json.dumps(rows))  # noqa: T201


main()
