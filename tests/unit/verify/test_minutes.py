"""What a file says of its minutes is made again from its rows; what lies at the edges of files is known across them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from mexc_pipeline import read
from mexc_pipeline.export.packed import Packed
from mexc_pipeline.export.parquet import FileWriter, metadata, metadata_of
from mexc_pipeline.ledger.shares import Shares, to_text
from mexc_pipeline.rows import Columns, Mt
from mexc_pipeline.spool.names import FileName
from mexc_pipeline.verify import minutes
from mexc_pipeline.verify.exports import FileProof

HOUR_S = 1_790_002_800
"""2026-09-21 15:00 UTC."""
HOUR = 3600
NAMES = ("btc2026092115.parquet", "btc2026092116.parquet")


def rows(altered: int = -1) -> list[tuple[int, int, int, int, bytes]]:
    """Two hours with a trade of 7 contracts each 20 seconds, and candles that are fetched just before each end; of the
    trade that is ``altered`` the candle has another volume."""
    found: list[tuple[int, int, bytes]] = [
        (HOUR_S * 1000 - 5_000, Mt.EVENT, b'{"event":"subscribed","channel":"push.deal"}')
    ]
    volumes: dict[int, int] = {}
    for n in range(2 * HOUR // 20):
        at_ms = (HOUR_S + 20 * n) * 1000 + 9_000
        deal = f'{{"p":100.5,"v":7,"T":1,"O":3,"M":2,"t":{at_ms},"i":"{n + 1}"}}'
        found.append(
            (at_ms, Mt.DEAL, f'{{"symbol":"BTC_USDT","data":[{deal}],"channel":"push.deal","ts":{at_ms}}}'.encode())
        )
        start = at_ms // 60_000 * 60
        volumes[start] = volumes.get(start, 0) + (8 if n == altered else 7)
        if n % 3 == 0:
            found.append((at_ms - 8_990, Mt.DEPTH, b"{}"))
        if (at_ms // 1000 + 11) % HOUR == 0:
            times = [time for time in volumes if time > start - 2 * HOUR]
            figures = {
                "time": times,
                "vol": [volumes[time] for time in times],
                **{f"real{name}": [100.5] * len(times) for name in ("Open", "High", "Low", "Close")},
            }
            text = "{" + ",".join(f'"{name}":{values}' for name, values in figures.items()) + "}"
            found.append((at_ms + 1_000, Mt.REPAIRED, text.encode()))
    found.sort(key=lambda row: row[0])
    return [(seq, at * 10**6 + 55_000_000, at, mt, m) for seq, (at, mt, m) in enumerate(found, 1)]


def write(folder: Path, altered: int = -1, said: Mapping[str, str] | None = None) -> list[FileProof]:
    proofs = []
    for n, file in enumerate(NAMES):
        name = FileName.parse(file)
        assert name is not None
        edge = HOUR_S + (n + 1) * HOUR
        mine = [row for row in rows(altered) if edge - HOUR <= max(row[1], HOUR_S * 10**9) / 10**9 < edge]
        with (folder / file).open("wb") as sink:
            writer = FileWriter(
                sink, {"id": "btc", "symbol": "BTC_USDT", "edge_ns": str(edge * 10**9), "final": "true"}
            )
            writer.add(Packed.of(Columns.of(mine)))
            writer.finish({**metadata_of(writer), **(said or {})})
        proofs.append(FileProof(name, folder / file, metadata(folder / file)))
    return proofs


def test_a_file_says_all_but_its_first_and_last_minute_and_together_they_say_those_too(tmp_path: Path) -> None:
    proofs = write(tmp_path, said={"minutes": to_text(Shares(58, 0, 2))})
    findings, lines = minutes.check("btc", proofs)
    assert findings == []
    assert lines == ["     btc of 120 minutes 118 agree with the exchange's candles, 0 differ, 2 unknown"]
    df = read.completeness("btc", export_dir=tmp_path)
    assert df.attrs == {"agree": 118, "differ": 0, "unknown": 2}
    unknown = list(df.minute[df.verdict == "unknown"])
    assert unknown == [pd.Timestamp(HOUR_S, unit="s", tz="UTC"), pd.Timestamp(HOUR_S + 119 * 60, unit="s", tz="UTC")]
    part = read.completeness("BTC_USDT", "2026-09-21T15:59", "2026-09-21T16:01", export_dir=tmp_path)
    assert list(part.verdict) == ["agrees", "agrees"]
    assert list(part.minute.dt.minute) == [59, 0]
    assert list(part.trades) == [3, 3]
    assert part.amount.isna().all(), "the size of a contract is not known"


@pytest.mark.parametrize("counts", [Shares(59, 0, 1), Shares(57, 1, 2), Shares(58, 0, 0)])
def test_a_file_that_says_something_else_of_its_minutes_fails(tmp_path: Path, counts: Shares) -> None:
    findings, _ = minutes.check("btc", write(tmp_path, said={"minutes": to_text(counts)}))
    assert [finding.ok for finding in findings] == [False, False]
    assert findings[0].text.endswith("its rows 58 agree, 0 differ, 2 unknown")
    findings, _ = minutes.check("btc", write(tmp_path, said={"minutes": "[]"}))
    assert len(findings) == 2


def test_what_another_rule_said_and_what_nobody_said_is_no_failure(tmp_path: Path) -> None:
    other = to_text(Shares(7, 7, 7)).replace('"rule":1', '"rule":2')
    for said in ({"minutes": other}, {}):
        assert minutes.check("btc", write(tmp_path, said=said))[0] == []


def test_a_minute_that_differs_is_named(tmp_path: Path) -> None:
    at = 3 * 59  # in the last minute of the first hour, which no file knows alone
    findings, lines = minutes.check("btc", write(tmp_path, altered=at, said={"minutes": to_text(Shares(58, 0, 2))}))
    assert findings == []
    assert lines == [
        "warn btc: trades differ from the exchange's candle: 2026-09-21 15:59 volume 21 against 22",
        "     btc of 120 minutes 117 agree with the exchange's candles, 1 differ, 2 unknown",
    ]
    df = read.completeness("btc", export_dir=tmp_path)
    (row,) = df[df.verdict == "differs"].itertuples()
    assert (row.why, row.volume, row.candle_volume, row.volume_difference) == ("volume", 21, 22, -1)
    assert df.rule[df.verdict == "differs"].isna().all()


def test_files_of_another_spool_or_with_a_hole_between_them_know_no_more_than_each_alone(tmp_path: Path) -> None:
    one, other = write(tmp_path)
    moved = metadata(other.path)
    with other.path.open("wb") as sink:
        writer = FileWriter(sink, moved)
        later = [row for row in rows() if row[1] / 10**9 >= HOUR_S + HOUR]
        writer.add(Packed.of(Columns.of((seq + 5, rx, ts, mt, m) for seq, rx, ts, mt, m in later)))
        writer.finish(metadata_of(writer))
    _, lines = minutes.check("btc", [one, other])
    assert lines == ["     btc of 120 minutes 116 agree with the exchange's candles, 0 differ, 4 unknown"]
