"""``read`` gives every frame of the stretch asked for and exact numbers, and says what it left out."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import re
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from mexc_pipeline import read
from mexc_pipeline.config import Config
from mexc_pipeline.errors import UserError
from mexc_pipeline.export import main
from mexc_pipeline.rows import Frame, wrap
from support.repository import ROOT
from support.spools import BOOK, DEAL, SECOND, T0, TICKER, fill, open_spool

READING = ROOT / "docs" / "reading.md"


def export(config: Config, *frames: tuple[int, str]) -> Path:
    """Export frames of given types as one file."""
    spool = open_spool(config)
    spool.append([Frame(T0 + n, None, mt, m.encode()) for n, (mt, m) in enumerate(frames)])
    spool.tick(T0 + 10 * SECOND)
    spool.close()
    assert main(config).ok
    return config.export_dir


def test_frames_are_what_the_files_hold(config: Config) -> None:
    fill(config, periods=2)
    main(config)
    df = read.frames("btc", export_dir=config.export_dir)
    assert list(df.columns) == ["ts", "mt", "m", "rx", "seq"]
    assert [str(t) for t in df.dtypes] == [
        "timestamp[ms, tz=UTC][pyarrow]",
        "string[pyarrow]",
        "string[pyarrow]",
        "timestamp[ns, tz=UTC][pyarrow]",
        "uint64[pyarrow]",
    ]
    assert list(df.seq) == list(range(1, 43))
    assert df.rx[1] == pd.Timestamp(T0 + 1_000_001, tz="UTC")
    assert read.frames("BTC_USDT", export_dir=config.export_dir).equals(df)


@pytest.mark.parametrize(
    ("start", "end", "seqs"),
    [
        (T0 + 1_000_001, T0 + 3_000_003, [2, 3]),
        ("2026-09-15T18:52:00.018", "2026-09-15 18:52:10.001000+00:00", [19, 20, 21, 22]),
        (dt.datetime.fromisoformat("2026-09-15T18:52:10"), None, list(range(22, 43))),
        (pd.Timestamp(T0 + 1_000_002, tz="UTC"), pd.Timestamp(T0 + 2_000_003), [3]),
        (None, dt.datetime(2026, 9, 15, 20, 52, 0, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))), [1]),
        ("2027-01-01", None, []),
        (0, dt.date(2026, 9, 15), []),
        (dt.date(2026, 9, 15), T0 + 1_000_001, [1]),
        (np.datetime64("2026-09-15"), np.datetime64("2026-09-15T18:52:00.000001"), [1]),
        (np.int64(T0 + 1_000_001), np.datetime64(T0 + 2_000_002, "ns"), [2]),
        (T0 + 1_000_001, (1 << 63) - 1, list(range(2, 43))),
        (np.datetime64("2026-09-15T18:52:10"), np.datetime64("3000-01-01"), list(range(22, 43))),
        (dt.datetime(1970, 1, 1, tzinfo=dt.UTC), np.datetime64("10000000-01-01"), list(range(1, 43))),
        ("20260915", pd.Timestamp("3000-01-01").as_unit("s"), list(range(1, 43))),
        ("3000-01-01", dt.datetime.max.replace(tzinfo=dt.UTC), []),
        ("2026-09-15T18:52:10", "9999-12-31", list(range(22, 43))),
    ],
)
def test_a_stretch_of_time_is_half_open(
    config: Config, start: read.Instant | None, end: read.Instant | None, seqs: list[int]
) -> None:
    fill(config, periods=2)
    main(config)
    assert list(read.frames("btc", start, end, export_dir=config.export_dir).seq) == seqs


@pytest.mark.parametrize(
    "wrong",
    [
        *(T0 // unit for unit in (SECOND, 10**6, 10**3)),
        -T0 // SECOND,
        T0 / SECOND,
        float(T0),
        True,
        10**40,
        1 << 63,
        np.uint64((1 << 64) - 1),
        10**5000,
        -(10**5000),
        -(10**40),
        -T0,
        np.int64(-T0),
        float("inf"),
        float("-inf"),
        float("nan"),
        np.float64("inf"),
        Decimal("Infinity"),
        Decimal("sNaN"),
        pd.NaT,
        pd.NA,
        np.datetime64("NaT"),
        np.datetime64("1969-12-31T23:59:59"),
        np.datetime64("-5000-01-01"),
        np.datetime64(-(1 << 62), "Y"),
        np.array([T0, T0]),
        dt.date.min,
        dt.datetime.min.replace(tzinfo=dt.UTC),
        pd.Timestamp("1969-12-31"),
        pd.Timestamp("0001-01-01").as_unit("s"),
        "0001-01-01T00:00+14:00",
        "1026-11-21",
        "yesterday",
        str(T0),
        "1790123112345",
        "2012123112345",
        "9" * 40,
        "-1",
        "inf",
        "nan",
        "\x1b[31m\n2026",
        ["2026-09-15"],
        dt.timedelta(hours=1),
    ],
    ids=lambda wrong: type(wrong).__name__,
)
def test_what_is_no_time_or_of_another_unit_is_refused(config: Config, wrong: object) -> None:
    """Each was once taken for an instant, 1970 as often as not, or failed within: everything was read, or nothing."""
    fill(config)
    main(config)
    for start, end in ((wrong, None), (None, wrong)):
        with pytest.raises(ValueError, match="is no time") as refused:
            read.trades("btc", start, end, export_dir=config.export_dir)  # type: ignore[arg-type]
        assert len(str(refused.value)) < 300
        assert str(refused.value).isprintable(), "one line"
    with pytest.raises(ValueError, match="is no time"):
        read.book("btc", at=wrong, export_dir=config.export_dir)  # type: ignore[arg-type]


def test_a_stretch_that_ends_before_it_begins_is_refused(config: Config) -> None:
    fill(config)
    main(config)
    with pytest.raises(ValueError, match="is after end"):
        read.tickers("btc", "2026-09-16", "2026-09-15", export_dir=config.export_dir)


def test_recorded_files_are_not_called_misplaced(config: Config) -> None:
    fill(config)
    main(config)
    with pytest.raises(UserError, match="imported ones are elsewhere"):
        read.frames("btc", export_dir=config.export_dir, imported=True)


def test_types_are_picked(config: Config) -> None:
    fill(config)
    main(config)
    assert set(read.frames("btc", export_dir=config.export_dir, types=["dl", "ev"]).mt) == {"dl", "ev"}
    with pytest.raises(ValueError, match="'y' is not a row type"):
        read.frames("btc", export_dir=config.export_dir, types=["y"])


def test_part_files_are_read_like_others(config: Config) -> None:
    spool = open_spool(config)
    for n in range(2):
        spool.append([Frame(T0 + n * SECOND, None, 2, DEAL.encode())])
        spool.cut(T0 + n * SECOND + 1)
    spool.close()
    main(config)
    assert len(list(config.export_dir.iterdir())) == 2
    assert len(read.trades("btc", export_dir=config.export_dir)) == 4


def test_unknown_symbols_are_named_with_what_there_is(config: Config) -> None:
    with pytest.raises(UserError, match="exports is no folder"):
        read.frames("btc", export_dir=config.export_dir)
    config.export_dir.mkdir()
    with pytest.raises(UserError, match="there are no exported files"):
        read.frames("btc", export_dir=config.export_dir)
    fill(config)
    main(config)
    with pytest.raises(UserError, match="there are files of btc"):
        read.trades("ETH_USDT", export_dir=config.export_dir)


def test_trades_of_every_shape(config: Config) -> None:
    shapes = [
        DEAL,
        '{"symbol":"BTC_USDT","data":{"p":27307.3,"v":5,"T":2,"O":3,"M":1,"t":1680055941870},"channel":"push.deal"}',
        '{"channel":"push.deal","data":[{"p":7.548E+4,"v":25329.000000000000000000000000000000,"T":1,"t":"1","i":77}]}',
        '{"data":[{"p":"0.080100","v":"3","T":null,"t":null,"cts":1788335242156,"extra":[1]}]}',
        '{"data":[]}',
    ]
    df = read.trades("btc", export_dir=export(config, *((2, s) for s in shapes)))
    assert list(df.seq) == [1, 1, 2, 3, 4]
    assert list(df.n) == [0, 1, 0, 0, 0]
    assert [f"{p.normalize():f}" for p in df.price] == ["77526", "77525.9", "27307.3", "75480", "0.0801"]
    assert list(df.volume) == [208, 5, 5, 25329, 3]
    assert [None if pd.isna(s) else s for s in df.side] == ["buy", "sell", "sell", "buy", None]
    assert [None if pd.isna(i) else i for i in df.id] == ["16005949690", "16005949659", None, "77", None]
    assert df.time[2] == pd.Timestamp("2023-03-29T02:12:21.870Z")
    assert pd.isna(df.cts[2])
    assert df.cts[4] == pd.Timestamp(1788335242156, unit="ms", tz="UTC")
    assert list(df.self_trade[:3]) == [False, True, True]
    assert df.attrs["skipped"] == 0
    assert str(df.price.dtype) == "decimal128(19, 12)[pyarrow]"
    assert (df.price * df.volume).sum() == Decimal("77526") * 208 + Decimal("77525.9") * 5 + Decimal(
        "27307.3"
    ) * 5 + 75480 * 25329 + Decimal("0.0801") * 3


def test_floats_only_when_asked_for(config: Config) -> None:
    df = read.trades("btc", export_dir=export(config, (2, DEAL)), floats=True)
    assert (str(df.price.dtype), list(df.price)) == ("double[pyarrow]", [77526.0, 77525.9])


@pytest.mark.parametrize(
    "bad",
    [
        '{"data":[{"p":true,"v":1,"t":1}]}',
        '{"data":[{"p":"much","v":1,"t":1}]}',
        '{"data":[{"p":1,"t":1}]}',
        '{"data":[{"p":1,"v":1,"t":1,"T":300}]}',
        '{"data":7}',
        '{"channel":"push.deal"}',
        '{"data":[]},{"data":[]}',
        "not json",
    ],
)
def test_what_cannot_be_decoded_is_reported_not_dropped_silently(config: Config, bad: str) -> None:
    folder = export(config, (2, DEAL), (2, bad), (2, DEAL))
    with pytest.warns(UserWarning, match=r"1 frames could not be decoded and were left out \(seq 2 first\)"):
        df = read.trades("btc", export_dir=folder)
    assert list(df.seq) == [1, 1, 3, 3]
    assert (df.attrs["skipped"], df.attrs["skipped_seq"]) == (1, [2])


@pytest.mark.parametrize(
    ("price", "kind"),
    [
        ("0.0000000000001", "decimal128(38, 13)"),
        ("10000000", "decimal128(38, 12)"),
        ("77526." + "0" * 300, "decimal128(19, 12)"),
        ("1" + "0" * 37, "decimal256(76, 38)"),
    ],
)
def test_a_number_that_needs_more_room_has_it(config: Config, price: str, kind: str) -> None:
    folder = export(config, (2, f'{{"data":[{{"p":{price},"v":1,"t":1}}]}}'), (2, DEAL))
    found = read.trades("btc", export_dir=folder)
    assert list(found.price) == [Decimal(price), Decimal("77526"), Decimal("77525.9")]
    assert str(found.price.dtype) == f"{kind}[pyarrow]"
    assert read.trades("btc", export_dir=folder, floats=True).price[0] == float(price)


@pytest.mark.parametrize("price", ["9" * 140, "1e-39", "1e400", "1e99999999999999999999", "-" + "9" * 140])
def test_a_number_that_has_no_exact_place_is_left_out_and_named(config: Config, price: str) -> None:
    folder = export(config, (2, f'{{"data":[{{"p":{price},"v":1,"t":1}}]}}'), (2, DEAL))
    with pytest.warns(read.LeftOutWarning, match=r"seq 1 first\): p: .*(digits|exponent)"):
        found = read.trades("btc", export_dir=folder)
    assert list(found.price) == [Decimal("77526"), Decimal("77525.9")]
    assert (found.attrs["skipped"], found.attrs["skipped_seq"]) == (1, [1])


@pytest.mark.parametrize("unit", [Decimal("0.001"), Decimal(1000), Decimal(10**6), Decimal(0)])
@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("name", ["t", "cts"])
def test_a_time_in_another_unit_is_null_and_said(config: Config, unit: Decimal, quoted: bool, name: str) -> None:
    """A trade of the year 58,000 is worse than one without a time; all else of it is as it came."""
    frame = json.loads(DEAL)
    for deal in frame["data"]:
        at = int(int(deal[name]) * unit)
        deal[name] = str(at) if quoted else at
    folder = export(config, (2, json.dumps(frame)), (2, DEAL))
    with pytest.warns(read.LeftOutWarning, match=f"not in Unix milliseconds are null: 2 {name}"):
        found = read.trades("btc", export_dir=folder)
    column, other = ("time", "cts") if name == "t" else ("cts", "time")
    assert list(found[column].isna()) == [True, True, False, False]
    assert not found[other].isna().any()
    assert found.attrs["untimed"] == {name: 2}
    assert found.attrs["skipped"] == 0
    assert list(found.price) == 2 * [Decimal("77526"), Decimal("77525.9")]


def test_times_in_another_unit_of_tickers_and_books(config: Config) -> None:
    ticker = TICKER.replace('"timestamp":1731137509138', '"timestamp":1731137509138000')
    folder = export(config, (1, ticker), (3, BOOK.replace("1789498322165", "1789498322165000")))
    with pytest.warns(read.LeftOutWarning, match="null: 1 timestamp"):
        assert read.tickers("btc", export_dir=folder).time.isna().all()
    with pytest.warns(read.LeftOutWarning, match="null: 1 cts"):
        assert read.book("btc", export_dir=folder).cts.isna().all()
    assert read.book("btc", at=T0 + SECOND // 2, export_dir=folder).cts.isna().all()


def test_tickers(config: Config) -> None:
    folder = export(
        config, (1, TICKER), (1, '{"data":{"lastPrice":7.5e-7,"fundingRate":-0.000081}}'), (1, '{"data":[]}')
    )
    with pytest.warns(UserWarning, match="seq 3 first"):
        df = read.tickers("btc", export_dir=folder)
    assert list(df["last"]) == [Decimal("76376.1"), Decimal("0.00000075")]
    assert df["index"][0] == 75480
    assert df.volume24[0] == 25329
    assert df.funding_rate[1] == Decimal("-0.000081")
    assert pd.isna(df.bid[1])
    assert df.time[0] == pd.Timestamp(1731137509138, unit="ms", tz="UTC")


def test_book(config: Config) -> None:
    depth = '{"symbol":"BTC_USDT","data":{"asks":[[1,2,3]],"bids":[],"version":9},"channel":"push.depth","ts":1}'
    empty = '{"data":{"asks":[],"bids":[[0.080100,7405]],"version":2},"channel":"push.depth.full"}'
    broken = '{"data":{"asks":[[1]],"bids":[],"version":3},"channel":"push.depth.full"}'
    folder = export(config, (3, BOOK), (3, depth), (3, empty), (3, broken))
    with pytest.warns(UserWarning, match="seq 4 first"):
        df = read.book("btc", export_dir=folder)
    assert list(zip(df.seq, df.side, df.level, df.price, df.volume, strict=True)) == [
        (1, "ask", 1, Decimal("77526.1"), 48),
        (1, "ask", 2, Decimal("77526.2"), 347),
        (1, "bid", 1, Decimal("77526"), 46),
        (1, "bid", 2, Decimal("77525.9"), 489),
        (3, "bid", 1, Decimal("0.0801"), 7405),
    ]
    assert [None if pd.isna(o) else o for o in df.orders] == [1, 1, 1, 2, None]
    assert list(df.version) == [5220571685] * 4 + [2]
    assert (df.attrs["skipped"], df.attrs["incremental"]) == (1, 1)
    with pytest.warns(UserWarning, match="seq 4"):
        best = read.book("btc", export_dir=folder, levels=1)
    assert list(best.level) == [1, 1, 1]
    with pytest.raises(ValueError, match="at least 1"):
        read.book("btc", export_dir=folder, levels=0)


def test_a_book_after_which_only_dead_letters_came_says_so(config: Config) -> None:
    renamed = BOOK.replace("BTC_USDT", "btc_usdt")
    folder = export(config, (4, renamed), (3, BOOK), (4, renamed), (4, renamed))
    with pytest.warns(read.DeadLetterWarning, match=r"2 of 3 frames .* \(2 symbol\)") as caught:
        book = read.book("btc", at=T0 + SECOND, export_dir=folder)
    assert (book.attrs["dead_letters"], book.seq[0]) == (2, 2)
    assert caught[0].filename == __file__
    with pytest.warns(read.DeadLetterWarning, match=r"3 of 4 frames .* \(3 symbol\)") as caught:
        assert not len(read.trades("btc", export_dir=folder))
    assert caught[0].filename == __file__
    with pytest.raises(UserError, match=r"no snapshot of the book .*; 3 dead letters lie in them"):
        read.book("btc", at=T0, export_dir=folder)


def test_nothing_in_the_stretch_gives_the_columns_all_the_same(config: Config) -> None:
    fill(config)
    main(config)
    folder = config.export_dir
    for function in (read.trades, read.tickers, read.book):
        full, none = function("btc", export_dir=folder), function("btc", "2030-01-01", export_dir=folder)
        assert (len(none), list(none.dtypes)) == (0, list(full.dtypes))
        assert len(full)


@pytest.mark.parametrize("language", ["python", "sql", pytest.param("clickhouse", marks=pytest.mark.engine)])
def test_the_examples_of_the_page_run(config: Config, language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(config, periods=3)
    main(config)
    monkeypatch.chdir(config.export_dir.parent)
    examples = re.findall(rf"```{language}\n(.*?)```", READING.read_text(), re.DOTALL)
    assert examples
    for example in examples:
        if language == "python":
            exec(example, {})
        elif language == "sql":
            assert duckdb.connect().execute(example).fetchall(), example
        else:  # the engine allows itself once a process
            script = "import chdb, sys; print(chdb.query(sys.argv[1], 'CSV'))"
            done = subprocess.run([sys.executable, "-c", script, example], capture_output=True, text=True, timeout=60)
            assert '"t",15,' in done.stdout, done.stderr


def test_duckdb_sees_the_same_rows(config: Config) -> None:
    fill(config)
    main(config)
    rows = duckdb.connect().execute(
        f"SELECT seq, mt, m, epoch_ns(rx) FROM '{config.export_dir}/btc*.parquet' ORDER BY seq"
    ).fetchall()  # fmt: skip
    df = read.frames("btc", export_dir=config.export_dir)
    assert [r[:3] for r in rows] == list(zip(df.seq, df.mt, df.m, strict=True))
    assert json.loads(rows[1][2])["channel"] == "push.deal"
    assert [r[3] // 1000 for r in rows] == [t.value // 1000 for t in df.rx]


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, lambda data: zlib.compress(data, wbits=-15)])
def test_frames_that_came_compressed_are_read_like_any_other(config: Config, pack: Callable[[bytes], bytes]) -> None:
    frames = ((1, TICKER), (2, DEAL), (3, BOOK), (2, DEAL))

    def packed(at: int, mt: int, m: str) -> Frame:
        return Frame(T0 + at, None, mt, wrap(2, pack(m.encode())) if at else m.encode())

    spool = open_spool(config)
    spool.append([packed(n, mt, m) for n, (mt, m) in enumerate(frames)])
    spool.tick(T0 + 10 * SECOND)
    spool.close()
    assert main(config).ok
    folder = config.export_dir
    trades = read.trades("BTC_USDT", export_dir=folder)
    assert len(trades) == 2 * len(json.loads(DEAL)["data"])
    assert trades.iloc[0]["price"] == trades.iloc[-1]["price"] or len(json.loads(DEAL)["data"]) > 1
    assert len(read.tickers("BTC_USDT", export_dir=folder)) == 1
    book = read.book("BTC_USDT", export_dir=folder)
    assert len(book) == sum(len(json.loads(BOOK)["data"][side]) for side in ("asks", "bids"))
    assert read.book("BTC_USDT", at=pd.Timestamp(T0 + SECOND, tz="UTC"), export_dir=folder) is not None


def test_trades_that_were_fetched_stand_where_they_were_fetched_and_are_marked(config: Config) -> None:
    """Whatever else was fetched over REST is no trade, however much it looks like one."""
    fetched = '{"p":7.50e3,"v":3,"T":2,"O":3,"M":1,"t":1788335242156}'
    with_id = '{ "p":7500, "v":"4", "T":1, "t":1788335242157, "i":"16005949690", "x":"\\u00e4" }'
    folder = export(
        config,
        (2, DEAL),
        (6, fetched),
        (6, '{"cts":1788335242156,"asks":[[1,2,3]],"bids":[],"version":9}'),
        (6, '{"version":9,"p":1,"v":1,"T":1,"t":1788335242156}'),
        (6, '{"p":1,"v":1,"t":17}'),
        (6, "[]"),
        (6, "no JSON"),
        (6, with_id),
        (2, DEAL),
    )
    for floats in (False, True):
        df = read.trades("btc", export_dir=folder, floats=floats)
        rows = df[df.filled]
        assert list(rows.seq) == [2, 8]
        assert list(rows.price) == [7500, 7500]
        assert list(rows.volume) == [3, 4]
        assert list(rows.side) == ["sell", "buy"]
        assert rows.id.tolist()[1] == "16005949690"
        assert rows.id.isna().tolist()[0]
        assert rows.time.tolist()[0] == pd.Timestamp(1788335242156, unit="ms", tz="UTC")
        assert list(df[~df.filled].seq.unique()) == [1, 9]
        assert list(df.seq) == sorted(df.seq)
        assert df.attrs["skipped"] == 0
    assert not read.trades("btc", "2030-01-01", export_dir=folder).filled.any()


@pytest.mark.parametrize(
    ("mt", "frame", "gone", "named"),
    [
        (1, TICKER, ('"lastPrice"', '"last"'), "last"),
        (1, TICKER, ('"lastPrice":76376.1', '"lastPrice":null'), "last"),
        (2, DEAL, ('"T":', '"side":'), "T"),
    ],
)
def test_a_field_that_no_frame_has_any_more_is_warned_of(
    config: Config, mt: int, frame: str, gone: tuple[str, str], named: str
) -> None:
    read_by = {1: read.tickers, 2: read.trades}[mt]
    folder = export(config, (mt, frame.replace(*gone)), (mt, frame.replace(*gone)))
    with pytest.warns(read.LeftOutWarning, match=rf"none of the \d rows has ([^:]*, )?{named}(,|:| which)") as told:
        df = read_by("btc", export_dir=folder)
    assert df.attrs["missing"][named] == len(df)
    assert [w.filename for w in told if w.category is read.LeftOutWarning] == [__file__]


def test_a_field_that_some_frames_have_is_counted_only(config: Config) -> None:
    folder = export(config, (2, DEAL), (2, DEAL.replace('"T":', '"side":')))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        df = read.trades("btc", export_dir=folder)
    assert df.attrs["missing"]["T"] == len(df) / 2
