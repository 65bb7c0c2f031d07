"""Funding, index and fair price, candles and contracts out of files."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mexc_pipeline import read
from mexc_pipeline.config import Config
from mexc_pipeline.export import main
from mexc_pipeline.read.files import find
from mexc_pipeline.rows import Frame, Mt
from mexc_pipeline.verify.newest import newest_lines
from support.spools import CONTRACT, FAIR, FUNDING, INDEX, KLINE, SECOND, SPECIFICATION, T0, open_spool

F, I, P, K, C, X, DL = (  # noqa: E741 - the types as files have them
    Mt.FUNDING, Mt.INDEX_PRICE, Mt.FAIR_PRICE, Mt.KLINE, Mt.CONTRACT, Mt.OTHER, Mt.DEAD_LETTER
)  # fmt: skip


def export(config: Config, *rows: tuple[int, str]) -> Path:
    spool = open_spool(config)
    for n, (mt, m) in enumerate(rows):
        spool.append([Frame(T0 + n * SECOND // 100, None, mt, m.encode())])
    spool.cut(T0 + 9 * SECOND)
    spool.close()
    assert main(config).ok
    return config.export_dir


def test_each_reader_gives_the_rows_of_its_type(config: Config) -> None:
    folder = export(config, (F, FUNDING), (I, INDEX), (P, FAIR), (K, KLINE), (C, CONTRACT), (X, "{}"))
    funding = read.funding("btc", export_dir=folder)
    assert list(funding.columns) == ["rx", "ts", "seq", "rate", "next_settle"]
    assert list(funding.rate) == [Decimal("0.000081")]
    assert list(funding.next_settle) == [pd.Timestamp("2026-09-16T00:00:00Z")]
    index, fair = read.index_price("btc", export_dir=folder), read.fair_price("btc", export_dir=folder)
    assert list(index.columns) == list(fair.columns) == ["rx", "ts", "seq", "price"]
    assert [*index.price, *fair.price] == [Decimal("76027.1"), Decimal(75986)]
    klines = read.klines("btc", export_dir=folder)
    assert list(klines.start) == [pd.Timestamp("2022-04-29T11:11:00Z")], "seconds on the wire"
    row = klines.iloc[0]
    assert (row.interval, row.open, row.high, row.low, row.close) == (
        "Min1", Decimal("38901.5"), Decimal("38909.5"), Decimal(38833), Decimal(38839),
    )  # fmt: skip
    assert (row.volume, row.amount, row.ro) == (83808, Decimal("325653.3287"), Decimal("38909.5"))
    contract = read.contracts("btc", export_dir=folder).iloc[0]
    assert (contract.symbol, contract.base, contract.quote, contract.settle) == ("BTC_USDT", "BTC", "USDT", "USDT")
    assert (contract.contract_size, contract.price_unit, contract.max_volume) == (
        Decimal("0.0001"), Decimal("0.1"), 2000000,
    )  # fmt: skip
    assert (contract.maker_fee, contract.taker_fee, contract.max_leverage) == (0, Decimal("0.0002"), 500)
    assert (contract.state, contract.hidden, contract.api_allowed) == (0, False, True)
    assert contract.opening == pd.Timestamp("2020-06-04T03:51:24Z")
    assert list(read.frames("btc", export_dir=folder, types=["k", "x"]).mt) == ["k", "x"]
    for df in (funding, index, fair, klines):
        assert df.attrs["skipped"] == 0
        assert not df.attrs["missing"]
    assert str(read.fair_price("btc", export_dir=folder, floats=True).price.dtype) == "double[pyarrow]"


def test_files_without_them_give_no_rows(config: Config) -> None:
    folder = export(config, (X, "{}"))
    for reader in (read.funding, read.index_price, read.fair_price, read.klines, read.contracts):
        assert len(reader("btc", export_dir=folder)) == 0


READERS: list[tuple[Any, Mt, str]] = [
    (read.funding, F, FUNDING),
    (read.index_price, I, INDEX),
    (read.fair_price, P, FAIR),
    (read.klines, K, KLINE),
    (read.contracts, C, CONTRACT),
]


@pytest.mark.parametrize(("reader", "mt", "frame"), READERS)
def test_what_cannot_be_read_is_left_out_and_said_to_the_caller(
    config: Config, reader: Any, mt: Mt, frame: str
) -> None:
    folder = export(config, (mt, frame), (mt, '{"data":7}'), (DL, frame.replace('"ts":', '"ts":5')))
    with pytest.warns(read.LeftOutWarning, match=r"1 frames could not be decoded and were left out \(seq 2") as told:
        df = reader("btc", export_dir=folder)
    assert [w.filename for w in told if w.category is read.LeftOutWarning] == [__file__]
    assert (df.attrs["skipped"], df.attrs["skipped_seq"]) == (1, [2])
    seqs = [1] if reader is read.contracts else [1, 3]
    assert list(df.seq) == seqs, "a dead letter for nothing but its ts is read with the others"


def test_what_is_missing_or_in_another_unit_is_counted(config: Config) -> None:
    folder = export(
        config,
        (F, FUNDING.replace('"rate":0.000081,', "")),
        (F, FUNDING.replace('"rate"', '"fundingRate"').replace("1789516800000", "1789516800")),
        (K, KLINE.replace("1651230660", "1651230660000")),
        (K, KLINE.replace('"a":325653.3287,', "")),
        (C, CONTRACT.replace('"contractSize":0.0001,', "").replace('"openingTime":1591242684000', '"openingTime":0')),
    )
    with pytest.warns(read.LeftOutWarning, match="null: 1 nextSettleTime"):
        funding = read.funding("btc", export_dir=folder)
    assert funding.attrs["missing"] == {"rate": 1}
    assert list(funding.rate.isna()) == [True, False]
    assert list(funding.next_settle.isna()) == [False, True]
    with pytest.warns(read.LeftOutWarning, match="null: 1 t"):
        klines = read.klines("btc", export_dir=folder)
    assert list(klines.start.isna()) == [True, False]
    assert klines.attrs["missing"] == {"amount": 1}
    contracts = read.contracts("btc", export_dir=folder)
    assert contracts.attrs["missing"] == {"contract_size": 1}
    assert contracts.attrs["untimed"] == {}, "0 is no time"
    assert contracts[["contract_size", "opening"]].isna().all(axis=None)


def test_a_specification_is_a_row_where_it_changed(config: Config) -> None:
    """Pushed, as REST has it by itself, among others in a list; what it says again is counted."""
    other = SPECIFICATION.replace("BTC", "ETH").replace("0.0001", "0.01")
    changed = SPECIFICATION.replace('"takerFeeRate":0.0002', '"takerFeeRate":0.0004')
    listed = f'{{"channel":"push.contract","data":[{other},{changed}]}}'
    folder = export(
        config, (C, SPECIFICATION), (C, CONTRACT), (X, CONTRACT.replace("BTC", "ETH")), (C, listed), (C, SPECIFICATION)
    )
    df = read.contracts("BTC_USDT", export_dir=folder)
    assert list(df.seq) == [1, 4, 5]
    assert list(df.taker_fee) == [Decimal("0.0002"), Decimal("0.0004"), Decimal("0.0002")]
    assert set(df.symbol) == {"BTC_USDT"}
    assert df.attrs["unchanged"] == 1
    assert df.attrs["skipped"] == 0


def test_the_newest_rows_are_shown_in_words(config: Config) -> None:
    folder = export(config, (F, FUNDING), (I, INDEX), (P, FAIR), (K, KLINE), (C, CONTRACT), (X, '{"channel":"push.x"}'))
    lines = newest_lines("btc", [file.path for file in find("btc", folder)], 3)
    told = {line.split()[1]: line.partition(": ")[2] for line in lines}
    del told["ev"]
    assert told == {
        "f": "0.000081, settled 2026-09-16 00:00",
        "i": "index 76027.1",
        "p": "fair 75986",
        "k": "Min1 from 2022-04-29 11:11 open 38901.5 high 38909.5 low 38833 close 38839 volume 83808",
        "c": "BTC_USDT contract 0.0001 BTC price unit 0.1 state 0",
        "x": '{"channel":"push.x"}',
    }
