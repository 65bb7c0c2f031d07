"""The original's export: the whole hour from ClickHouse into pandas, Snappy, and the number of rows as the proof."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from clickhouse_driver import Client


def main() -> None:
    port, table, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    began = time.monotonic()
    rows = Client("127.0.0.1", port=port).execute(f"SELECT ts, mt, m FROM {table}")
    frame = pd.DataFrame(rows, columns=["ts", "mt", "m"])
    frame["ts"] = pd.to_datetime(frame["ts"], unit="ms", utc=True)
    target = folder / "hour.parquet"
    frame.to_parquet(target, compression="snappy", index=False)
    if pq.read_metadata(target).num_rows != len(rows):
        raise SystemExit("rows are missing")
    print(json.dumps({"seconds": time.monotonic() - began, "rows": len(rows), "bytes": target.stat().st_size}))


if __name__ == "__main__":
    main()
