"""Reads all trades of a folder of files in one way and says how long that took, without the imports."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any


def _ours(folder: Path, **options: bool) -> Callable[[], Any]:
    from mexc_pipeline import read

    return lambda: read.trades("btc", export_dir=folder, **options)


def _pandas(folder: Path, **options: Any) -> Callable[[], Any]:
    import pandas as pd

    def trades() -> Any:
        frames = pd.read_parquet(folder, columns=["ts", "mt", "m"], filters=[("mt", "=", "d")])
        rows = [(ts, deal) for ts, m in zip(frames["ts"], frames["m"], strict=True) for deal in _deals(m)]
        return pd.DataFrame(
            {
                "ts": [ts for ts, _ in rows],
                "time": pd.to_datetime([d["t"] for _, d in rows], unit="ms", utc=True),
                "price": [d["p"] for _, d in rows],
                "volume": [d["v"] for _, d in rows],
                "side": ["buy" if d["T"] == 1 else "sell" for _, d in rows],
                "open_type": [d["O"] for _, d in rows],
                "self_trade": [d["M"] == 1 for _, d in rows],
                "id": [d["i"] for _, d in rows],
                "cts": pd.to_datetime([int(d["cts"]) for _, d in rows], unit="ms", utc=True),
            }
        )

    def _deals(m: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(m, **options)["data"]
        return found

    return trades


def _duckdb(folder: Path) -> Callable[[], Any]:
    import duckdb

    # By path: a struct cannot be asked for, names of its fields do not tell t from T.
    sql = f"""
        SELECT ts, make_timestamp_ms((d->>'t')::BIGINT) AS time, (d->>'p')::DOUBLE AS price,
               (d->>'v')::DOUBLE AS volume, CASE d->>'T' WHEN '1' THEN 'buy' ELSE 'sell' END AS side,
               (d->>'O')::TINYINT AS open_type, d->>'M' = '1' AS self_trade, d->>'i' AS id,
               make_timestamp_ms((d->>'cts')::BIGINT) AS cts
        FROM (SELECT ts, unnest(json_extract(m, '$.data[*]')) AS d
              FROM read_parquet('{folder}/*.parquet') WHERE mt = 'd')"""

    def trades() -> Any:
        relation = duckdb.sql(sql)
        assert relation is not None  # a SELECT has rows
        return relation.df()

    return trades


def main() -> None:
    way, folder = sys.argv[1], Path(sys.argv[2])
    read = {
        "ours": lambda: _ours(folder),
        "ours_floats": lambda: _ours(folder, floats=True),
        "pandas": lambda: _pandas(folder),
        "pandas_decimal": lambda: _pandas(folder, parse_float=Decimal),
        "duckdb": lambda: _duckdb(folder),
    }[way]()
    cpu, began = time.process_time(), time.monotonic()
    trades = read()
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu_s": cpu, "rows": len(trades), "volume": int(trades["volume"].sum())}))


if __name__ == "__main__":
    main()
