"""An open segment's rows are those that arrived, or it is set apart."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from mexc_pipeline.periods import Period
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.spool.writer import Spool

HOUR = 3_600_000_000_000
START = 1_700_000_000_000_000_000 // HOUR * HOUR


def _open(folder: Path, rows: int) -> Path:
    spool = Spool(folder, "btc", "BTC_USDT", Period(HOUR), next_rx=START)
    for n in range(rows):
        spool._kept_at = 0.0  # each commit is the first one of its second
        spool.append([Frame(START + n, 1, Mt.TICKER, b'{"lastPrice":1.5}')])
    path = spool._path
    spool.close()
    return path


@pytest.mark.parametrize(
    "change",
    [
        "",
        "UPDATE rows SET m = CAST(replace(CAST(m AS TEXT), '1.5', '9.5') AS BLOB) WHERE seq = 3",
        "UPDATE rows SET rx = rx + 1 WHERE seq = 5",
        "UPDATE rows SET ts = ts + 1 WHERE seq = 1",
        "DELETE FROM rows WHERE seq = 5",
        "UPDATE rows SET mt = 2 WHERE seq = 2",
    ],
)
def test_changed_rows_are_set_apart(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "btc"
    folder.mkdir()
    path = _open(folder, 5)
    if change:
        with contextlib.closing(sqlite3.connect(path)) as db:
            before = list(db.execute("SELECT * FROM rows"))
            db.execute(change)
            db.commit()
            assert list(db.execute("SELECT * FROM rows")) != before
    again = Spool(folder, "btc", "BTC_USDT", Period(HOUR), next_rx=START + 10)
    again.close()
    assert bool(again.recovered.set_apart) == bool(change)
